import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from appliance.dicom import commands
from appliance.dicom.pdus import iter_pdvs
from appliance.simulate import upper_layer as ul
from appliance.simulate.dicomize import save
from appliance.simulate.dose import dose_report
from appliance.simulate.part10 import data_sha256, meta_information, split
from appliance.simulate.study import Study

CT = "1.2.840.10008.5.1.4.1.1.2"


@settings(max_examples=60)
@given(data=st.binary(max_size=5000), room=st.integers(7, 600))
def test_fragments_put_together_again_are_the_message(data, room):
    pdus = [bytes(head) + bytes(part) for head, part in ul.fragments(5, data, is_command=False, max_pdu=room)]
    assert all(struct.unpack_from(">I", pdu, 2)[0] == len(pdu) - 6 <= room for pdu in pdus)
    parts = [pdv for pdu in pdus for pdv in iter_pdvs(memoryview(pdu)[6:])]
    assert b"".join(bytes(part) for *_, part in parts) == data
    assert [is_last for _, _, is_last, _ in parts] == [False] * (len(parts) - 1) + [True]
    assert {(number, is_command) for number, is_command, _, _ in parts} == {(5, False)}


@given(status=st.integers(0, 0xFFFF), uid=st.from_regex(r"[1-9](\.[0-9]{1,8}){1,6}", fullmatch=True))
def test_a_command_set_reads_as_it_was_written(status, uid):
    values = {commands.SOP_CLASS_UID: CT, commands.STATUS: status, commands.SOP_INSTANCE_UID: uid}
    read = ul.parse_command(ul.command(values))
    assert {key: read[key] for key in values} == values


@pytest.mark.parametrize("preamble", [True, False])
def test_a_file_is_split_into_meta_information_and_the_exact_data_set(preamble, tmp_path):
    path = save([dose_report(Study(seed="1"))], tmp_path)[0]
    raw = path.read_bytes()
    if not preamble:
        path.write_bytes(raw[132:])
    part = split(path)
    ds = dcmread(path, force=True)
    assert (part.sop_class_uid, part.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert raw.endswith(part.data)
    assert part.data[:4] == b"\x08\x00\x05\x00"
    assert data_sha256(path) == hashlib.sha256(part.data).hexdigest()


def test_a_bare_data_set_is_recognised_and_its_uids_found(tmp_path):
    whole = split(save([dose_report(Study(seed="1"))], tmp_path)[0])
    bare = tmp_path / "bare"
    bare.write_bytes(whole.data)
    assert split(bare) == whole


def test_our_meta_information_is_read_by_pydicom(tmp_path):
    whole = split(save([dose_report(Study(seed="1"))], tmp_path)[0])
    path = tmp_path / "rewritten.dcm"
    head = meta_information(whole.sop_class_uid, whole.sop_instance_uid, whole.transfer_syntax_uid)
    path.write_bytes(head + whole.data)
    assert dcmread(path).file_meta.MediaStorageSOPInstanceUID == whole.sop_instance_uid
    assert split(path) == whole
