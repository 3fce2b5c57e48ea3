"""Takes jobs, does them, and is killed at one line of it: ``fleet_jobs_killer.py FOLDER FIRST EVERY``.

For every so many lines a fork does all jobs on a fresh copy of the box and is killed before that line; another fork
then is the box's next start: the server sends everything again, as it does on every connect, and the jobs go on. It
prints one JSON line per death: what the box holds in the end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from fleet_jobs_kit import ALWAYS, DIGEST, JobBox
from forked_death import in_child, killed_at
from package_rows_kit import NAME

from appliance.fleet.device import inbox, install, jobs, ops, tasks, twin
from appliance.fleet.wire import Op, WireError
from appliance.store import database, fleet_jobs, fleet_twin, packages

#: Files whose lines count.
WATCHED = {
    module.__file__ for module in (inbox, install, jobs, ops, tasks, twin, fleet_jobs, fleet_twin, packages, database)
}
INSTALL = {"package": NAME, "version": "2.0.0", "digest": DIGEST["2.0.0"], "target": "toy.zip"}
POINTS = [{"name": NAME, "operating_points": {"bright-blob": "sensitive"}}]


class Box(JobBox):
    """Its acts are counted in a file, which outlives it."""

    def open(self):
        super().open()
        log = self.root / "acts.log"
        real = self.acts._called

        def called(name):
            with log.open("a") as file:
                file.write(f"{name}\n")
            real(name)

        self.acts._called = called


def given(box):
    """What the server has for the box."""
    return [
        ("twin", box.twin(1, window=ALWAYS, packages=POINTS)),
        ("job", box.job(Op.SELF_TEST)),
        ("job", box.job(Op.MODEL_INSTALL, **INSTALL, soak_h=0, soak_studies=0)),
        ("job", box.job(Op.MODEL_ROLLBACK, package=NAME)),
        ("job", box.job(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0")),
        ("job", box.job(Op.RESTART)),
    ]


def deed(box, mail):
    """Everything, one after the other."""
    for kind, envelope in mail:
        with contextlib.suppress(WireError):
            (box.inbox.take_twin if kind == "twin" else box.inbox.take_job)(envelope)
        box.run()


def look(box):
    """What the box holds."""
    facts = box.store.journal.after(0, 10_000)
    acts = (box.root / "acts.log").read_text().split() if (box.root / "acts.log").exists() else []
    mine = Counter(str(fact.kind) for fact in facts if fact.actor["kind"] == "fleet")
    told = {}
    for fact in facts:
        if fact.kind == "fleet_job_step":
            told.setdefault(fact.body["op"], []).append(fact.body["version"])
    return {
        "jobs": {row.op: [row.state, row.code] for row in box.store.fleet_jobs.all()},
        "packages": box.packages(),
        "points": {row.version: dict(row.operating_points) for row in box.store.packages.all(NAME)},
        "twin": box.inbox.dv,
        "ctr": box.inbox.ctr,
        "facts": {kind: n for kind, n in mine.items() if kind.startswith(("package_", "operating", "fleet_twin"))},
        "acts": dict(Counter(acts)),
        "versions": told,
        "chain": box.store.journal.verify(),
    }


def main():
    """Kill at every so many lines until one child comes through."""
    root = Path(sys.argv[1])
    line, every = int(sys.argv[2]), int(sys.argv[3])
    box = Box(root)
    box.serve("1.0.0")
    mail = given(box)
    box.close()
    killed = True
    while killed:
        copy = root.with_name(f"{root.name}-{line}")
        shutil.copytree(root, copy)

        def do(at=line, on=copy):
            made = Box(on)
            killed_at(at, WATCHED, lambda: deed(made, mail))

        killed = in_child(do)

        def after(at=line, on=copy, was_killed=killed):
            made = Box(on)
            deed(made, mail)
            made.restart()
            made.run()
            sys.stdout.write(json.dumps({"line": at, "killed": was_killed, "ended": look(made)}) + "\n")
            sys.stdout.flush()

        in_child(after)
        shutil.rmtree(copy)
        line += every


if __name__ == "__main__":
    main()
