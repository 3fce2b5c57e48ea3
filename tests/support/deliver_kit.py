"""For tests of deliveries: a box with files that it owes, on a clock moved by hand, and scripted peers."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from appliance.clock import FakeClock
from appliance.config import Destination, DicomDestination
from appliance.deliver.stage import DeliverStage
from appliance.dicom.file_meta import file_meta
from appliance.records import Identity
from appliance.store import Store
from appliance.store.jsonable import dump
from appliance.store.spool import RESULTS


@dataclass
class Box:
    """A store with deliveries; ``owe`` adds one as the intake would."""

    path: Path
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self):
        self.store = Store.open(self.path, self.clock, reserve_bytes=0)
        self._count = 0

    def close(self):
        self.store.close()

    def owe(
        self,
        data: bytes = b"",
        *,
        sop_class: str = CTImageStorage,
        uid: str = "",
        syntax: str = ExplicitVRLittleEndian,
        study: int = 1,
        calling_ae: str = "CT1",
        destination: str = "pacs",
        is_dicom: bool = True,
        **columns: Any,
    ) -> int:
        """Put a data set into the spool and owe it; returns the delivery's id."""
        self._count += 1
        uid = uid or f"1.2.3.{study}.{self._count}"
        head = file_meta(
            sop_class_uid=sop_class,
            sop_instance_uid=uid,
            transfer_syntax=syntax,
            calling_ae=calling_ae,
            called_ae="BOX",
        )
        if is_dicom:
            part = self.store.spool.open_part(head)
            part.write(memoryview(data or f"data set {self._count}".encode()))
            relative, sha256 = part.commit(), part.data_sha256
        else:
            relative = self.store.spool.write_blob(RESULTS, data, suffix=".json")
            sha256 = hashlib.sha256(data).hexdigest()
        with self.store.db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study,)) is None:
                tx.insert(
                    "study",
                    id=study,
                    study_instance_uid=f"1.2.3.{study}",
                    source="CT-1",
                    patient_key="[]",
                    identity=dump(Identity(study_instance_uid=f"1.2.3.{study}")),
                    first_at=tx.at,
                    last_at=tx.at,
                )
            fields = {
                "destination": destination,
                "kind": "original",
                "study_id": study,
                "sop_instance_uid": uid,
                "sop_class_uid": sop_class,
                "transfer_syntax_uid": syntax,
                "path": relative,
                "sha256": sha256,
                "calling_ae": calling_ae,
                "state": "owed",
                "next_at": tx.at,
                "owed_at": tx.at,
            }
            return tx.insert("delivery", **{**fields, **columns})

    def stage(self, port: int, *, evaluation: bool = False, **settings: Any) -> DeliverStage:
        """A stage that delivers to a loopback port as destination "pacs"."""
        fields = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "ae_title": "PACS", "timeout_s": 30.0}
        return self.stage_to(DicomDestination(**{**fields, "port": port, **settings}), evaluation=evaluation)

    def stage_to(self, destination: Destination, *, evaluation: bool = False) -> DeliverStage:
        """A stage that delivers to any destination."""
        return DeliverStage(
            destination,
            self.store.deliveries,
            self.store.spool,
            self.clock,
            box_ae_title="SCANSIDE",
            evaluation=evaluation,
            rng=random.Random(1),
        )

    def row(self, delivery_id: int) -> dict[str, Any]:
        return dict(self.store.db.one("SELECT * FROM delivery WHERE id = ?", (delivery_id,)))

    def states(self) -> list[str]:
        return [row["state"] for row in self.store.db.all("SELECT state FROM delivery ORDER BY id")]

    def drain(self, stage: DeliverStage, steps: int = 200) -> int:
        """Step until nothing is owed, moving the clock over every wait; returns the steps taken."""
        for n in range(steps):
            if "owed" not in self.states():
                return n
            if not stage.step():
                self.clock.advance(10)
        raise AssertionError(f"still owed after {steps} steps: {self.store.deliveries.backlog()}")

    def issues(self) -> set[str]:
        return {issue.code for issue in self.store.issues.open()}


@contextlib.contextmanager
def running_box(path: Path):
    box = Box(path)
    try:
        yield box
    finally:
        box.close()


@contextlib.contextmanager
def scripted_peer(script):
    """A listener on loopback that calls ``script(connection, number)`` for each connection; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def accept():
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            number += 1
            thread = threading.Thread(target=serve, args=(connection, number), daemon=True)
            threads.append(thread)
            thread.start()

    def serve(connection, number):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            script(connection, number)

    main = threading.Thread(target=accept, daemon=True)
    main.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        main.join(60)
        for thread in threads:
            thread.join(60)


def read_pdu(connection) -> tuple[int, bytes]:
    head = _exactly(connection, 6)
    kind, length = struct.unpack(">BxL", head)
    return kind, _exactly(connection, length)


def _exactly(connection, count) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionError("closed")
        data += chunk
    return data


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def accept_all(request: bytes, *, max_pdu: int = 16384, results: dict[int, int] | None = None) -> bytes:
    """An A-ASSOCIATE-AC to the body of an A-ASSOCIATE-RQ; ``results`` by context id, 0 where absent."""
    items = struct.pack(">BxH", 0x10, 21) + b"1.2.840.10008.3.1.1.1"
    at = 68
    while at < len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        body = request[at + 4 : at + 4 + length]
        if kind == 0x20:
            syntax = body[body.rindex(b"\x40\x00") :]
            context = bytes((body[0], 0, (results or {}).get(body[0], 0), 0)) + syntax
            items += struct.pack(">BxH", 0x21, len(context)) + context
        at += 4 + length
    length_item = struct.pack(">BxHL", 0x51, 4, max_pdu)
    items += struct.pack(">BxH", 0x50, len(length_item)) + length_item
    return pdu(2, request[:68] + items)


def read_message(connection) -> tuple[bytes, bytes]:
    """Command set and data set of one C-STORE-RQ."""
    command, data = b"", b""
    while True:
        kind, body = read_pdu(connection)
        if kind != 4:
            raise ConnectionError(f"PDU {kind}")
        _, _, flags = struct.unpack_from(">LBB", body)
        if flags & 1:
            command += body[6:]
        else:
            data += body[6:]
            if flags & 2:
                return command, data


def store_response(command: bytes, status: int, *, uid: str | None = None, message_id: int | None = None) -> bytes:
    """The C-STORE-RSP to a command set; ``uid`` and ``message_id`` may lie."""
    elements = {}
    at = 0
    while at < len(command):
        _, number, length = struct.unpack_from("<HHL", command, at)
        elements[number] = command[at + 8 : at + 8 + length]
        at += 8 + length
    named = elements[0x1000] if uid is None else uid.encode() + b"\0" * (len(uid) % 2)
    answered = elements[0x0110] if message_id is None else struct.pack("<H", message_id)
    values = [
        (0x0002, elements[0x0002]),
        (0x0100, struct.pack("<H", 0x8001)),
        (0x0120, answered),
        (0x0800, struct.pack("<H", 0x0101)),
        (0x0900, struct.pack("<H", status)),
        (0x1000, named),
    ]
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values)
    whole = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    return pdu(4, struct.pack(">LBB", len(whole) + 2, 1, 3) + whole)
