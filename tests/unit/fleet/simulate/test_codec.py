"""The bytes of MQTT 5 that simulated boxes speak: what was said comes back, and foreign bytes do no harm."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.fleet.simulate import codec
from appliance.fleet.simulate.codec import CodecError, Connack, Disconnect, Pong, Puback, Publish, Suback
from appliance.fleet.simulate.reader import Reader

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PLAIN = TEXT.filter(lambda text: "\0" not in text)
MESSAGES = st.builds(
    Publish,
    topic=TEXT,
    payload=st.binary(max_size=400),
    qos=st.just(1),
    mid=st.integers(1, 65_535),
    retain=st.booleans(),
    duplicate=st.booleans(),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    content_type=TEXT,
    user=st.dictionaries(TEXT, TEXT, max_size=4),
)
#: One of each, as mosquitto sends them.
KNOWN = (
    b"\x20\x09\x01\x00\x06\x21\x00\x14\x22\x00\x0a\x40\x03\x00\x07\x87\x90\x04\x00\x01\x00\x01\xd0\x00\xe0\x02\x8e\x00"
)
READ = [Connack(True, 0, 20), Puback(7, 0x87), Suback(1, (1,)), Pong(), Disconnect(0x8E)]


@pytest.mark.req("R-FLEET-61")
@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_messages_come_back_whole_in_whatever_pieces_they_arrive(messages, sizes):
    data = b"".join(map(codec.publish, messages))
    reader, found, at = Reader(), [], 0
    for size in [*sizes, len(data) or 1]:
        found += reader.feed(data[at : at + size])
        at += size
    assert found == messages


@pytest.mark.req("R-FLEET-61")
@given(
    st.binary(max_size=300) | st.builds(lambda a, b: KNOWN[:a] + b, st.integers(0, len(KNOWN)), st.binary(max_size=40))
)
@example(b"\x30\xff\xff\xff\xff\x01")
@example(b"\x20\x02\x00\x00")
@example(b"\x34\x03\x00\x00\x00")
def test_hostile_bytes_are_packets_or_refused_and_nothing_else(data):
    with contextlib.suppress(CodecError):
        assert all(isinstance(packet, codec.Packet) for packet in Reader().feed(data))


@pytest.mark.req("R-FLEET-61")
def test_what_a_broker_sends_is_read_to_the_last_byte_even_one_by_one():
    assert Reader().feed(KNOWN) == READ
    reader = Reader()
    assert [packet for byte in KNOWN for packet in reader.feed(bytes((byte,)))] == READ


@pytest.mark.req("R-FLEET-61")
def test_a_length_that_no_packet_of_ours_has_is_refused_before_anything_is_kept():
    with pytest.raises(CodecError, match="longer"):
        Reader().feed(b"\x30\xff\xff\x7f")


@pytest.mark.req("R-FLEET-61")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x34\x05\x00\x01a\x00\x01", "QoS 2"),
        (b"\x82\x02\x00\x01", "flags"),
        (b"\x80\x02\x00\x01", "no broker sends"),
        (b"\x30\x04\x00\x05ab", "cut off"),
        (b"\x30\x06\x00\x01a\x02\x7e\x00", "does not have"),
        (b"\x30\x04\x00\x01\xff\x00", "UTF-8"),
    ],
)
def test_each_fault_of_a_packet_is_told(data, why):
    with pytest.raises(CodecError, match=why):
        Reader().feed(data)


@pytest.mark.req("R-FLEET-61")
@given(
    st.dictionaries(TEXT.filter(lambda text: "\0" not in text), TEXT.filter(lambda text: "\0" not in text), max_size=4)
)
def test_another_implementation_reads_our_properties_alike(user):
    message = Publish("a/b", b"", mid=1, expiry_s=60, content_type="application/json", user=user)
    data = codec.publish(message)
    theirs = Properties(PacketTypes.PUBLISH)
    theirs.unpack(data[data.index(b"a/b\x00\x01") + 5 :])
    assert (theirs.MessageExpiryInterval, theirs.ContentType) == (60, "application/json")
    assert dict(getattr(theirs, "UserProperty", [])) == user
