"""What boxes say becomes rows: one group of messages, one transaction, and then, only then, acknowledgements.

``Ingest.apply`` has no socket and no clock. It may be given the same message twice, by two processes, in any order:
the end is the same. Whatever does not hold is refused, counted under its box and never acknowledged; nothing that
comes from a wire ends a group of others.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, bindparam, case, select, update

from appliance.fleet.server import tables as t
from appliance.fleet.server.admit import Admission, Admitted, Refusal, RefusedError, Uplink
from appliance.fleet.server.db import insert_new, parted, upsert
from appliance.fleet.server.link_state import LinkStates
from appliance.fleet.server.materialise import States, serve
from appliance.fleet.server.registry import see_certificate
from appliance.fleet.wire import Address, Get, Reported, Up
from appliance.fleet.wire_records import Record

#: Further than this ahead of what was given no counter of a box is: whoever speaks in its name would use it up. More
#: than the minutes of any clock, to which a server lifts them (``acts.lift_counters``).
_LEAP = 10_000_000_000


@dataclass(slots=True)
class Owed:
    """What a box is to be told about a stream.

    Attributes:
        top: The highest row that was here before this group.
        first: The lowest that came with it.
        batches: Ids that are in the database now.
        resend_after: Rows are missing from here on.
    """

    top: int
    first: int | None = None
    batches: list[str] = field(default_factory=list)
    resend_after: int | None = None

    def ask(self, after: int) -> None:
        """Ask for rows again."""
        self.resend_after = after if self.resend_after is None else min(after, self.resend_after)


@dataclass(frozen=True, slots=True)
class Asked:
    """A box has connected and said what it has; who makes twins and jobs answers."""

    address: Address
    get: Get


@dataclass(slots=True)
class Outcome:
    """What a group came to.

    Attributes:
        owed: By address and stream.
        taken: Messages, by topic.
        records: New ones.
        again: Records that were there already.
    """

    owed: dict[tuple[Address, str], Owed] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    refused: Counter[Refusal] = field(default_factory=Counter)
    taken: Counter[Up] = field(default_factory=Counter)
    records: int = 0
    again: int = 0

    def add(self, other: Outcome) -> None:
        """Take in that of a group that was committed after this one."""
        for key, owed in other.owed.items():
            mine = self.owed.setdefault(key, Owed(owed.top, owed.first))
            mine.batches += owed.batches
            if owed.resend_after is not None:
                mine.ask(owed.resend_after)
        self.asked += other.asked
        self.refused += other.refused
        self.taken += other.taken
        self.records += other.records
        self.again += other.again


class Ingest:
    """Takes groups in. Remembers nothing but public keys, which never change under their fingerprint."""

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._keys: dict[str, EllipticCurvePublicKey] = {}

    def apply(self, connection: Connection, messages: Sequence[Uplink], now: datetime) -> Outcome:
        """Write a group; the caller commits, and only then tells anybody of the outcome.

        Args:
            connection: Of ``db.write``.
            messages: At most a few hundred.
            now: The server's clock.
        """
        return _Group(connection, now, Admission(connection, self._keys, messages)).run(messages)

    @staticmethod
    def refuse(connection: Connection, message: Uplink, now: datetime) -> Outcome:
        """Count one that the database itself would not take."""
        return _Group(connection, now, Admission(connection, {}, [message])).refuse_all()


@dataclass(slots=True)
class _Stream:
    number: int
    top: int
    cursor: int
    floor: int
    pruned: int


class _Group:
    def __init__(self, connection: Connection, now: datetime, admission: Admission) -> None:
        self._connection = connection
        self._now = now
        self._admission = admission
        self._devices = admission.devices
        self._outcome = Outcome()
        self._refused: Counter[tuple[str, Refusal]] = Counter()
        self._streams: dict[tuple[str, str], _Stream] = {}

    def run(self, messages: Sequence[Uplink]) -> Outcome:
        heard: list[Admitted] = []
        for message in messages:
            try:
                heard.append(self._admission.admit(message))
            except RefusedError as refused:
                self._refuse(refused.device, refused.reason)
        for fingerprint in sorted({one.trial for one in heard if one.trial}):
            see_certificate(self._connection, fingerprint, now=self._now)
        by_name: dict[Up, list[Admitted]] = {name: [] for name in Up}
        for one in heard:
            by_name[one.name].append(one)
        self._register_streams(heard)
        self._batches(by_name[Up.REC])
        self._gets(by_name[Up.GET])
        self._reports(by_name[Up.TWIN])
        self._healths(by_name[Up.HEALTH])
        self._links(heard, by_name[Up.STATUS])
        self._outcome.taken.update(one.name for one in heard)
        self._write_refusals()
        return self._outcome

    def refuse_all(self) -> Outcome:
        self._refuse(next(iter(self._devices), ""), Refusal.DATABASE)
        self._write_refusals()
        return self._outcome

    # Streams --------------------------------------------------------------------------------------------------------

    def _register_streams(self, heard: Sequence[Admitted]) -> None:
        named = {(one.address.device, text) for one in heard if (text := getattr(one.document, "stream", ""))}
        if not named:
            return
        self._read_streams({device for device, _ in named})
        fresh = sorted(named - self._streams.keys())
        if not fresh:
            return
        rows = [{"device": device, "stream": text, "first_at": self._now} for device, text in fresh]
        insert_new(self._connection, t.stream, rows)
        devices = {device for device, _ in fresh}
        # A new database counts its reports from one again.
        self._connection.execute(update(t.twin).where(t.twin.c.device.in_(devices)).values(rv=0))
        self._read_streams(devices)

    def _read_streams(self, devices: set[str]) -> None:
        c = t.stream.c
        asked = select(c.number, c.device, c.stream, c.top, c.cursor, c.floor, c.pruned).where(c.device.in_(devices))
        for row in self._connection.execute(asked):
            told = _Stream(row.number, row.top, row.cursor, row.floor, row.pruned)
            self._streams[row.device, row.stream] = told

    def _write_streams(self, keys: set[tuple[str, str]]) -> None:
        c = t.stream.c
        top = case((c.top < bindparam("new_top"), bindparam("new_top")), else_=c.top)
        values = {"top": top, "cursor": bindparam("new_cursor"), "floor": bindparam("new_floor")}
        streams = sorted((self._streams[key] for key in keys), key=lambda one: one.number)
        if streams:
            self._connection.execute(
                update(t.stream).where(c.number == bindparam("of")).values(values),
                [{"of": s.number, "new_top": s.top, "new_cursor": s.cursor, "new_floor": s.floor} for s in streams],
            )

    def _owed(self, device: str, stream: str) -> Owed:
        key = (Address(self._devices[device].tenant, device), stream)
        if key not in self._outcome.owed:
            self._outcome.owed[key] = Owed(self._streams[device, stream].top)
        return self._outcome.owed[key]

    # Batches --------------------------------------------------------------------------------------------------------

    def _batches(self, batches: Sequence[Admitted]) -> None:
        states = States(self._now)
        rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        folded = self._folded(batches)
        for one in batches:
            device, batch = one.address.device, one.document
            stream = self._streams[device, batch.stream]
            owed = self._owed(device, batch.stream)
            owed.batches.append(batch.batch)
            first = min(record.seq for record in batch.recs)
            owed.first = first if owed.first is None else min(first, owed.first)
            for record in batch.recs:
                if record.seq <= stream.pruned:  # it was here, and for so long that it is no more
                    self._outcome.again += 1
                    continue
                if (device, batch.stream, record.seq) not in folded:
                    states.add(device, stream.number, record)
                rows[device, batch.stream, record.seq] = _row(device, batch.stream, record, self._now)
        self._find_losses(rows)
        new = insert_new(self._connection, t.record, [rows[key] for key in sorted(rows)])
        self._outcome.records += new
        self._outcome.again += len(rows) - new
        for device, text, seq in rows:
            stream = self._streams[device, text]
            stream.top = max(stream.top, seq)
        self._write_streams({(device, text) for device, text, _ in rows})
        states.write(self._connection)
        given = self._given(states.counters)
        named = states.counters.items()
        self._raise_counters({device: (ctr, 0) for device, ctr in named if ctr <= given.get(device, (0, 0))[0] + _LEAP})

    def _folded(self, batches: Sequence[Admitted]) -> set[tuple[str, str, int]]:
        """Points of health that come again: an hour's mean may have them already (``prune``), and would count twice."""
        behind: dict[tuple[str, str], set[int]] = {}
        for one in batches:
            device, batch = one.address.device, one.document
            top = self._streams[device, batch.stream].top
            for record in batch.recs:
                if record.seq <= top and record.d.k == "health":
                    behind.setdefault((device, batch.stream), set()).add(record.seq)
        return {(*key, seq) for key, seqs in behind.items() for seq in self._here(*key, seqs)}

    def _here(self, device: str, stream: str, seqs: set[int]) -> set[int]:
        c = t.record.c
        of_stream = select(c.seq).where(c.device == device, c.stream == stream)
        return {seq for part in parted(seqs) for seq in self._connection.scalars(of_stream.where(c.seq.in_(part)))}

    def _find_losses(self, rows: Mapping[tuple[str, str, int], Any]) -> None:
        """A row that its box counts as acknowledged and that is new here: this server was restored, and lacks rows.

        The box was asked for those after the highest (``_gets``). Rows are acknowledged in any order, so there may be
        holes below, down to what the box had said before.
        """
        behind: dict[tuple[str, str], set[int]] = {}
        for device, text, seq in rows:
            if seq <= self._streams[device, text].cursor:
                behind.setdefault((device, text), set()).add(seq)
        for (device, text), seqs in behind.items():
            lost = seqs - self._here(device, text, seqs)
            if lost:
                stream = self._streams[device, text]
                stream.cursor = stream.floor = max(stream.pruned, min(stream.floor, min(lost) - 1))
                self._owed(device, text).ask(stream.floor)

    # The rest -------------------------------------------------------------------------------------------------------

    def _gets(self, gets: Sequence[Admitted]) -> None:
        if not gets:
            return
        given = self._given({one.address.device for one in gets})
        for one in gets:
            device, get = one.address.device, one.document
            ctr, dv = given.get(device, (0, 0))
            if get.ctr > ctr + _LEAP or get.dv > dv + _LEAP:
                self._refuse(device, Refusal.COUNTER)
                continue
            given[device] = (max(ctr, get.ctr), max(dv, get.dv))
            stream = self._streams[device, get.stream]
            owed = self._owed(device, get.stream)
            if get.seq > stream.top:
                # Rows that stay on the box, or rows that were here once: it knows, and sends the latter again.
                owed.ask(stream.top)
            stream.floor, stream.cursor = min(stream.cursor, stream.top), get.seq
            self._outcome.asked.append(Asked(one.address, get))
        self._write_streams({(one.address.device, one.document.stream) for one in gets})
        self._raise_counters(given)

    def _given(self, devices: Collection[str]) -> dict[str, tuple[int, int]]:
        """The counters of those that have some."""
        if not devices:
            return {}
        c = t.device_counter.c
        asked = select(c.device, c.ctr, c.dv).where(c.device.in_(devices))
        return {row.device: (row.ctr, row.dv) for row in self._connection.execute(asked)}

    def _raise_counters(self, counters: Mapping[str, tuple[int, int]]) -> None:
        c = t.device_counter.c
        rows = [{"device": device, "ctr": ctr, "dv": dv} for device, (ctr, dv) in counters.items()]
        upsert(
            self._connection,
            t.device_counter,
            rows,
            change=lambda new: {
                "ctr": case((new.ctr > c.ctr, new.ctr), else_=c.ctr),
                "dv": case((new.dv > c.dv, new.dv), else_=c.dv),
            },
        )

    def _reports(self, reports: Sequence[Admitted]) -> None:
        rows = []
        for one in reports:
            d: Reported = one.document
            row = {"rv": d.rv, "applied_dv": d.applied_dv, "refused_dv": d.refused_dv, "errors": list(d.errors)}
            desired = d.desired.model_dump(mode="json") if d.desired else None
            rows.append({"device": one.address.device, **row, "reported": desired, "reported_at": self._now})
        upsert(self._connection, t.twin, rows, where=lambda new: new.rv > t.twin.c.rv)

    def _healths(self, healths: Sequence[Admitted]) -> None:
        newest = {one.address.device: one.document for one in healths}
        if not newest:
            return
        c = t.health_now.c
        asked = select(c.device, c.packages_hash).where(c.device.in_(newest))
        before = {row.device: row.packages_hash for row in self._connection.execute(asked)}
        rows = []
        for device, d in sorted(newest.items()):
            body = d.model_dump(mode="json", exclude_none=True)
            told = json.dumps(body.get("packages", ()), sort_keys=True)
            packages_hash = hashlib.sha256(told.encode()).hexdigest()[:16]
            if before.get(device) != packages_hash:
                serve(self._connection, device, d.packages)
            row = {"device": device, "at": self._now, "packages_hash": packages_hash, "body": body}
            for name in ("sess", "mode", "ai", "skew_ms", "backlog_s", "oldest_owed_s", "cert_days"):
                row[name] = getattr(d, name)
            rows.append(row)
        upsert(self._connection, t.health_now, rows)

    def _links(self, heard: Sequence[Admitted], statuses: Sequence[Admitted]) -> None:
        links = LinkStates(self._devices, {key: one.number for key, one in self._streams.items()}, self._now)
        for one in statuses:
            try:
                links.say(one.address.device, one.document)
            except RefusedError as refused:
                self._refuse(refused.device, refused.reason)
        for one in heard:
            # A last will is the broker's word, and what was retained is of before.
            if not one.message.retained and (one.name is not Up.STATUS or one.document.online):
                links.see(one.address.device)
        links.write(self._connection)

    # What was not taken ---------------------------------------------------------------------------------------------

    def _refuse(self, device: str, reason: Refusal) -> None:
        self._outcome.refused[reason] += 1
        self._refused[device, reason] += 1

    def _write_refusals(self) -> None:
        rows = [
            {"device": device, "reason": str(reason), "n": n, "first_at": self._now, "last_at": self._now}
            for (device, reason), n in self._refused.items()
        ]
        n = t.refusal.c.n
        upsert(self._connection, t.refusal, rows, keep=("first_at",), change=lambda new: {"n": n + new.n})


def _row(device: str, stream: str, record: Record, now: datetime) -> dict[str, Any]:
    body = record.d.model_dump(mode="json", exclude_none=True, exclude={"k"})
    row = {"device": device, "stream": stream, "seq": record.seq, "k": record.d.k, "ts": record.ts, "rx_at": now}
    return {**row, "body": body}
