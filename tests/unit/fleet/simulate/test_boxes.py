"""A simulated box says what a box says: the server's own rules take it."""

from __future__ import annotations

import pytest

from appliance.fleet.keys import DeviceKey, holds
from appliance.fleet.simulate.boxes import Figures, SimulatedBox, ulid_of
from appliance.fleet.simulate.codec import Publish
from appliance.fleet.simulate.conduct import STEPS
from appliance.fleet.wire import (
    ACK_TYPE,
    JOB_TYPE,
    Ack,
    Batch,
    Get,
    Job,
    Op,
    Status,
    Up,
    WireError,
    parse_topic,
    unpack,
)
from appliance.fleet.wire_records import DaemonChange, Health
from engines.signing import generate, sign


@pytest.fixture
def box():
    return SimulatedBox("box-0000001", "hospital-01", DeviceKey.generate(), 1, Figures(), sess=1)


def down(box, name, kind, document):
    box.hear(Publish(f"scanside/v1/{box.tenant}/{box.device}/dn/{name}", sign(kind, document.pack()[0], [generate()])))


@pytest.mark.req("R-FLEET-62")
def test_everything_that_it_says_is_a_message_of_the_protocol_under_its_own_topic(box):
    box.record(DaemonChange(state="started"))
    batch = next(iter(box.pending.values())).message
    assert holds(box.key._key.public_key(), batch.topic, batch.payload, batch.user["sig"])
    said = [
        (box.status(online=True, why="start"), Up.STATUS, Status),
        (box.status(online=False, why="lwt"), Up.STATUS, Status),
        (box.health(), Up.HEALTH, Health),
        (box.get(), Up.GET, Get),
        (batch, Up.REC, Batch),
    ]
    for message, name, kind in said:
        address, found = parse_topic(message.topic)
        assert (address.device, found) == (box.device, name)
        assert unpack(kind, message.payload, packed="ce" in message.user)
        assert message.retain == (name is Up.STATUS)
        assert message.qos == (name is not Up.HEALTH)


@pytest.mark.req("R-FLEET-62")
def test_a_batch_waits_until_the_server_names_it_and_counts_once(box):
    first, second = box.record(DaemonChange(state="started")), box.record(DaemonChange(state="stopped"))
    for _ in range(2):
        down(box, "ack", ACK_TYPE, Ack(aud=box.device, stream=box.stream, b=(second, ulid_of(9)), st=0))
    assert list(box.pending) == [first]
    assert box.figures.acked == 1


@pytest.mark.req("R-FLEET-62")
def test_a_job_goes_through_its_steps_once_and_a_replay_does_nothing(box):
    job = Job(id=ulid_of(5), aud=box.device, ctr=3, nbf=0, exp=2**41, op=Op.PING)
    for one in (job, job, job.model_copy(update={"id": ulid_of(6), "ctr": 2})):
        down(box, "job", JOB_TYPE, one)
    told = [unpack(Batch, one.message.payload).recs[0].d for one in box.pending.values()]
    assert [(one.job, one.state, one.version) for one in told] == [
        (job.id, state, n) for n, state in enumerate(STEPS, 1)
    ]
    assert (box.ctr, box.figures.jobs) == (3, 1)


@pytest.mark.req("R-FLEET-62")
@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[1]", b'{"payload": 7}', b'{"payload": "*"}', b'{"payload": "e30="}']
)
def test_what_is_no_envelope_or_no_document_is_refused(box, payload):
    with pytest.raises(WireError):
        box.hear(Publish(f"scanside/v1/{box.tenant}/{box.device}/dn/ack", payload))
