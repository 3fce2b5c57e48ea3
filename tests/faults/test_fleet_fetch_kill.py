"""kill -9 at the lines of an installation over HTTPS: the old model or the new one, and never half of one (T40)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fleet_jobs_kit import ALWAYS, keys
from package_rows_kit import NAME
from tuf_box_kit import TufJobBox, TufServer, put_models, repository

from appliance.fleet.wire import Op

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.long
@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-69")
def test_killed_at_any_line_a_download_goes_on_and_the_box_has_the_old_or_the_new_model():
    every = 151
    shared = Path("/dev/shm")  # a killed process, unlike a power cut, loses nothing that it has written
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        root = Path(folder)
        kit = repository(root / "tuf")
        put_models(kit, "2.0.0")
        with TufServer(kit.folder) as server:
            box = TufJobBox(root / "box", server.url)
            box.serve("1.0.0")
            box.inbox.take_twin(box.twin(1, window=ALWAYS, bytes_per_s=10_000_000))
            kit.rotate(release=[keys()["release"], keys()["release-2"]])
            args = {"package": NAME, "version": "2.0.0", "digest": "bb" * 32, "target": "toy-2.0.0.zip"}
            (root / "1.job").write_bytes(box.job(Op.ROOT_UPDATE))
            (root / "2.job").write_bytes(box.job(Op.MODEL_INSTALL, **args, soak_h=0, soak_studies=0))
            box.close()
            told = subprocess.run(
                [sys.executable, str(SUPPORT / "fleet_fetch_killer.py"), folder, server.url, "1", str(every)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            resumed = [begin for path, begin in server.asked if begin]
    assert told.returncode == 0, told.stderr[-2000:]
    deaths = [json.loads(line) for line in told.stdout.splitlines()]
    assert [death["killed"] for death in deaths] == [True] * (len(deaths) - 1) + [False]
    assert len(deaths) > 20
    assert resumed, "no death within the download left a part to go on from"
    for death in deaths:
        old, new = {"1.0.0": "live"}, {"1.0.0": "retired", "2.0.0": "live"}
        slot = {**old, "2.0.0": "installed"}
        assert death["at_once"]["packages"] in (old, slot, new), death
        ended = death["ended"]
        assert ended["jobs"] == [["model.install", "SUCCEEDED", ""], ["root.update", "SUCCEEDED", ""]], death
        assert (ended["packages"], ended["left"]) == (new, []), death
        assert (ended["live"], ended["trusts"], ended["chain"]) == (2, 1, 0), death
