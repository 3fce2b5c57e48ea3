"""Command sets and file meta information, held against pynetdicom's and pydicom's."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import CTImageStorage, JPEG2000Lossless, generate_uid
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from scp_kit import command_set, store_rq

from appliance.intake import dimse
from appliance.intake.dimse import CommandError, encode_response, file_meta, parse_request


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

    assert request == dimse.Request(
        command_field=dimse.C_STORE_RQ,
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
    assert (request.command_field, request.message_id, request.has_data_set) == (dimse.C_ECHO_RQ, 5, False)


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
    assert not dimse.is_uid(request.sop_instance_uid)
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


def test_file_meta_information_makes_a_file_that_pydicom_reads(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(
        file_meta(
            sop_class_uid=CTImageStorage,
            sop_instance_uid="1.2.3",
            transfer_syntax=JPEG2000Lossless,
            calling_ae="CT",
            called_ae="SCANSIDE",
        )
        + b"\x08\0\x60\0CS\2\0CT"
    )

    ds = dcmread(path)

    assert ds.Modality == "CT"
    meta = ds.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert meta.TransferSyntaxUID == JPEG2000Lossless
    assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("CT", "SCANSIDE")
    assert meta.FileMetaInformationGroupLength == path.stat().st_size - 132 - 12 - 10
    assert meta.ImplementationClassUID.is_valid
