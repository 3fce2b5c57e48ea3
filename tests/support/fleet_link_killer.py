"""A link that is killed at one line of its work: ``fleet_link_killer.py FOLDER EVERY``; prints what followed, as JSON.

For every so many lines a fork takes a fresh copy of the state, connects, says what it has and is acknowledged out of
order, and is killed before that line; another fork is the next start of the box. The server's table is a file that
both append to: what it has, it has.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

from fleet_link_kit import FakeContents, FakeInbox, FakeTransport, ack_event, batch_of, rows_only
from forked_death import in_child, killed_at

from appliance.clock import FakeClock
from appliance.config import Fleet
from appliance.fleet.device import link, mail, outbox, talk
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.transport import Published
from appliance.fleet.wire import Up
from appliance.store import fleet as rows
from engines import signing

WATCHED = {module.__file__ for module in (link, mail, outbox, talk, rows)}


class Server:
    """Commits what comes, then acknowledges, the newest first."""

    def __init__(self, folder, key):
        self.path, self.key = folder / "server.jsonl", key

    def commit(self, batch):
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for record in batch.recs:
            os.write(handle, json.dumps([batch.stream, record.seq, record.mono]).encode() + b"\n")
        os.close(handle)

    def rows(self):
        return [tuple(json.loads(line)) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def run(folder):
    """The box from its start until nothing is owed."""
    clock = FakeClock()
    store = rows_only(folder / "state", clock)
    identity = Identity.load(folder / "fleet")
    key = signing.load_private(folder / "online.pem")
    server, lines = Server(folder, key), []

    def open_line(*given):
        lines.append(FakeTransport(*given))
        return lines[-1]

    stage = link.LinkStage(
        store,
        Fleet(),
        clock,
        identity,
        open_line,
        FakeContents(),
        FakeInbox(),
        first_within_s=0,
        rng=random.Random(1),
    )
    last = store.journal.last_seq()
    for n in range(60):
        stage.step()
        clock.advance(5)
        if n == 0:
            lines[0].up()
        came = [said for said in lines[0].said if said.token]
        for said in reversed(came):
            lines[0].events.put(Published(said.token))
            said.token = 0
            if said.name is Up.REC:
                batch = batch_of(said)
                server.commit(batch)
                lines[0].events.put(ack_event(identity, key, batch.stream, [batch.batch], st=n + 1))
        if store.journal.cursor("fleet") >= last:
            break
    stage.close()
    store.close()


def look(folder, died):
    """What the store says after a death."""
    store = rows_only(folder / "state", FakeClock())
    place, seqs = store.fleet.place(), {row[1] for row in Server(folder, None).rows()}
    told = [fact.seq for fact in store.journal.after(0) if fact.kind in FakeContents.kinds]
    store.close()
    return {
        "died": died,
        "passed_unacknowledged": [seq for seq in told if seq <= place.cursor and seq not in seqs],
        "lost": [seq for seq in told if seq not in seqs],
        "left": len(place.batches),
        "cursor": place.cursor,
    }


def main():
    """Every so many lines."""
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    outbox.MOST_RECORDS = 3
    link._STOP_S = 0.0  # nobody answers the last word
    found, line, was_killed = [], 1, True
    while was_killed:
        copy = folder / "copy"
        shutil.copytree(folder / "box", copy)
        at = line
        was_killed = in_child(lambda at=at, copy=copy: killed_at(at, WATCHED, lambda: run(copy)))
        after = look(copy, was_killed)
        if in_child(lambda copy=copy: run(copy)):
            raise SystemExit("the second start was killed")
        found.append({"line": line, "after": after, "end": look(copy, False)})
        rows_ = Server(copy, None).rows()
        found[-1]["said_two_things"] = len(set(rows_)) - len({row[:2] for row in rows_})
        shutil.rmtree(copy)
        line += every
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
