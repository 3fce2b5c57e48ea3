"""kill -9 of the fleet server while it takes in: what it acknowledged is there, and the rest is sent again."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleet_kit import PaperBox, add_box, add_tree
from sqlalchemy import select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.wire import ACK_TYPE, Ack
from appliance.fleet.wire_records import EngineChange
from engines.signing import generate, verify

PROCESS = Path(__file__).parents[1] / "support" / "fleet_server_process.py"
#: After so many new acknowledgements each server dies; the last one lives.
DEATHS = (1, 25, 70)
BATCHES = 60
BOXES = 3


class Server:
    def __init__(self, url, broker, folder):
        command = [sys.executable, str(PROCESS), url, str(broker.port), "ingest-1", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROCESS.parents[2])
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Sender:
    """A box as its link is: it sends again until acknowledged."""

    def __init__(self, box, line, key):
        self.box, self.line, self._key = box, line, key
        self.waiting, self.rows = {}, {}
        self.sent_at = {}
        self.acked = []
        for n in range(BATCHES):
            told = EngineChange(package="chest", state=("building", "ready")[n % 2])
            uplink, ident = box.batch(box.record(told))
            self.waiting[ident] = uplink
            self.rows[ident] = box.seq

    def step(self):
        """Send what is due within the window; take what came. Returns the ids that are new."""
        now = time.monotonic()
        for ident in list(self.waiting)[:20]:
            if now - self.sent_at.get(ident, 0.0) > 1.0:
                self.sent_at[ident] = now
                self.line.say(self.waiting[ident])
        try:
            message = self.line.inbox.get(timeout=0.02)
        except queue.Empty:
            return []
        ack = Ack.unpack(verify(message.payload, ACK_TYPE, [self._key.public]).payload)
        new = [ident for ident in ack.b if self.waiting.pop(ident, None) is not None]
        self.acked += new
        return new


@pytest.mark.long
@pytest.mark.req("R-FLEET-18")
@pytest.mark.fault("T36")
def test_a_server_that_is_killed_again_and_again_has_lost_nothing_that_it_acknowledged(fleet_broker, tmp_path):
    key = generate("online")
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(fleet_broker.ca.path, folder / "ca.pem")
    shutil.copy(fleet_broker.server.certificate, folder / "server.crt")
    shutil.copy(fleet_broker.server.key, folder / "server.key")
    (folder / "online.pem").write_text(key.pem())
    (folder / "online.pem").chmod(0o600)
    url = f"sqlite:///{tmp_path}/fleet.db"
    engine = db.open_engine(url)
    db.migrate(engine)
    senders = []
    with db.write(engine) as connection:
        add_tree(connection)
        for n in range(BOXES):
            box = PaperBox(f"box-700000{n}")
            issued = add_box(connection, box, fleet_broker.ca)
            line = fleet_broker.client(issued, box.device, listen=[box.ack_topic])
            senders.append(Sender(box, line, key))
    kept = set()
    deadline = time.monotonic() + 240
    for after in (*DEATHS, None):
        server = Server(url, fleet_broker, folder)
        new = 0
        while any(sender.waiting for sender in senders) and (after is None or new < after):
            assert time.monotonic() < deadline
            new += sum(len(sender.step()) for sender in senders)
        # What was acknowledged by now is there, whatever became of the rest.
        if after is not None:
            server.kill()
        with db.read(engine) as connection:
            kept = {(row.device, row.seq) for row in connection.execute(select(t.record.c.device, t.record.c.seq))}
        acked = {(sender.box.device, sender.rows[ident]) for sender in senders for ident in sender.acked}
        assert acked <= kept
        if after is None:
            server.close()
    assert [sender.waiting for sender in senders] == [{}] * BOXES
    assert kept == {(sender.box.device, seq) for sender in senders for seq in range(1, BATCHES + 1)}
    with db.read(engine) as connection:
        # And the states are those of the last record, not of the last that came.
        states = [(row.state, row.seq) for row in connection.execute(select(t.engine_state))]
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    assert states == [("ready", BATCHES)] * BOXES
    for sender in senders:
        sender.line.close()
    engine.dispose()
