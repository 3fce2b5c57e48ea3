"""What our requestor writes is what pynetdicom, another implementation, reads, and what foreign bytes do to it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.pdu import A_ASSOCIATE_RQ

from appliance.deliver import wire

CONTEXTS = [(CTImageStorage, ExplicitVRLittleEndian), (CTImageStorage, JPEG2000Lossless), ("1.2.3.4", "1.2.3.5")]


def test_an_association_request_has_one_context_per_class_and_syntax():
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(wire.associate_request("PACS", "CT 1", CONTEXTS, 131072))
    assert (pdu.called_ae_title.strip(), pdu.calling_ae_title.strip()) == ("PACS", "CT 1")
    found = [
        (item.context_id, item.abstract_syntax, [str(ts) for ts in item.transfer_syntax])
        for item in pdu.presentation_context
    ]
    assert found == [(2 * n + 1, sop_class, [syntax]) for n, (sop_class, syntax) in enumerate(CONTEXTS)]
    assert pdu.user_information.maximum_length == 131072


def test_too_many_contexts_or_none_cannot_be_asked_for():
    for contexts in ([], [CONTEXTS[0]] * 129):
        with pytest.raises(ValueError, match="1 to 128"):
            wire.associate_request("PACS", "CT1", contexts, 0)
    wire.associate_request("PACS", "CT1", [CONTEXTS[0]] * 128, 0)


def test_a_uid_that_is_no_ascii_harms_nobody():
    assert b"??" in wire.associate_request("PACS", "CT1", [("1.2.中文", "1.2")], 0)


@given(st.binary(max_size=400))
def test_no_answer_of_a_peer_breaks_the_reader(data):
    wire.read_accept(bytes(68) + data, CONTEXTS)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=8))
def test_an_accept_that_names_other_contexts_than_ours_accepts_nothing_else(ids):
    items = b"".join(struct.pack(">BxHBBBB", 0x21, 4, number, 0, 0, 0) for number in ids)
    accepted, refused, _ = wire.read_accept(bytes(68) + items, CONTEXTS)
    assert set(accepted.values()) == {number for number in ids if number in {1, 3, 5}}
    assert not refused
