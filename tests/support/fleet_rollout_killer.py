"""Drives a roll-out and is killed before one change that it makes: ``fleet_rollout_killer.py FOLDER``.

For every statement that changes the database a fork takes a copy of the server through a whole roll-out and back, and
is killed before it; another fork is the server's next start, and goes on to the end. It prints a JSON line per death.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from fleet_kit import NOW
from forked_death import in_child
from rollout_kit import PaperFleet
from sqlalchemy import event, select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.db import read
from appliance.fleet.server.rollout import drive
from appliance.fleet.wire_jobs import ENDED, JobState

_BOXES, _MOST_STEPS = 6, 60


def ends(facts, plan, judge=drive.judge):
    """Of results there are none in this world: as if a person had accepted that."""
    judged = judge(facts, plan)
    return drive.Judged(tuple(one for one in judged.verdicts if one.gate not in {"alerts", "latency"}), judged.looks)


def open_fleet(folder):
    """The server's next start, a moment after all that is written."""
    drive.judge = ends
    engine = db.open_engine(f"sqlite:///{folder / 'fleet.db'}")
    db.migrate(engine)
    fleet = PaperFleet(engine, folder, _BOXES)
    with read(engine) as connection:
        fleet.now = max([NOW, *connection.scalars(select(t.job.c.made_at)), *connection.scalars(select(t.audit.c.at))])
    return fleet


def deed(fleet):
    """Through all waves, and back."""
    (ident,) = {row.id for row in _rows(fleet)}
    for _ in range(_MOST_STEPS):
        state = str(_rows(fleet)[0].state)
        if state == "REVERTED":
            return
        if state == "FINISHED":
            fleet.act("revert", ident)
        fleet.step(dt.timedelta(seconds=31))
        for job in fleet.jobs():
            if JobState(job.state) not in ENDED:
                fleet.say(job.id, "SUCCEEDED")


def look(fleet):
    """What is kept in the end."""
    row = _rows(fleet)[0]
    boxes = {one.device: one for one in fleet.boxes(row.id)}
    installs = fleet.jobs(op="model.install")
    return {
        "state": str(row.state),
        "told": sorted(one.device for one in installs),
        "unknown": [one.id for one in installs if boxes[one.device].job != one.id],
        "back": sorted(one.device for one in fleet.jobs(op="model.rollback")),
        "counters": all(n == 1 for n in Counter((one.device, one.ctr) for one in fleet.jobs()).values()),
        "audit": Counter(one.act for one in fleet.audit() if one.act.startswith("rollout.")),
    }


def killed_before(number, fleet):
    """Let this process die before its ``number``-th change."""
    left = number

    def count(_connection, _cursor, statement, *_):
        nonlocal left
        left -= statement.startswith(("INSERT", "UPDATE", "DELETE"))
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(fleet.engine, "before_cursor_execute", count)


def _rows(fleet):
    with read(fleet.engine) as connection:
        return connection.execute(select(t.roll_out)).all()


def main():
    """Kill before every change until one child comes through."""
    root, number = Path(sys.argv[1]), 1
    root.mkdir()
    fleet = open_fleet(root)
    fleet.running(soak_studies=0, per_minute=2)  # so that a wave takes several steps
    fleet.engine.dispose()
    killed = True
    while killed:
        copy = root.with_name(f"{root.name}-{number}")
        shutil.copytree(root, copy)

        def do(at=number, on=copy):
            made = open_fleet(on)
            killed_before(at, made)
            deed(made)

        killed = in_child(do)

        def after(at=number, on=copy, was_killed=killed):
            made = open_fleet(on)
            deed(made)
            sys.stdout.write(json.dumps({"before": at, "killed": was_killed, "ended": look(made)}) + "\n")
            sys.stdout.flush()

        in_child(after)
        shutil.rmtree(copy)
        number += 1


if __name__ == "__main__":
    main()
