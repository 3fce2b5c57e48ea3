"""kill -9 at the lines of an installation over HTTPS: the old model or the new one, and never half of one (T40)."""

from __future__ import annotations

import pytest
from fleet_jobs_kit import ALWAYS, keys
from forked_death import deaths_of, folder_in_memory
from package_rows_kit import NAME
from tuf_box_kit import TufJobBox, TufServer, put_models, repository

from appliance.fleet.wire import Op


@pytest.mark.long
@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-69")
def test_killed_at_any_line_a_download_goes_on_and_the_box_has_the_old_or_the_new_model():
    every = 151
    with folder_in_memory() as root:
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
            deaths = deaths_of("fleet_fetch_killer.py", root, server.url, 1, every)
            resumed = [begin for path, begin in server.asked if begin]
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
