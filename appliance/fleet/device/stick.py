"""``scanside fleet export`` and ``import``: the link's messages by hand, for a box without any network.

What is exported are the link's own batches, frozen as it would freeze them: the server acknowledges them by the same
ids, on a stick or, should the box come online, over the network. Nothing is lost with a stick that is.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from appliance import __version__
from appliance.errors import ConfigError
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.inbox import Inbox
from appliance.fleet.device.outbox import MOST_RECORDS, Contents, cut, is_left_out
from appliance.fleet.wire import (
    ACK_TYPE,
    JOB_TYPE,
    SIGNED,
    TWIN_TYPE,
    Ack,
    Batch,
    Get,
    Status,
    Up,
    WireError,
    pack,
)
from appliance.fleet.wire_records import Record
from appliance.fleet.wire_stick import MOST_EXPORT_BYTES, Export, Letter, seal, split
from appliance.store import Store
from appliance.store.fleet import FleetBatch, Skipped
from appliance.store.journal import Fact
from engines.durable import sync_folder
from engines.errors import SignatureError
from engines.signing import verify

#: Mark: the last row of the journal that an export held.
_MARK = "stick_through"
#: Beside the letters a file has a frame, and base64 makes four signs of three bytes, twice.
_ROOM = MOST_EXPORT_BYTES // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a file holds. ``more``: it is full, and another export goes on from here."""

    records: int
    batches: int
    through: int
    size: int
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one envelope.

    Attributes:
        kind: job, twin, ack, or unknown.
        result: ACCEPTED, REJECTED, KNOWN, APPLIED, REFUSED, TAKEN; or FORGED, UNFIT where nothing of it counts.
        ref: Which: the counter of a job, the version of a document.
        code: Why not.
    """

    kind: str
    result: str
    ref: str = ""
    code: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it did what it was to do, now or earlier."""
        return self.result in {"ACCEPTED", "KNOWN", "APPLIED", "TAKEN"}


class Exporter:
    """Writes what the link would say into a file."""

    def __init__(self, store: Store, contents: Contents, inbox: Inbox) -> None:
        """Read ``store``; ``inbox`` knows who we are."""
        self._store = store
        self._contents = contents
        self._inbox = inbox

    def write(self, path: Path, *, everything: bool = False) -> Exported:
        """Write what came since the last export; or everything that the server has not acknowledged.

        Args:
            path: The file; one that is there is replaced when the new one is whole.
            everything: Also what an earlier file held.

        Raises:
            ConfigError: The box is not enrolled, or the file cannot be written.
        """
        identity = self._inbox.identity
        sess = int(self._store.fleet.state("sess", "0"))
        self._freeze()
        mark = 0 if everything else int(self._store.fleet.state(_MARK, "0"))
        letters: list[Letter] = []
        size, records, through, more = 0, 0, mark, False
        for batch in self._store.fleet.place().batches:
            if batch.last_seq <= mark:
                continue
            held = tuple(self._records(batch))
            if not held:
                continue
            message = Batch(batch=batch.id, stream=self._store.db.stream, sess=sess, recs=held)
            letter = _letter(identity, Up.REC, message)
            if size + len(letter.payload) > _ROOM:
                more = True
                break
            letters.append(letter)
            size += len(letter.payload)
            records += len(held)
            through = batch.last_seq
        batches = len(letters)
        letters[:0] = self._state(identity, sess)
        export = Export(
            tenant=identity.enrolment.tenant,
            device=identity.enrolment.device,
            stream=self._store.db.stream,
            ts=int(self._store.db.clock.now().timestamp() * 1000),
            clk=self._contents.clk(),
            nonce=self._inbox.nonce(),
            letters=tuple(letters),
            more=more,
        )
        data = seal(export, identity.key)
        _write(path, data)
        if through > int(self._store.fleet.state(_MARK, "0")):
            self._store.fleet.set_state(_MARK, str(through))
        return Exported(records=records, batches=batches, through=through, size=len(data), more=more)

    def _state(self, identity: Identity, sess: int) -> Iterator[Letter]:
        """How the box is and what it has, before what happened."""
        store = self._store
        said: list[tuple[Up, BaseModel | None]] = [
            (
                Up.STATUS,
                Status(
                    online=False,
                    sess=sess,
                    why="stop",
                    agent=__version__,
                    stream=store.db.stream,
                    nonce=self._inbox.nonce(),
                    ts=int(store.db.clock.now().timestamp() * 1000),
                    clk=self._contents.clk(),
                ),
            ),
            (
                Up.GET,
                Get(
                    sess=sess,
                    stream=store.db.stream,
                    dv=self._inbox.dv,
                    ctr=self._inbox.ctr,
                    seq=store.fleet.place().cursor,
                    last_seq=store.journal.last_seq(),
                ),
            ),
            (Up.TWIN, self._inbox.reported()),
            (Up.HEALTH, self._contents.health(sess)),
        ]
        return (_letter(identity, name, message) for name, message in said if message is not None)

    def _freeze(self) -> None:
        """Make batches of everything that is in none, as the link does."""
        rows = self._store.fleet
        for batch in rows.place().batches:
            if len(list(self._records(batch))) > MOST_RECORDS:  # the software lets more of these rows leave than it did
                rows.rewind(batch.first_seq - 1)
                break
        last = self._store.journal.last_seq()
        while True:
            after = rows.place().made
            through = self._through(after, last)
            if through is None:
                return
            rows.add_batch(after, through)  # None: the link was faster, and its batch is as good

    def _through(self, after: int, last: int) -> int | None:
        """Up to which row the next batch goes; None where nothing leaves any more."""
        through, found, _ = cut(self._store.fleet, self._contents.kinds, self._record, after, last)
        return through if found else None

    def _records(self, batch: FleetBatch) -> Iterator[Record]:
        skipped = self._store.fleet.skipped()
        for fact in self._store.fleet.facts(batch.first_seq - 1, batch.last_seq, self._contents.kinds):
            record = self._record(fact, skipped)
            if record is not None:
                yield record

    def _record(self, fact: Fact, skipped: Skipped) -> Record | None:
        if is_left_out(fact, skipped):
            return None
        try:
            return self._contents.record(fact)
        except ValueError:  # the link raises the issue
            return None


def bring(data: bytes, store: Store, inbox: Inbox) -> list[Imported]:
    """Take in a file: each envelope by itself, checked as if it came by the network.

    Raises:
        WireError: It is no such file.
        ConfigError: The box is not enrolled.
    """
    device = inbox.identity.enrolment.device
    return [_bring(kind, envelope, store, inbox, device) for kind, envelope in split(data)]


def _bring(kind: str, envelope: bytes, store: Store, inbox: Inbox, device: str) -> Imported:
    word = {JOB_TYPE: "job", TWIN_TYPE: "twin", ACK_TYPE: "ack"}.get(kind, "unknown")
    try:
        if word == "job":
            row = inbox.take_job(envelope)
            if row is None:
                return Imported(kind=word, result="KNOWN")
            return Imported(kind=word, result=row.state, ref=str(row.ctr), code=row.code)
        if word == "twin":
            before = inbox.dv
            inbox.take_twin(envelope)
            told = inbox.reported()
            if told is None or inbox.dv == before:
                return Imported(kind=word, result="KNOWN", ref=str(before))
            is_refused = told.refused_dv is not None
            result, code = ("REFUSED", ",".join(told.errors)) if is_refused else ("APPLIED", "")
            return Imported(kind=word, result=result, ref=str(inbox.dv), code=code)
        if word == "ack":
            return Imported(kind=word, result="TAKEN", ref=str(take_ack(envelope, store, inbox.identity, device)))
    except SignatureError:
        return Imported(kind=word, result="FORGED")
    except WireError as error:
        return Imported(kind=word, result="UNFIT", code=str(error))
    return Imported(kind=word, result="UNFIT", code=kind[:100])


def take_ack(envelope: bytes, store: Store, identity: Identity, device: str) -> int:
    """The server has committed batches. Returns how many of them waited for that.

    Raises:
        SignatureError: The server has not signed it.
        WireError: It is no acknowledgement, or for another device.
    """
    ack = Ack.unpack(verify(envelope, ACK_TYPE, identity.online).payload)
    if ack.aud != device:
        raise WireError("it is for another device")
    if ack.stream != store.db.stream:
        return 0  # of the database before this one
    settled = store.fleet.acknowledged(ack.b) if ack.b else 0
    if ack.resend_after is not None and ack.st > int(store.fleet.state("resent_st", "0")):
        store.fleet.set_state("resent_st", str(ack.st))
        after = store.fleet.rewind(ack.resend_after)
        store.fleet.set_state(_MARK, str(min(after, int(store.fleet.state(_MARK, "0")))))
    return settled


def _letter(identity: Identity, name: Up, message: BaseModel) -> Letter:
    data, packed = pack(message)
    topic = identity.address.topic(name)
    properties = {"schema": f"{name.rpartition('/')[2]}/1"}
    if packed:
        properties["ce"] = "gzip"
    if name in SIGNED:
        properties["sig"] = identity.key.sign(topic, data)
    return Letter(topic=topic, properties=properties, payload=base64.b64encode(data).decode())


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; name a file on a disk with room") from error


def ended_well(found: Sequence[Imported]) -> bool:
    """Whether all of it did what it was to do."""
    return all(one.is_good for one in found)
