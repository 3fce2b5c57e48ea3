"""The receiver with real peers on loopback: DCMTK's senders, pynetdicom, and bytes of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE
from scp_kit import (
    VERIFICATION,
    RawPeer,
    command_set,
    ct,
    data_pdu,
    echo_rq,
    encode,
    parts_left,
    running_scp,
    store_rq,
)

from appliance.dicom.headers import data_set_offset
from appliance.errors import ConfigError
from appliance.intake.peers import Peers, SourceSettings
from appliance.simulate.scanner import give_answers_back

PRIVATE_CLASS = "1.3.46.670589.11.0.0.12.1"


@pytest.fixture
def box(tmp_path):
    with running_scp(tmp_path) as running:
        yield running


@pytest.fixture
def images(tmp_path):
    """Ten CT images as files; (folder, {SOP Instance UID: bytes of the data set})."""
    folder = tmp_path / "images"
    folder.mkdir()
    sent = {}
    for number in range(10):
        ds = ct(rows=64, InstanceNumber=number + 1)
        path = folder / f"{number}.dcm"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(path, enforce_file_format=True)
        sent[str(ds.SOPInstanceUID)] = data_set(path)
    return folder, sent


def data_set(path):
    return path.read_bytes()[data_set_offset(path) :]


def run(*command, **env):
    words = [str(part) for part in command]
    env = {**os.environ, **env}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def received(box):
    return {row.header.sop_instance_uid: data_set(box.spool.path(row.path)) for row in box.sink.stored}


@pytest.mark.req("R-INTAKE-01")
def test_echo_of_dcmtk_is_answered(box, dcmtk):
    run(dcmtk("echoscu"), "-v", "127.0.0.1", box.port)
    box.sink.wait_for(lambda sink: sink.closed)
    assert (box.sink.closed[0].how, box.sink.closed[0].images) == ("released", 0)


@pytest.mark.req("R-INTAKE-01")
@pytest.mark.parametrize("pdu", [4096, 16384, 131072])
def test_images_of_storescu_are_kept_byte_identical(box, dcmtk, images, pdu):
    folder, sent = images
    run(dcmtk("storescu"), "-pdu", pdu, "-aet", "CT1", "+sd", "127.0.0.1", box.port, folder)

    assert received(box) == sent
    box.sink.wait_for(lambda sink: sink.closed)
    assert (box.sink.closed[0].how, box.sink.closed[0].images) == ("released", 10)
    assert box.sink.opened[0].calling_ae == "CT1"
    assert parts_left(box.spool) == []


@pytest.mark.req("R-INTAKE-01")
def test_images_of_dcmsend_are_kept_byte_identical(box, dcmtk, images):
    folder, sent = images
    run(dcmtk("dcmsend"), "127.0.0.1", box.port, "+sd", folder)
    assert received(box) == sent


def test_images_of_pynetdicom_are_kept_byte_identical(box, images):
    folder, sent = images
    ae = AE()
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", box.port)
    give_answers_back(association)
    statuses = [association.send_c_store(dcmread(path)).Status for path in sorted(folder.iterdir())]
    association.release()

    assert statuses == [0] * 10
    assert received(box) == sent


def test_one_association_for_each_image_is_as_good(box, dcmtk, images):
    folder, sent = images
    for path in sorted(folder.iterdir()):
        run(dcmtk("storescu"), "127.0.0.1", box.port, path)

    assert received(box) == sent
    box.sink.wait_for(lambda sink: len(sink.closed) == 10)
    assert {row.association_id for row in box.sink.stored} == set(range(1, 11))


def test_associations_at_the_same_time_do_not_mix(box):
    def send(number):
        data = {}
        with RawPeer(box.port) as peer:
            peer.associate()
            for _ in range(5):
                ds = ct(PatientID=f"P{number}")
                data[str(ds.SOPInstanceUID)] = encode(ds)
                assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID, pdv_bytes=100) == 0
            assert peer.release() == (6, bytes(4))
        return data

    with ThreadPoolExecutor(8) as pool:
        sent = {uid: data for one in pool.map(send, range(8)) for uid, data in one.items()}

    assert received(box) == sent


@pytest.mark.req("R-INTAKE-01")
def test_private_storage_class_is_kept(box):
    ds = ct(SOPClassUID=PRIVATE_CLASS)
    with RawPeer(box.port) as peer:
        peer.associate((PRIVATE_CLASS, ExplicitVRLittleEndian))
        assert peer.store(encode(ds), sop_class=PRIVATE_CLASS, sop_instance=ds.SOPInstanceUID) == 0
    assert box.sink.stored[0].header.sop_class_uid == PRIVATE_CLASS


def test_implicit_syntax_is_kept_as_it_came(box):
    ds = ct()
    data = encode(ds, ImplicitVRLittleEndian)
    with RawPeer(box.port) as peer:
        answer = peer.associate((CTImageStorage, "1.2.840.10008.1.2.1.99", ImplicitVRLittleEndian, ExplicitVRBigEndian))
        assert ImplicitVRLittleEndian.encode() in answer[1]
        assert peer.store(data, sop_instance=ds.SOPInstanceUID) == 0
    assert received(box) == {str(ds.SOPInstanceUID): data}
    assert box.sink.stored[0].header.transfer_syntax_uid == ImplicitVRLittleEndian


def test_echo_and_images_share_an_association(box):
    ds = ct()
    with RawPeer(box.port) as peer:
        peer.associate((VERIFICATION, ImplicitVRLittleEndian), (CTImageStorage, ExplicitVRLittleEndian))
        for _ in range(2):
            peer.send(data_pdu(1, echo_rq(), command=True))
            assert peer.status() == 0
            assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID, context=3) == 0


def test_service_that_the_box_does_not_have_is_answered_and_the_association_goes_on(box):
    ds = ct()
    find = command_set({0x0002: b"1.2.3\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0800: b"\0\0"})
    with RawPeer(box.port) as peer:
        peer.associate()
        peer.send(data_pdu(1, find, command=True) + data_pdu(1, b"identifier"))
        assert peer.status() == 0x0211
        assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) == 0


def test_store_request_without_data_set_cannot_be_understood(box):
    with RawPeer(box.port) as peer:
        peer.associate()
        request = command_set(
            {0x0002: CTImageStorage.encode() + b"\0", 0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\1\1"}
        )
        peer.send(data_pdu(1, request, command=True))
        assert peer.status() == 0xC000


@pytest.mark.req("R-INTAKE-06")
def test_unknown_scanner_is_rejected_and_the_journal_shows_who_knocked(tmp_path, dcmtk):
    peers = Peers((SourceSettings(name="ct1", ae_title="CT1", addresses=("127.0.0.1",)),))
    with running_scp(tmp_path, peers=peers) as box:
        run(dcmtk("echoscu"), "-aet", "CT1", "127.0.0.1", box.port)
        with RawPeer(box.port) as peer:
            assert peer.associate(calling="MR7") == (3, bytes((0, 1, 1, 3)))

        box.sink.wait_for(lambda sink: sink.refusals)
        assert "'MR7' from 127.0.0.1" in box.sink.refusals[0].message
        assert box.sink.refusals[0].association_id is None
        assert [row.source.name for row in box.sink.opened] == ["ct1"]


@pytest.mark.req("R-INTAKE-06")
def test_wrong_called_ae_title_is_rejected_where_ours_is_required(tmp_path):
    with running_scp(tmp_path, ae_title="SCANSIDE", require_called_ae=True) as box:
        with RawPeer(box.port) as peer:
            assert peer.associate(called="PACS") == (3, bytes((0, 1, 1, 7)))
        with RawPeer(box.port) as peer:
            assert peer.associate(called="SCANSIDE")[0] == 2


def test_two_boxes_cannot_listen_on_one_port(box, tmp_path):
    with pytest.raises(ConfigError, match=f"port {box.port}"), running_scp(tmp_path / "2", port=box.port):
        pass


def test_listening_on_ipv6_works(tmp_path):
    with running_scp(tmp_path, host="::1") as box, RawPeer(box.port, host="::1") as peer:
        assert peer.associate()[0] == 2
        box.sink.wait_for(lambda sink: sink.opened)
        assert box.sink.opened[0].address == "::1"


@pytest.mark.req("R-INTAKE-03")
def test_response_waits_for_the_sink(box):
    release, asked = threading.Event(), threading.Event()
    box.sink.on_store = lambda _: (asked.set(), release.wait(60))
    ds = ct(SOPInstanceUID=generate_uid())
    with RawPeer(box.port) as peer:
        peer.associate()
        request = data_pdu(1, store_rq(ds.SOPClassUID, ds.SOPInstanceUID), command=True)
        peer.send(request + data_pdu(1, encode(ds)))
        assert asked.wait(60)
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.status()
        release.set()
        peer.sock.settimeout(60)
        assert peer.status() == 0


def test_sender_with_nagles_algorithm_does_not_wait_for_delayed_acknowledgements(box):
    """Scanners built on DCMTK's defaults write a PDU in two pieces and hold the second back for 40 ms and more."""
    ds = ct()
    times_s = []
    with RawPeer(box.port) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        peer.associate()
        request = data_pdu(1, store_rq(ds.SOPClassUID, ds.SOPInstanceUID), command=True)
        for _ in range(40):
            began = time.monotonic()
            for pdu in (request, data_pdu(1, encode(ds))):
                peer.send(pdu[:12])
                peer.send(pdu[12:])
            assert peer.status() == 0
            times_s.append(time.monotonic() - began)
    # The first segments of a connection are acknowledged at once in any case.
    assert sorted(times_s[20:])[5] < 0.03
