"""Bytes of the wire: what is said is read back, what is strange is refused in words that repeat nothing of it."""

from __future__ import annotations

import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet import wire
from appliance.fleet.wire import (
    Ack,
    Address,
    Batch,
    Desired,
    Down,
    Get,
    Job,
    JobArgs,
    Op,
    Reported,
    Status,
    Twin,
    Up,
    WireError,
    parse_topic,
)
from appliance.fleet.wire_jobs import ENDED, NEXT, JobState, args_fit, check_step
from appliance.fleet.wire_records import Gap, Health, JobChange, Machine, Record

ULID = "0" * 26
RECORD = Record(seq=1, ts=0, boot="", mono=0, clk="ntp", d=JobChange(job=ULID, ctr=1, state="ACCEPTED", version=1))
MESSAGES = [
    Status(online=False, sess=1, why="lwt"),
    Status(online=True, sess=2, why="start", agent="0.1.0", stream=ULID, nonce="0" * 32, ts=5, clk="rtc"),
    Batch(batch=ULID, stream=ULID, sess=1, recs=(RECORD,)),
    Batch(batch=ULID, stream=ULID, sess=1, recs=tuple(RECORD.model_copy(update={"seq": n}) for n in range(1, 101))),
    Get(sess=1, stream=ULID, dv=0, ctr=0, seq=0, last_seq=0),
    Reported(rv=1, applied_dv=0),
    Reported(rv=1, applied_dv=2, refused_dv=3, errors=("POINT_UNKNOWN",), desired=Desired()),
    Ack(aud="box-0001", stream=ULID, b=(ULID,), st=1, hold_ms=5, resend_after=0),
    Twin(aud="box-0001", dv=1, desired=Desired()),
    Job(id=ULID, aud="box-0001", ctr=1, nbf=0, exp=1, op=Op.RESEND, args=JobArgs(after_seq=4), by=(1, 2)),
]


@pytest.mark.req("R-FLEET-02")
@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_what_one_side_says_the_other_reads(message):
    """Also with every field at its default: what a sender leaves out must not be refused."""
    data, packed = message.pack()
    assert packed is (len(message.model_dump_json(exclude_none=True)) > 1024)
    assert type(message).unpack(data, packed=packed) == message
    assert len(data) <= wire.MAX_PACKED_BYTES


def test_health_is_packed_and_read_as_messages_are():
    health = Health(
        ts=0, boot="", mono=0, clk="none", sess=1, agent="1", mode="clinical", ai="ready", machine=Machine()
    )
    assert wire.unpack(Health, wire.pack(health)[0]) == health


def test_a_newer_sender_is_understood_at_any_depth():
    document = json.loads(MESSAGES[2].pack()[0])
    document["newer"] = 1
    document["recs"][0]["newer"] = 1
    document["recs"][0]["d"]["newer"] = 1
    assert Batch.unpack(json.dumps(document).encode()) == MESSAGES[2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"online": true, "online": false, "sess": 1, "why": "lwt"}',
        b'{"online": true, "sess": NaN, "why": "lwt"}',
        b'{"online": true, "sess": 1, "why": "Doe^Jane"}',
        b'{"online": true, "sess": 1, "why": "lwt", "boot": "Doe^Jane"}',
        b"[" * 100_000,
        b'"' + b"x" * (wire.MAX_BYTES + 1) + b'"',
    ],
)
def test_strange_bytes_are_refused_without_repeating_them(data):
    with pytest.raises(WireError) as caught:
        Status.unpack(data)
    assert "Doe" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_key_that_a_stranger_chose_is_not_repeated_either():
    twin = json.loads(MESSAGES[8].pack()[0])
    twin["desired"]["packages"] = [{"name": "a", "operating_points": {"Doe Jane": "x"}}]
    with pytest.raises(WireError) as caught:
        Twin.unpack(json.dumps(twin).encode())
    assert "Doe" not in str(caught.value)


@given(data=st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data):
    for packed in (False, True):
        with pytest.raises(WireError):
            Batch.unpack(data, packed=packed)


@given(cut=st.integers(0, 200), flip=st.integers(0, 200))
def test_a_damaged_compressed_part_is_refused(cut, flip):
    whole = gzip.compress(b'{"a": 1}' * 100, mtime=0)
    with pytest.raises(WireError):
        wire.inflate(whole[: cut % len(whole)])
    damaged = bytearray(whole)
    damaged[flip % len(whole)] ^= 0xFF
    with contextlib.suppress(WireError):
        assert wire.inflate(bytes(damaged)) == b'{"a": 1}' * 100  # time and system of its head mean nothing


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(b"0" * (wire.MAX_BYTES + 1))
    assert len(bomb) < 4096
    with pytest.raises(WireError, match="larger"):
        wire.inflate(bomb)
    assert len(wire.inflate(gzip.compress(b"0" * wire.MAX_BYTES))) == wire.MAX_BYTES


def test_topics_name_whose_they_are_and_nothing_else_passes_for_one():
    address = Address("tenant-0001", "box-00000001")
    for name in (*Up, *Down):
        assert parse_topic(address.topic(name)) == (address, name)
    for other in ("", "a", "scanside/v1/t/d/up/rec", "scanside/v1/tenant-0001/box-00000001/up/rec/x", "$SYS/x"):
        with pytest.raises(WireError):
            parse_topic(other)
    for bad in ("a/b", "+", "#", "short", "Upper-case-id", "x" * 41, "id-with-\n-in-it"):
        with pytest.raises(WireError):
            Address("tenant-0001", bad).topic(Up.REC)
        with pytest.raises(WireError):
            parse_topic(f"scanside/v1/tenant-0001/{bad}/up/rec")


@given(text=st.text(max_size=80))
def test_no_text_passes_for_a_topic_by_chance(text):
    with pytest.raises(WireError):
        parse_topic(text)


def test_a_batch_is_never_empty_and_never_more_than_a_hundred():
    for recs in ((), (RECORD,) * 101):
        with pytest.raises(ValueError, match="recs"):
            Batch(batch=ULID, stream=ULID, sess=1, recs=recs)


def test_a_job_goes_only_the_ways_that_there_are():
    for state in JobState:
        assert (NEXT[state] == frozenset()) is (state in ENDED)
        for after in JobState:
            if after not in NEXT[state]:
                with pytest.raises(wire.ApplianceError):
                    check_step(state, after)
    reached, seen = {JobState.QUEUED}, set()
    while reached - seen:
        state = (reached - seen).pop()
        seen.add(state)
        reached |= NEXT[state]
    assert seen == set(JobState)


def test_a_job_has_the_arguments_of_its_op_and_no_others():
    job = MESSAGES[9]
    assert args_fit(job)
    assert not args_fit(job.model_copy(update={"args": JobArgs()}))
    assert not args_fit(job.model_copy(update={"args": JobArgs(after_seq=1, package="x")}))
    assert args_fit(job.model_copy(update={"op": Op.PING, "args": JobArgs()}))
    assert not args_fit(job.model_copy(update={"op": Op.PING}))


def test_a_gap_is_of_health_alone():
    with pytest.raises(ValueError, match="skipped"):
        Gap(skipped="results", first_seq=1, last_seq=2, n=1)
