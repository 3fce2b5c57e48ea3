"""The upper layer's PDUs, held against pynetdicom's own encoders and decoders."""

from __future__ import annotations

import ast
import contextlib
import struct
from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, pdu
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from scp_kit import associate_rq, data_pdu, data_pdus

from appliance.dicom.implementation import BOX, SIMULATOR
from appliance.dicom.pdus import (
    APPLICATION_CONTEXT,
    RELEASE_REPLY,
    RELEASE_REQUEST,
    ContextAnswer,
    ProposedContext,
    ProtocolError,
    RoleSelection,
    decode_associate_accept,
    decode_associate_request,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
    encode_associate_request,
    encode_fragment,
    iter_pdvs,
)
from appliance.intake.negotiation import accept_roles, negotiate

PROPOSED = (
    ProposedContext(1, CTImageStorage, (ImplicitVRLittleEndian, ExplicitVRLittleEndian)),
    ProposedContext(3, "1.2.840.10008.1.1", (ImplicitVRLittleEndian,)),
)


def pynetdicom_request(contexts):
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = "CT", "SCANSIDE"
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16382, "1.2.3"
    primitive.user_information = [length, implementation]
    return pdu.A_ASSOCIATE_RQ(primitive).encode()


def decode(encoded):
    return decode_associate_request(memoryview(encoded)[6:])


@pytest.mark.req("R-INTAKE-07")
def test_the_box_does_without_pynetdicom_and_the_version_beside_it_is_the_one_tested(repo):
    assert version("pynetdicom") == "3.0.4", "a new pynetdicom: run all tests of the receiver and of deliver with it"
    for path in (repo / "appliance").rglob("*.py"):
        simulates = path.is_relative_to(repo / "appliance" / "simulate")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            stem = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            for alias in node.names:
                names = [*stem, *alias.name.split(".")]
                if names[0] == "pynetdicom":
                    assert simulates, f"{path}: the box speaks by its own upper layer (docs/adr/0012)"
                    # _config is private in name only: it is pynetdicom's documented place for settings.
                    assert not [n for n in names if n.startswith("_") and n != "_config"], f"{path}: {names}"


def test_request_of_pynetdicom_is_read():
    contexts = [
        build_context(CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
        build_context("1.2.840.10008.1.1", [ImplicitVRLittleEndian]),
    ]

    request = decode(pynetdicom_request(contexts))

    assert (request.calling_ae, request.called_ae, request.protocol_version) == ("CT", "SCANSIDE", 1)
    assert request.application_context == APPLICATION_CONTEXT
    assert request.contexts == PROPOSED
    assert request.max_pdu_bytes == 16382


@pytest.mark.parametrize("implementation", [BOX, SIMULATOR])
def test_our_request_is_read_by_pynetdicom(implementation):
    encoded = encode_associate_request("PACS", "CT 1", PROPOSED, 131072, implementation)

    asked = pdu.A_ASSOCIATE_RQ()
    asked.decode(encoded)
    assert asked.encode() == encoded
    assert (asked.called_ae_title, asked.calling_ae_title) == ("PACS", "CT 1")
    assert [
        ProposedContext(cx.context_id, cx.abstract_syntax, tuple(cx.transfer_syntax))
        for cx in asked.presentation_context
    ] == list(PROPOSED)
    assert asked.user_information.maximum_length == 131072
    assert asked.user_information.implementation_class_uid == implementation.class_uid
    assert (asked.user_information.implementation_version_name or "") == implementation.version_name


def test_our_request_and_acceptance_are_read_by_our_own_readers():
    request = decode(encode_associate_request("PACS", "CT 1", PROPOSED, 131072))
    assert (request.called_ae, request.calling_ae, request.contexts) == ("PACS", "CT 1", PROPOSED)
    assert request.max_pdu_bytes == 131072
    answers = (ContextAnswer(1, 0, ExplicitVRLittleEndian), ContextAnswer(3, 4, ImplicitVRLittleEndian))

    accept = decode_associate_accept(encode_associate_accept(request, answers, 4096)[6:])

    assert (accept.contexts, accept.max_pdu_bytes) == (answers, 4096)
    assert [answer.accepted for answer in accept.contexts] == [True, False]


def test_roles_are_written_and_read_as_pynetdicom_does():
    roles = (RoleSelection("1.2.840.10008.1.20.1", is_scu=False, is_scp=True),)
    encoded = encode_associate_request("CT 1", "SCANSIDE", PROPOSED, 131072, roles=roles)
    asked = pdu.A_ASSOCIATE_RQ()
    asked.decode(encoded)
    assert asked.encode() == encoded
    (selected,) = asked.user_information.role_selection.values()
    assert (selected.uid, selected.scu_role, selected.scp_role) == ("1.2.840.10008.1.20.1", 0, 1)
    request = decode(encoded)
    assert request.roles == roles
    answer = pdu.A_ASSOCIATE_AC()
    answer.decode(encode_associate_accept(request, (), 4096, roles=accept_roles(request.roles)))
    (selected,) = answer.user_information.role_selection.values()
    assert (selected.scu_role, selected.scp_role) == (False, True)


def test_a_scanner_stays_the_scu_of_storage_whatever_it_proposes():
    roles = (RoleSelection(CTImageStorage, is_scu=True, is_scp=True),)
    assert accept_roles(decode(encode_associate_request("B", "CT", PROPOSED, 0, roles=roles)).roles) == ()


def test_a_request_may_name_what_is_no_ascii_and_titles_that_are_too_long():
    request = decode(encode_associate_request("P" * 20, "北京CT", [ProposedContext(1, "1.2.中文", ("1.2",))], 0))
    assert (request.called_ae, request.calling_ae) == ("P" * 16, "??CT")
    assert request.contexts == (ProposedContext(1, "1.2.??", ("1.2",)),)


def test_the_maximum_length_of_a_request_is_never_a_reason_to_refuse_it():
    whole = associate_rq([(CTImageStorage, ExplicitVRLittleEndian)])[6:]
    assert decode(b"\0" * 6 + whole).max_pdu_bytes == 16384
    at = whole.index(b"\x51\0\0\4")
    broken = whole[: at + 2] + b"\xff\xff" + whole[at + 4 :]
    assert len(decode_associate_request(broken).contexts) == 1
    assert decode_associate_request(broken).max_pdu_bytes == 0


def test_our_acceptance_is_read_by_pynetdicom():
    request = decode(
        associate_rq([(CTImageStorage, "1.2.3", ExplicitVRLittleEndian), ("1.2.840.10008.5.1.4.31", "1.2")])
    )

    encoded = encode_associate_accept(request, negotiate(request.contexts), 131072)

    answer = pdu.A_ASSOCIATE_AC()
    answer.decode(encoded)
    assert answer.encode() == encoded
    assert [(cx.context_id, cx.result) for cx in answer.presentation_context] == [(1, 0), (3, 3)]
    assert answer.presentation_context[0].transfer_syntax == ExplicitVRLittleEndian
    assert answer.user_information.maximum_length == 131072
    assert answer.application_context_name == APPLICATION_CONTEXT
    assert (answer.reserved_aet.strip(), answer.reserved_aec.strip()) == ("SCANSIDE", "RAW")


@pytest.mark.parametrize("codes", [(1, 1, 3), (1, 1, 7), (2, 3, 2)])
def test_our_rejection_is_read_by_pynetdicom(codes):
    answer = pdu.A_ASSOCIATE_RJ()
    answer.decode(encode_associate_reject(*codes))
    assert (answer.result, answer.source, answer.reason_diagnostic) == codes
    assert answer.encode() == encode_associate_reject(*codes)


def test_our_abort_and_release_are_those_of_pynetdicom():
    answer = pdu.A_ABORT_RQ()
    answer.decode(encode_abort(2, 6))
    assert (answer.source, answer.reason_diagnostic) == (2, 6)
    assert answer.encode() == encode_abort(2, 6)
    assert pdu.A_RELEASE_RP().encode() == RELEASE_REPLY
    assert pdu.A_RELEASE_RQ().encode() == RELEASE_REQUEST


def test_our_command_is_read_by_pynetdicom():
    answer = pdu.P_DATA_TF()
    answer.decode(encode_fragment(5, b"command", is_command=True, is_last=True))
    (value,) = answer.presentation_data_value_items
    assert (value.context_id, value.presentation_data_value) == (5, b"\x03command")


def test_many_contexts_of_a_generous_scanner_are_read():
    syntaxes = [f"1.2.840.10008.1.2.4.{number}" for number in range(45)]
    request = decode(associate_rq([(CTImageStorage, *syntaxes)] * 128))
    assert len(request.contexts) == 128
    assert len(request.contexts[127].transfer_syntaxes) == 45


def test_more_contexts_than_there_are_ids_are_refused():
    body = bytearray(associate_rq([(CTImageStorage, ExplicitVRLittleEndian)] * 128))
    context = struct.pack(">BxH", 0x20, 4) + b"\1\0\0\0"
    with pytest.raises(ProtocolError, match="128"):
        decode_associate_request(memoryview(bytes(body + context)[6:]))


@pytest.mark.fault("T15")
@pytest.mark.parametrize("cut", [0, 3, 67, 70, 75, 90, 110, 130])
def test_cut_off_request_is_refused_or_has_fewer_items(cut):
    whole = associate_rq([(CTImageStorage, ExplicitVRLittleEndian)])[6:]
    with contextlib.suppress(ProtocolError):
        assert len(decode_associate_request(memoryview(whole[:cut])).contexts) <= 1
    assert len(decode_associate_request(memoryview(whole[:cut]), strict=False).contexts) <= 1


@pytest.mark.fault("T15")
@given(st.binary(max_size=400))
def test_no_bytes_of_a_peer_break_the_tolerant_readers(data):
    for body in (data, bytes(68) + data):
        request = decode_associate_request(body, strict=False)
        assert len(request.repeated) == 64
        decode_associate_accept(body)
        list(iter_pdvs(memoryview(body), strict=False))


@pytest.mark.fault("T15")
@given(st.data())
def test_any_mutation_of_a_request_is_read_or_refused(data):
    body = bytearray(associate_rq([(CTImageStorage, ExplicitVRLittleEndian), ("1.2.3", "1.2.840.10008.1.2")])[6:])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        request = decode_associate_request(memoryview(bytes(body)))
        assert encode_associate_accept(request, negotiate(request.contexts), 16384)


@given(st.binary(max_size=5000), st.integers(1, 700))
def test_fragments_join_to_the_data_set_and_the_last_says_so(data, size):
    pdus = list(data_pdus(3, data, size))

    fragments = [fragment for one in pdus for fragment in iter_pdvs(memoryview(one)[6:])]

    assert b"".join(bytes(part) for *_, part in fragments) == data
    assert [is_last for _, _, is_last, _ in fragments] == [False] * (len(pdus) - 1) + [True]
    assert all((context, is_command) == (3, False) for context, is_command, _, _ in fragments)


def test_several_fragments_in_one_pdu_are_told_apart():
    body = data_pdu(1, b"command", command=True)[6:] + data_pdu(1, b"data", last=False)[6:]
    assert [(kind, last, bytes(part)) for _, kind, last, part in iter_pdvs(memoryview(body))] == [
        (True, True, b"command"),
        (False, False, b"data"),
    ]


@pytest.mark.fault("T15")
@pytest.mark.parametrize(
    "body", [b"\0\0\0\1\1\0", b"\0\0\0\0\1\0", b"\xff\xff\xff\xff\1\0", b"\0\0\0\7\1\0abc", b"\0\0\0", b"\0\0\0\2\1"]
)
def test_fragment_that_does_not_fit_is_refused(body):
    with pytest.raises(ProtocolError):
        list(iter_pdvs(memoryview(body)))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b"\0\0\0\7\1\2abc", [(False, True, b"abc")]),
        (b"\0\0\0\1\1\3", [(True, True, b"")]),
        (b"\0\0\0\0\1\3\0\0\0\3\1\2a", [(True, True, b""), (False, True, b"a")]),
        (b"\0\0\0\3\1\1a\0\0\0\2\1", [(True, False, b"a")]),
    ],
)
def test_tolerant_reader_takes_what_there_is_of_a_fragment(body, left):
    parts = iter_pdvs(memoryview(body), strict=False)
    assert [(is_command, is_last, bytes(part)) for _, is_command, is_last, part in parts] == left
