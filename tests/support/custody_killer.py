"""Does one deed of custody and is killed at one line of it: ``custody_killer.py DEED STATE PORT EVERY``.

For every so many lines a fork does the deed on a fresh copy of the state and is killed before that line; another fork
then does what the next start of the box does, ends the deed, and tells what the store and the folders hold.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

from forked_death import in_child, killed_at

from appliance.clock import FakeClock
from appliance.config import Config, DicomDestination
from appliance.deliver import commitment, commitment_report
from appliance.health import retention as retention_stage
from appliance.store import Store, commitment_requests, commitments, retention
from appliance.store.rebuild import recover

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
WATCHED = {
    "retention": {retention_stage.__file__, retention.__file__},
    "ask": {commitment.__file__, commitments.__file__},
    "report": {commitment_report.__file__, commitment_requests.__file__},
}


def config(port):
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": port, "ae_title": "PACS", "commitment": True}
    scanner = {
        "name": "CT-1",
        "ae_title": "CT-1",
        "mode": "inline",
        "commitment_host": "127.0.0.1",
        "commitment_port": port,
    }
    return Config.model_validate({"sources": [scanner], "destinations": [pacs]})


def clear_images(store, clock, port):
    stage = retention_stage.RetentionStage(store, config(port), clock)
    clock.advance(700)  # the daily sweep of leftovers is later
    while stage.step():
        pass


def ask(store, clock, port):
    destination = DicomDestination(
        kind="dicom", name="pacs", host="127.0.0.1", port=port, ae_title="PACS", commitment=True, timeout_s=30
    )
    stage = commitment.CommitmentStage(
        destination, store.commitments, store.deliveries, clock, box_ae_title="SCANSIDE", rng=random.Random(1)
    )
    clock.advance(60)
    stage.step()


def tell(store, clock, port):
    wanted = {
        row["uid"]: row["sop_class_uid"]
        for row in store.db.all("SELECT sop_instance_uid AS uid, sop_class_uid FROM delivery")
    }
    if not store.db.all("SELECT 1 FROM commitment_request"):  # a scanner that got no answer asks again
        store.commitment_requests.add(
            source="CT-1",
            transaction_uid="9.9",
            calling_ae="CT-1",
            called_ae="BOX",
            association_id=1,
            wanted=wanted,
        )
    source = config(port).sources[0]
    stage = commitment_report.CommitmentReportStage(source, config(port), store.commitment_requests, clock)
    stage.step()


DEEDS = {"retention": clear_images, "ask": ask, "report": tell}


def look(store):
    """What the store and the folders hold."""
    files = set(store.spool.iter_files())
    rows = store.db.all("SELECT path, removed_at FROM version")
    return {
        "files": len(files),
        "lost": sum(row["path"] not in files for row in rows if row["removed_at"] is None),
        "versions": len(rows),
        "removed": sum(row["removed_at"] is not None for row in rows),
        "committed": sum(row["committed_at"] is not None for row in store.db.all("SELECT committed_at FROM delivery")),
        "requests": [row["state"] for row in store.db.all("SELECT state FROM commitment_request")],
        "issues": sorted(issue.code for issue in store.issues.open()),
        "chain": store.journal.verify(),
    }


def main():
    deed, state, port, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    line, killed = 1, True
    commitment.SAME_ASSOCIATION_S = 30.0  # the PACS reports there, however slow this machine is
    while killed:
        copy = state.with_name(f"{state.name}-{line}")
        shutil.copytree(state, copy)

        def do(on=copy, at=line):
            clock = FakeClock(NOW)
            store = Store.open(on, clock, reserve_bytes=0)
            killed_at(at, WATCHED[deed], lambda: DEEDS[deed](store, clock, port))

        killed = in_child(do)

        def after(on=copy, at=line, was_killed=killed):
            clock = FakeClock(NOW)
            store = Store.open(on, clock, reserve_bytes=0)
            recovered = recover(store, None)
            left = look(store)
            clock.advance(3 * 3600)
            DEEDS[deed](store, clock, port)
            told = {"line": at, "killed": was_killed, "recovered": recovered, "left": left, "ended": look(store)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()

        in_child(after)
        shutil.rmtree(copy)
        line += every


if __name__ == "__main__":
    main()
