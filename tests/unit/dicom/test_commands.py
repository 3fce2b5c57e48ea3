"""Command sets, held against pynetdicom's and pydicom's."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom.dimse_messages import (
    C_ECHO_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_ACTION_RSP,
    N_CREATE_RQ,
    N_CREATE_RSP,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    N_SET_RQ,
    N_SET_RSP,
)
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from scp_kit import command_set, store_rq

from appliance.dicom import commands
from appliance.dicom.commands import (
    CommandError,
    decode_command_set,
    encode_command_set,
    encode_request,
    encode_response,
    parse_request,
)


def pynetdicom_command(message, primitive):
    message = message()
    message.primitive_to_message(primitive)
    (pdata, *_) = message.encode_msg(1, 0)
    return bytes(pdata.presentation_data_value_list[0][1][1:])


def decoded(command):
    return read_dataset(BytesIO(command), is_implicit_VR=True, is_little_endian=True)


@pytest.mark.parametrize(("priority", "high"), [(0, False), (1, True), (2, False)])
def test_c_store_request_of_pynetdicom_is_read(priority, high):
    uid = generate_uid()
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 4711, priority
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, uid
    primitive.DataSet = BytesIO(b"\0\0")

    request = parse_request(pynetdicom_command(C_STORE_RQ, primitive))

    assert request == commands.Request(
        command_field=commands.C_STORE_RQ,
        message_id=4711,
        sop_class_uid=CTImageStorage,
        sop_instance_uid=uid,
        has_data_set=True,
        high_priority=high,
    )


def test_c_echo_request_of_pynetdicom_is_read():
    primitive = C_ECHO()
    primitive.MessageID = 5
    request = parse_request(pynetdicom_command(C_ECHO_RQ, primitive))
    assert (request.command_field, request.message_id, request.has_data_set) == (commands.C_ECHO_RQ, 5, False)


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xA900, 0xC000])
def test_response_is_a_command_set_that_pydicom_reads(status):
    request = parse_request(store_rq(CTImageStorage, "1.2.3", message_id=9))

    ds = decoded(encode_response(request, status))

    assert ds.CommandField == 0x8001
    assert ds.MessageIDBeingRespondedTo == 9
    assert ds.Status == status
    assert ds.CommandDataSetType == 0x0101
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert ds.CommandGroupLength == len(encode_response(request, status)) - 12


@pytest.mark.fault("T23")
@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2\r\n3", "<script>", "1" * 65, b"\xff\xfe", ""])
def test_malformed_uids_are_never_repeated_to_the_peer(uid):
    request = parse_request(store_rq(CTImageStorage, uid))
    assert not commands.is_uid(request.sop_instance_uid)
    assert "AffectedSOPInstanceUID" not in decoded(encode_response(request, 0xC000))


def test_uids_padded_with_zero_or_space_are_the_same():
    assert parse_request(store_rq("1.2.3 ", b"1.2.3\0")).sop_class_uid == "1.2.3"
    assert parse_request(store_rq("1.2.3 ", b"1.2.3\0")).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        command_set({0x0100: b"\1\0"}),  # no message id
        command_set({0x0110: b"\1\0"}),  # no command field
        command_set({0x0100: b"\1\0\0\0", 0x0110: b"\1\0"}),
        command_set({0x0100: b"\1\0"})[:-1],
        b"\x08\0\x18\0\2\0\0\0ab",
        b"\0\0\0\1\xff\xff\xff\xff",
    ],
)
def test_what_is_no_command_set_is_refused(data):
    with pytest.raises(CommandError):
        parse_request(data)


@pytest.mark.fault("T15")
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(CommandError):
        parse_request(data)


@pytest.mark.fault("T15")
@given(st.data())
def test_any_mutation_of_a_request_is_read_or_refused_and_can_be_answered(data):
    command = bytearray(store_rq(CTImageStorage, "1.2.3.4"))
    for _ in range(data.draw(st.integers(1, 4))):
        command[data.draw(st.integers(0, len(command) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = parse_request(bytes(command))
    except CommandError:
        return
    assert encode_response(request, 0)


def test_our_requests_are_command_sets_that_pydicom_reads():
    store = decoded(encode_request(commands.C_STORE_RQ, 7, CTImageStorage, "1.2.3"))
    assert (store.CommandField, store.MessageID, store.Priority) == (0x0001, 7, 0)
    assert (store.AffectedSOPClassUID, store.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert store.CommandDataSetType != 0x0101
    assert store.CommandGroupLength == len(encode_request(commands.C_STORE_RQ, 7, CTImageStorage, "1.2.3")) - 12
    echo = decoded(encode_request(commands.C_ECHO_RQ, 8, "1.2.840.10008.1.1"))
    assert (echo.CommandField, echo.MessageID, echo.CommandDataSetType) == (0x0030, 8, 0x0101)
    assert "AffectedSOPInstanceUID" not in echo
    assert "Priority" not in echo


@pytest.mark.parametrize(
    ("command_field", "primitive", "type_id"),
    [
        (commands.N_ACTION_RQ, N_ACTION_RQ, 1),
        (commands.N_EVENT_REPORT_RQ, N_EVENT_REPORT_RQ, 2),
        (commands.N_SET_RQ, N_SET_RQ, None),
        (commands.N_CREATE_RQ, N_CREATE_RQ, None),
        (commands.C_FIND_RQ, C_FIND_RQ, None),
    ],
)
def test_requests_of_other_services_have_the_elements_that_the_standard_names_for_them(
    command_field, primitive, type_id
):
    instance = "" if command_field == commands.C_FIND_RQ else "1.2.3"
    data = encode_request(command_field, 7, CTImageStorage, instance, type_id=type_id, has_data_set=True)
    ds = decoded(data)
    # What pynetdicom lists for this message is what it reads and writes.
    known = {element.keyword for element in primitive().command_set}
    assert {element.keyword for element in ds} <= known
    request = parse_request(data)
    assert (request.command_field, request.type_id, request.has_data_set) == (command_field, type_id, True)
    assert (request.sop_class_uid, request.sop_instance_uid) == (CTImageStorage, instance)


@pytest.mark.parametrize(
    ("command_field", "response", "type_id"),
    [
        (commands.N_ACTION_RQ, N_ACTION_RSP, 1),
        (commands.N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP, 2),
        (commands.N_SET_RQ, N_SET_RSP, None),
        (commands.N_CREATE_RQ, N_CREATE_RSP, None),
    ],
)
def test_their_responses_too(command_field, response, type_id):
    request = parse_request(encode_request(command_field, 7, CTImageStorage, "1.2.3", type_id=type_id))
    ds = decoded(encode_response(request, 0x0110))
    assert {element.keyword for element in ds} <= {element.keyword for element in response().command_set}
    assert (ds.CommandField, ds.Status, ds.MessageIDBeingRespondedTo) == (command_field | 0x8000, 0x0110, 7)
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (CTImageStorage, "1.2.3")


def test_our_requests_are_read_by_our_own_reader():
    request = parse_request(encode_request(commands.C_STORE_RQ, 7, CTImageStorage, "1.2.3"))
    assert request == commands.Request(commands.C_STORE_RQ, 7, CTImageStorage, "1.2.3", True, False)
    assert not parse_request(encode_request(commands.C_ECHO_RQ, 7, "1.2.840.10008.1.1")).has_data_set


def test_a_uid_that_is_no_ascii_harms_nobody():
    assert decode_command_set(encode_request(commands.C_STORE_RQ, 1, CTImageStorage, "1.2.中文"))[0x1000] == b"1.2.??"


def test_what_is_cut_off_is_left_out_only_where_that_is_asked_for():
    whole = encode_command_set([(0x0100, b"\1\0"), (0x1000, b"1.2.3\0")])
    for cut in range(len(whole)):
        left = decode_command_set(whole[:cut], strict=False)
        assert {element: value for element, value in left.items() if value} == {
            element: value[: max(0, cut - at)]
            for element, value, at in ((0x0000, whole[8:12], 8), (0x0100, b"\1\0", 20), (0x1000, b"1.2.3\0", 30))
            if cut > at
        }
        if cut not in {0, 12, 22}:
            with pytest.raises(CommandError):
                decode_command_set(whole[:cut])


@given(st.binary(max_size=300))
def test_no_answer_of_a_peer_breaks_the_tolerant_reader(data):
    decode_command_set(data, strict=False)
