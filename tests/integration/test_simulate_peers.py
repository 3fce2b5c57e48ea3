"""The simulated scanner, raw sender and PACS against one another and against DCMTK and Orthanc."""

import os
import socket
import subprocess
import threading

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, JPEG2000Lossless

from appliance.simulate.dicomize import ct_series, save
from appliance.simulate.dose import dose_report
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.orthanc import Orthanc, find_orthanc
from appliance.simulate.pacs import Manner, Pacs
from appliance.simulate.part10 import data_sha256, meta_information, split
from appliance.simulate.rawscu import AssociationRefused, RawScu
from appliance.simulate.scanner import NotAccepted, Scanner, interleave
from appliance.simulate.study import Study

VERIFICATION = "1.2.840.10008.1.1"
PRIVATE = "1.3.12.2.1107.5.9.1"


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Six CT slices, three in implicit VR and three in J2K, as files."""
    head = head_ct(1, scan=HeadScan(matrix=128, slices=3))
    folder = tmp_path_factory.mktemp("series")
    native = save(ct_series(head, Study(seed="a"), syntax=ImplicitVRLittleEndian), folder, stem="native")
    return native + save(ct_series(head, Study(seed="b"), syntax=JPEG2000Lossless), folder, stem="j2k")


@pytest.fixture
def pacs(tmp_path, free_port):
    with Pacs(tmp_path / "pacs", port=free_port()) as running:  # nobody takes it while the PACS is down
        yield running


def scanner(peer, **options):
    return Scanner("CT-1", "PACS", "127.0.0.1", peer.port, timeout_s=60, **options)


def digests(paths):
    return [data_sha256(path) for path in paths]


# -- scanner > PACS ----------------------------------------------------------------------------------------------


def test_files_sent_in_one_association_arrive_byte_for_byte_and_in_order(pacs, series):
    sent = scanner(pacs).send(series)
    assert [s.status for s in sent] == [0] * 6
    assert [a.sha256 for a in pacs.arrivals] == digests(series)
    assert digests(a.path for a in pacs.arrivals) == digests(series)
    assert [a.transfer_syntax_uid for a in pacs.arrivals] == [ImplicitVRLittleEndian] * 3 + [JPEG2000Lossless] * 3
    assert pacs.associations == ["CT-1"]
    assert {(a.calling, a.called, a.priority) for a in pacs.arrivals} == {("CT-1", "PACS", 0)}
    # The answer is there after the object is.
    assert all(s.at_mono >= a.at_mono for s, a in zip(sent, pacs.arrivals, strict=True))


def test_a_file_that_pydicom_would_write_otherwise_is_not_written_anew(pacs, series, tmp_path):
    part = split(series[0])
    # A group length in group 0008: retired, legal, and dropped by every library that encodes the data set again.
    odd = tmp_path / "odd.dcm"
    head = meta_information(part.sop_class_uid, part.sop_instance_uid, part.transfer_syntax_uid)
    odd.write_bytes(head + b"\x08\x00\x00\x00\x04\x00\x00\x00\x10\x02\x00\x00" + part.data)
    assert scanner(pacs).send([odd])[0].status == 0
    assert pacs.arrivals[0].sha256 == data_sha256(odd)
    assert pacs.arrivals[0].size == len(part.data) + 12


def test_what_the_pacs_stored_is_a_readable_file(pacs, series):
    scanner(pacs).send(series)
    for source, arrival in zip(series, pacs.arrivals, strict=True):
        assert np.array_equal(dcmread(arrival.path).pixel_array, dcmread(source).pixel_array)


def test_one_association_per_image_is_as_many_associations(pacs, series):
    assert [s.status for s in scanner(pacs).send_each(series)] == [0] * 6
    assert pacs.associations == ["CT-1"] * 6


def test_an_association_held_open_carries_images_whenever_the_caller_likes(pacs, series):
    with scanner(pacs).open(series) as held:
        held.send(series[0])
        assert pacs.wait_for(1)
        assert held.stands
        held.send(series[1], high=True)
        assert [a.priority for a in pacs.wait_for(2)] == [0, 1]
    assert pacs.associations == ["CT-1"]


def test_interleaved_series_arrive_in_turn(pacs, series):
    scanner(pacs).send(interleave(series[:3], series[3:]))
    assert [a.sha256 for a in pacs.arrivals] == digests([series[i] for i in (0, 3, 1, 4, 2, 5)])


def test_a_data_set_in_memory_arrives_too(pacs):
    report = dose_report(Study(seed="dose"))
    assert scanner(pacs).send([report])[0].status == 0
    assert pacs.arrivals[0].sop_instance_uid == report.SOPInstanceUID


def test_an_abort_in_mid_series_keeps_what_was_answered(pacs, series):
    with scanner(pacs).open(series) as assoc:
        assoc.send(series[0])
        assoc.abort()
    assert len(pacs.arrivals) == 1
    assert scanner(pacs).echo() == 0


def test_both_senders_send_without_nagles_algorithm(pacs, series):
    with scanner(pacs).open(series) as assoc:
        raw = assoc._assoc.dul.socket.socket
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert raw.fileno() == -1
    with RawScu("127.0.0.1", pacs.port) as sender:
        sender.connect()
        assert sender._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_item_in_a_syntax_that_the_peer_refuses_is_named(tmp_path, series):
    with (
        Pacs(tmp_path, syntaxes={ImplicitVRLittleEndian}) as pacs,
        scanner(pacs).open(series) as assoc,
        pytest.raises(ValueError, match="JPEG 2000"),
    ):
        assoc.send(series[5])


# -- the PACS misbehaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "is_stored"), [(0xA700, False), (0xC000, False), (0xB000, True)])
def test_the_pacs_answers_what_it_is_told_and_keeps_only_what_it_took(pacs, series, status, is_stored):
    pacs.status = status
    assert scanner(pacs).send(series[:1])[0].status == status
    assert pacs.arrivals[0].status == status
    assert bool(pacs.stored()) == is_stored
    assert len(list(pacs.folder.iterdir())) == int(is_stored)


def test_the_pacs_answers_by_a_rule_per_instance(pacs, series):
    bad = split(series[1]).sop_instance_uid
    pacs.status = lambda uid: 0xC000 if uid == bad else 0
    assert [s.status for s in scanner(pacs).send(series[:3])] == [0, 0xC000, 0]


def test_a_lost_response_leaves_the_object_stored_and_the_sender_without_an_answer(pacs, series):
    pacs.manner = Manner.LOSE_RESPONSE
    assert scanner(pacs).send(series[:1])[0].status is None
    assert digests(a.path for a in pacs.stored().values()) == digests(series[:1])


def test_a_silent_pacs_lets_the_sender_run_into_its_own_timeout(pacs, series):
    pacs.manner = Manner.SILENT
    with RawScu("127.0.0.1", pacs.port) as raw:
        accepted = raw.associate([(CTImageStorage, [ImplicitVRLittleEndian])])
        part = split(series[0])
        raw._socket.settimeout(0.3)  # only now: a busy machine may take its time for the association
        with pytest.raises(TimeoutError):
            raw.store(next(iter(accepted)), part.sop_class_uid, part.sop_instance_uid, part.data)
        assert len(pacs.wait_for(1)) == 1


def test_a_refusing_pacs_and_one_that_is_down_are_no_association(pacs, series):
    pacs.manner = Manner.REFUSE
    with pytest.raises(NotAccepted, match="PACS at"):
        scanner(pacs).send(series)
    with pytest.raises(AssociationRefused, match="RJ 02 03 02"), RawScu("127.0.0.1", pacs.port) as raw:
        raw.associate([(VERIFICATION, [ImplicitVRLittleEndian])])
    pacs.manner = Manner.ANSWER
    pacs.stop()
    with pytest.raises(NotAccepted):
        scanner(pacs).send(series)
    pacs.start()
    assert scanner(pacs).send(series)[0].status == 0


def test_going_down_cuts_the_open_association(pacs, series, wait_until):
    with scanner(pacs).open(series) as assoc:
        assoc.send(series[0])
        pacs.stop()
        wait_until(lambda: not assoc.stands)
    assert list(pacs.folder.glob(".*.part")) == []


# -- the raw sender ----------------------------------------------------------------------------------------------


def test_raw_bytes_of_any_class_arrive_as_they_are(pacs):
    data = os.urandom(300_001)
    with RawScu("127.0.0.1", pacs.port, calling="ODD") as raw:
        accepted = raw.associate([(VERIFICATION, [ImplicitVRLittleEndian]), (PRIVATE, ["1.2.3.4.5"])])
        assert accepted == {1: ImplicitVRLittleEndian, 3: "1.2.3.4.5"}
        assert raw.echo(1) == 0
        assert raw.store(3, PRIVATE, "1.2.3", data, fragment=1001, priority=1) == 0
        raw.release()
    arrival = pacs.arrivals[0]
    assert (arrival.calling, arrival.sop_class_uid, arrival.size, arrival.priority) == ("ODD", PRIVATE, 300_001, 1)
    assert split(arrival.path).data == data


def test_half_a_store_leaves_nothing_behind(pacs, series, wait_until):
    part = split(series[0])
    for end in ("abort", "reset", "close"):
        raw = RawScu("127.0.0.1", pacs.port)
        raw.associate([(part.sop_class_uid, [part.transfer_syntax_uid])])
        pieces = list(raw.store_pdus(1, part.sop_class_uid, part.sop_instance_uid, part.data, fragment=1000))
        for piece in pieces[: len(pieces) // 2]:
            raw.send(piece)
        getattr(raw, end)()
        wait_until(lambda: list(pacs.folder.iterdir()) == [])
    assert pacs.arrivals == []


def test_a_dripped_request_is_understood_and_a_half_open_peer_disturbs_nobody(pacs, series):
    with RawScu("127.0.0.1", pacs.port) as idle, RawScu("127.0.0.1", pacs.port) as garbage:
        idle.connect()
        garbage.connect()
        pauses = threading.Event()
        garbage.drip(b"GET / HTTP/1.0\r\n\r\n", 3, pauses.set)
        assert pauses.is_set()
        assert scanner(pacs).send(series[:1])[0].status == 0
        assert not idle.has_closed(within_s=0.05)


# -- DCMTK and Orthanc -------------------------------------------------------------------------------------------


@pytest.fixture
def storescp(dcmtk, free_port, tmp_path, wait_until):
    """DCMTK's storescp, bit preserving, into ``tmp_path/dcmtk``; yields (port, folder)."""
    folder, port = tmp_path / "dcmtk", free_port()
    folder.mkdir()
    with (tmp_path / "storescp.log").open("wb") as log:
        process = subprocess.Popen(
            [dcmtk("storescp"), "+B", "--promiscuous", "+xa", "-od", folder, str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TCP_NODELAY": "1"},
        )

    def answers():
        try:
            with RawScu("127.0.0.1", port, timeout_s=5) as raw:
                return raw.echo(next(iter(raw.associate([(VERIFICATION, [ImplicitVRLittleEndian])])))) == 0
        except OSError:
            return False

    try:
        wait_until(answers)
        yield port, folder
    finally:
        process.kill()
        process.wait(60)


def test_the_raw_sender_stores_at_dcmtk_byte_for_byte(storescp, series):
    port, folder = storescp
    for fragment in (None, 4000):
        for part in map(split, (series[0], series[5])):
            with RawScu("127.0.0.1", port) as raw:
                accepted = raw.associate([(part.sop_class_uid, [part.transfer_syntax_uid])])
                assert accepted == {1: part.transfer_syntax_uid}
                assert raw.store(1, part.sop_class_uid, part.sop_instance_uid, part.data, fragment=fragment) == 0
                raw.release()
    assert sorted(digests(folder.iterdir())) == sorted(digests([series[0], series[5]]))


def test_the_scanner_stores_at_dcmtk_byte_for_byte(storescp, series):
    port, folder = storescp
    sender = Scanner("CT-1", "ANY", "127.0.0.1", port)
    assert sender.echo() == 0
    assert {s.status for s in sender.send(series)} == {0}
    assert sorted(digests(folder.iterdir())) == sorted(digests(series))


def test_dcmtk_echoes_and_stores_at_our_pacs(dcmtk, pacs, series):
    peer = ["-aet", "DCMTK", "-aec", "PACS", "127.0.0.1", str(pacs.port)]
    subprocess.run([dcmtk("echoscu"), *peer], check=True, timeout=60)
    # -R: only what is needed, so that each file goes in its own syntax.
    subprocess.run([dcmtk("storescu"), "-R", "-xv", *peer, *series], check=True, timeout=60)
    assert {a.calling for a in pacs.arrivals} == {"DCMTK"}
    for source, arrival in zip(series, pacs.arrivals, strict=True):
        # storescu encodes sequences anew: the pixels are what must be the same.
        assert dcmread(arrival.path).PixelData == dcmread(source).PixelData


@pytest.fixture(scope="module")
def running_orthanc(tmp_path_factory):
    if find_orthanc() is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_orthanc_takes_the_scanners_images_and_gives_the_same_data_sets_back(running_orthanc, series, tmp_path):
    sender = Scanner("CT-1", "ORTHANC", "127.0.0.1", running_orthanc.dicom_port)
    report = save([dose_report(Study(seed="dose"))], tmp_path / "in")
    assert sender.echo() == 0
    assert {s.status for s in sender.send(series + report)} == {0}
    held = running_orthanc.instances()
    assert set(held) == {split(path).sop_instance_uid for path in series + report}
    assert sorted(digests(running_orthanc.save_all(tmp_path / "out"))) == sorted(digests(series + report))
    first = split(series[0])
    assert running_orthanc.fetch(held[first.sop_instance_uid]).endswith(first.data)


def test_orthanc_keeps_its_objects_and_its_ports_over_a_restart(running_orthanc, series):
    Scanner("CT-1", "ORTHANC", "127.0.0.1", running_orthanc.dicom_port).send(series[:1])
    before = running_orthanc.url, running_orthanc.dicom_port
    running_orthanc.stop()
    running_orthanc.start()
    assert (running_orthanc.url, running_orthanc.dicom_port) == before
    assert split(series[0]).sop_instance_uid in running_orthanc.instances()
