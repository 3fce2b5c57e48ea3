"""kill -9 at the lines of the fleet's jobs: the old or the new, never half, and nothing done twice."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from fleet_jobs_killer import Box, deed, given, look
from forked_death import deaths_of, folder_in_memory

from appliance.store.database import Database

DONE = ["SUCCEEDED", ""]


class Killed(BaseException):
    """The end of the process."""


class Deaths:
    """Ends a box after its n-th commit or act, whichever that is."""

    def __init__(self, left):
        self.left = left

    def tick(self):
        self.left -= 1
        if self.left == 0:
            raise Killed

    @contextlib.contextmanager
    def over(self, box, monkeypatch):
        write, called = Database.write, box.acts._called

        @contextlib.contextmanager
        def committed(db):
            with write(db) as tx:
                yield tx
            self.tick()

        def acted(name):
            called(name)
            self.tick()

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", committed)
            patch.setattr(box.acts, "_called", acted)
            yield


@pytest.mark.long
@pytest.mark.req("R-FLEET-42")
def test_dead_after_any_commit_or_act_the_jobs_go_on_as_if_nothing_had_been(monkeypatch):
    """Every one of them: what lies between two commits changes nothing that lasts but by an act."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        first = Box(Path(folder) / "box")
        first.serve("1.0.0")
        mail = given(first)
        first.close()
        for n in itertools.count(1):
            shutil.copytree(first.root, Path(folder) / "copy")
            box = Box(Path(folder) / "copy")
            died = True
            with Deaths(n).over(box, monkeypatch), contextlib.suppress(Killed):
                deed(box, mail)
                died = False
            box.restart()
            deed(box, mail)
            box.restart()
            box.run()
            _is_whole(look(box), n)
            box.close()
            shutil.rmtree(box.root)
            if not died:
                break
    assert n > 30


@pytest.mark.req("R-FLEET-42")
def test_killed_at_any_line_the_jobs_go_on_as_if_nothing_had_been(request):
    every = 31 if request.config.getoption("--full") else 997
    with folder_in_memory() as folder:
        deaths = deaths_of("fleet_jobs_killer.py", folder / "box", 1, every)
    assert len(deaths) > 5
    for death in deaths:
        _is_whole(death["ended"], death["line"])


def _is_whole(ended, line):
    jobs = ended["jobs"]
    assert jobs.pop("self_test") in (DONE, ["FAILED", "INTERRUPTED"]), line
    assert set(map(tuple, jobs.values())) == {tuple(DONE)}, (line, jobs)
    assert len(jobs) == 4, line
    assert ended["packages"] == {"1.0.0": "withdrawn", "2.0.0": "retired"}, line
    assert ended["points"] == {"1.0.0": {"bright-blob": "sensitive"}, "2.0.0": {"bright-blob": "sensitive"}}, line
    assert (ended["twin"], ended["ctr"], ended["chain"]) == (1, 5, 0), line
    once = dict.fromkeys(
        ("package_activated", "package_live", "package_rolled_back", "package_withdrawn", "operating_point_changed"), 1
    )
    assert {kind: n for kind, n in ended["facts"].items() if kind != "package_installed"} == {**once, "fleet_twin": 1}
    assert ended["acts"].get("self_test", 0) <= 1, line
    assert ended["acts"].get("restart", 0) <= 1, line
    assert ended["acts"]["install"] <= 2, line
    for op, versions in ended["versions"].items():
        assert versions == list(range(1, len(versions) + 1)), (line, op)
