"""Deliveries to real peers on loopback: our own PACS, pynetdicom's, DCMTK's storescp and Orthanc."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import threading

import pytest
from deliver_kit import running_box
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from scp_kit import ct, encode

from appliance.deliver.dicom import peer_of
from appliance.deliver.dicom_scu import Peer
from appliance.deliver.echo import echo
from appliance.deliver.stage import ISSUE_AFTER_S
from appliance.simulate.orthanc import Orthanc
from appliance.simulate.pacs import Manner, Pacs

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def box(tmp_path):
    with running_box(tmp_path / "state") as running:
        yield running


@pytest.fixture
def pacs(tmp_path, free_port):
    with Pacs(tmp_path / "pacs", port=free_port()) as running:  # nobody takes it while the PACS is down
        yield running


@contextlib.contextmanager
def pynetdicom_scp(contexts, status=0x0000, **settings):
    """pynetdicom's storage SCP; yields its port and the list of what it got."""
    got = []

    def handle(event):
        got.append((str(event.request.AffectedSOPInstanceUID), event.encoded_dataset(include_meta=False)))
        return status

    ae = AE("PACS")
    for sop_class, syntaxes in contexts.items():
        ae.add_supported_context(sop_class, syntaxes)
    for name, value in settings.items():
        setattr(ae, name, value)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    try:
        yield server.socket.getsockname()[1], got
    finally:
        server.shutdown()


def data_set_of(path):
    """The bytes of a Part 10 file after its file meta information, and its transfer syntax."""
    data = path.read_bytes()
    meta = dcmread(path, stop_before_pixels=True, force=True).file_meta
    start = 144 + int.from_bytes(data[140:144], "little")
    return data[start:], str(meta.TransferSyntaxUID)


@pytest.mark.req("R-FORWARD-01")
def test_every_byte_arrives_under_the_scanners_own_ae_title(box, pacs):
    rng = random.Random(1)
    sizes = [1, 2, 131065, 131066, 131067, 1_000_003]
    sent = {box.owe(data := rng.randbytes(size)): data for size in sizes}
    stage = box.stage(pacs.port)
    box.drain(stage)
    found = {arrival.sop_instance_uid: arrival.sha256 for arrival in pacs.arrivals}
    for delivery, data in sent.items():
        assert found[box.row(delivery)["sop_instance_uid"]] == hashlib.sha256(data).hexdigest()
    assert pacs.associations == ["CT1"]
    stage.close()


def test_two_scanners_share_no_association_and_a_study_keeps_its_order(box, pacs):
    order = [
        box.owe(study=study, calling_ae=ae)
        for study, ae in [(1, "CT1"), (2, "DX1"), (1, "CT1"), (1, "DX1"), (1, "CT1")]
    ]
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert set(pacs.associations) == {"CT1", "DX1"}
    arrived = [arrival.sop_instance_uid for arrival in pacs.arrivals]
    of_study_1 = [box.row(order[n])["sop_instance_uid"] for n in (0, 2, 3, 4)]
    assert [uid for uid in arrived if uid in of_study_1] == of_study_1
    stage.close()


def test_the_configured_title_and_the_boxes_own_are_used_where_they_should(box):
    original, result = box.owe(calling_ae="CT1"), box.owe(kind="sr", calling_ae="")
    owed = {item.id: item for item in box.store.deliveries.next_owed("pacs", box.clock.now(), 10)}
    plain = box.stage(104)._destination
    named = box.stage(104, calling_ae_title="GATE")._destination
    assert peer_of(plain, "SCANSIDE", owed[original]).calling_ae == "CT1"
    assert peer_of(plain, "SCANSIDE", owed[result]).calling_ae == "SCANSIDE"
    assert peer_of(named, "SCANSIDE", owed[original]).calling_ae == "GATE"
    assert peer_of(named, "SCANSIDE", owed[result]).calling_ae == "GATE"


@pytest.mark.req("R-FORWARD-02")
def test_a_pacs_that_was_down_gets_everything_in_order_once_it_is_back(box, tmp_path, free_port):
    pacs = Pacs(tmp_path / "pacs", port=free_port())
    pacs.start()
    pacs.stop()
    ids = [box.owe(study=1 + n % 3) for n in range(30)]
    stage = box.stage(pacs.port)
    for _ in range(20):
        assert not stage.step()
        box.clock.advance(10)
    assert box.issues() == {"DESTINATION_UNREACHABLE"}
    assert "nothing listens" in box.row(ids[0])["error"]
    assert ISSUE_AFTER_S < 20 * 10
    pacs.start()
    box.drain(stage)
    assert [arrival.sop_instance_uid for arrival in pacs.arrivals] == [box.row(n)["sop_instance_uid"] for n in ids]
    assert box.issues() == set()
    stage.close()
    pacs.stop()


@pytest.mark.req("R-FORWARD-02")
def test_knocking_at_a_pacs_that_is_down_becomes_rare_but_a_person_can_end_the_wait(box, pacs):
    box.owe()
    pacs.manner = Manner.REFUSE
    stage = box.stage(pacs.port)
    for _ in range(2000):
        stage.step()
        box.clock.advance(1)
    knocks = len(pacs.associations)
    assert 2000 / 300 <= knocks <= 40
    pacs.manner = Manner.ANSWER
    assert not stage.step()
    box.store.deliveries.retry("pacs")
    stage.step()
    assert box.states() == ["sent"]
    stage.close()


def test_an_association_is_kept_for_the_next_image_and_released_when_nothing_comes(box, pacs):
    stage = box.stage(pacs.port)
    for _ in range(5):
        box.owe()
        stage.step()
        box.clock.advance(1)
        stage.step()
    assert len(pacs.associations) == 1
    box.clock.advance(5)
    stage.step()
    box.owe()
    stage.step()
    assert len(pacs.associations) == 2
    assert box.states() == ["sent"] * 6
    stage.close()


def test_an_association_that_the_pacs_has_closed_meanwhile_is_replaced_without_a_failure(box, pacs, wait_until):
    stage = box.stage(pacs.port)
    box.owe()
    stage.step()
    pacs.stop()
    pacs.start()
    two = box.owe()
    stage.step()
    assert (box.row(two)["state"], box.row(two)["attempt"]) == ("sent", 1)
    stage.close()


def test_more_pairs_of_class_and_syntax_than_an_association_holds_take_a_second_one(box, pacs):
    for n in range(150):
        box.owe(sop_class=f"1.2.3.{n}", study=n + 1)
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert box.states() == ["sent"] * 150
    assert len(pacs.associations) == 2
    stage.close()


@pytest.mark.req("R-FORWARD-02")
def test_a_class_that_the_pacs_refuses_is_parked_with_words_and_the_others_go_through(box):
    refused = box.owe(encode(ct()), sop_class=MR)
    wrong_syntax = box.owe(b"j2k", syntax=JPEG2000Lossless)
    taken = box.owe(encode(ct()))
    with pynetdicom_scp({CTImageStorage: [ExplicitVRLittleEndian]}) as (port, got):
        stage = box.stage(port)
        box.drain(stage)
        stage.close()
    assert [box.row(n)["state"] for n in (refused, wrong_syntax, taken)] == ["parked", "parked", "sent"]
    assert len(got) == 1
    assert "SOP Class MR Image Storage" in box.row(refused)["error"]
    assert "Transfer Syntax JPEG 2000" in box.row(wrong_syntax)["error"]
    assert "retry" in box.row(refused)["error"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"require_called_aet": True}, "does not answer to the AE title 'WRONG'; correct ae_title"),
        ({"require_calling_aet": ["OTHER"]}, "does not know our AE title 'CT1'; enter it there"),
    ],
)
def test_a_wrong_ae_title_is_said_in_words_that_mend_it_and_tried_again(box, setting, words):
    one = box.owe(encode(ct()))
    with pynetdicom_scp({CTImageStorage: [ExplicitVRLittleEndian]}, **setting) as (port, _):
        stage = box.stage(port, ae_title="WRONG")
        stage.step()
        assert words in box.row(one)["error"]
        assert box.row(one)["state"] == "owed"
        stage.close()


@pytest.mark.req("R-STORE-11")
def test_in_evaluation_mode_a_result_never_reaches_a_clinical_destination(box, pacs):
    original, result = box.owe(), box.owe(kind="sr")
    stage = box.stage(pacs.port, evaluation=True)
    box.drain(stage)
    assert [box.row(n)["state"] for n in (original, result)] == ["sent", "parked"]
    assert len(pacs.arrivals) == 1
    stage.close()
    box.store.deliveries.retry()
    stage = box.stage(pacs.port, evaluation=True, purpose="test")
    box.drain(stage)
    assert len(pacs.arrivals) == 2
    stage.close()


def test_a_stop_of_the_daemon_does_not_wait_for_a_hanging_pacs_and_nothing_is_lost(box, pacs, wait_until):
    one = box.owe()
    pacs.manner = Manner.SILENT
    stage = box.stage(pacs.port, timeout_s=60)
    thread = threading.Thread(target=stage.step)
    thread.start()
    pacs.wait_for(1)
    stage.interrupt()
    thread.join(50)
    assert not thread.is_alive()
    assert (box.row(one)["state"], box.row(one)["attempt"]) == ("owed", 0)
    stage.close()


def test_the_data_set_reaches_pynetdicom_as_it_was(box):
    data = encode(ct())
    box.owe(data)
    with pynetdicom_scp({CTImageStorage: [ImplicitVRLittleEndian, ExplicitVRLittleEndian]}) as (port, got):
        stage = box.stage(port)
        box.drain(stage)
        stage.close()
    assert [body for _, body in got] == [data]


@pytest.fixture
def storescp(dcmtk, tmp_path, free_port, wait_until):
    """DCMTK's storescp keeping every bit; yields its port and folder."""
    folder, port = tmp_path / "storescp", free_port()
    folder.mkdir()
    process = subprocess.Popen(
        [dcmtk("storescp"), "+B", "+xa", "--promiscuous", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    peer = Peer(host="127.0.0.1", port=port, called_ae="ANY", calling_ae="SCANSIDE", timeout_s=30)
    wait_until(lambda: echo(peer).ok)
    yield port, folder
    process.terminate()
    process.wait(60)


@pytest.fixture
def odd_files(test_data):
    """Files of real data that begin as Part 10 files and name their class, instance and syntax."""
    found = []
    for path in sorted(test_data.rglob("*")):
        data = path.read_bytes()[:144] if path.is_file() else b""
        if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
            continue
        meta = dcmread(path, stop_before_pixels=True, force=True, specific_tags=[]).file_meta
        uids = [str(meta.get(k, "")) for k in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")]
        if all(uids) and "TransferSyntaxUID" in meta:
            found.append((path, *uids, str(meta.TransferSyntaxUID)))
    return found


@pytest.mark.req("R-FORWARD-01", "R-PEER-01")
def test_real_files_reach_storescp_bit_for_bit(box, storescp, odd_files, scale):
    port, folder = storescp
    files = [entry for n, entry in enumerate(odd_files) if scale == 1.0 or n % 3 == 0]
    sent, seen = {}, set()
    for n, (path, sop_class, uid, syntax) in enumerate(files):
        if uid in seen or path.stat().st_size > 20_000_000:
            continue
        seen.add(uid)
        data, _ = data_set_of(path)
        if len(data) % 2:  # DCMTK aborts on fragments of odd length (PS3.8 §E.1), its own sender never makes them
            continue
        sent[box.owe(data, sop_class=sop_class, uid=uid, syntax=syntax, study=n + 1)] = (data, uid)
    assert len(sent) > 20
    stage = box.stage(port)
    box.drain(stage)
    stage.close()
    kept = {}
    for path in folder.iterdir():
        data, _ = data_set_of(path)
        kept[str(dcmread(path, stop_before_pixels=True, force=True).file_meta.MediaStorageSOPInstanceUID)] = data
    lost = [uid for n, (data, uid) in sent.items() if box.row(n)["state"] == "sent" and kept.get(uid) != data]
    assert not lost
    parked = [box.row(n)["error"] for n in sent if box.row(n)["state"] == "parked"]
    assert len(parked) <= len(sent) // 4, parked


@pytest.mark.req("R-FORWARD-01", "R-PEER-01")
def test_orthanc_gives_back_the_very_data_set(box, orthanc, tmp_path):
    data = {}
    for n, syntax in enumerate((ExplicitVRLittleEndian, ImplicitVRLittleEndian)):
        image = ct(InstanceNumber=n)
        image.SOPClassUID = SecondaryCaptureImageStorage if n else CTImageStorage
        data[image.SOPInstanceUID] = encode(image, syntax)
        box.owe(data[image.SOPInstanceUID], sop_class=image.SOPClassUID, uid=image.SOPInstanceUID, syntax=syntax)
    with Orthanc(tmp_path / "orthanc") as server:
        stage = box.stage(server.dicom_port)
        box.drain(stage)
        stage.close()
        held = server.instances()
        for uid, body in data.items():
            path = tmp_path / "back.dcm"
            path.write_bytes(server.fetch(held[uid]))
            assert path.read_bytes().endswith(body)
    assert box.states() == ["sent", "sent"]


def test_echo_tells_who_answers_and_what_to_mend(pacs, free_port):
    def peer(port, **changes):
        fields = {"host": "127.0.0.1", "port": port, "called_ae": "PACS", "calling_ae": "SCANSIDE", "timeout_s": 30.0}
        return Peer(**{**fields, **changes})

    good = echo(peer(pacs.port))
    assert good.ok
    assert 0 < good.ms < 30_000
    closed = echo(peer(free_port()))
    assert not closed.ok
    assert "start it, or correct host and port" in closed.words
    nameless = echo(peer(104, host="no-such-host.invalid"))
    assert not nameless.ok
    assert "cannot be resolved" in nameless.words
    pacs.manner = Manner.REFUSE
    refused = echo(peer(pacs.port))
    assert "no association left" in refused.words


def test_dcmtks_storescp_answers_our_echo(storescp):
    port, _ = storescp
    result = echo(Peer(host="127.0.0.1", port=port, called_ae="ANY", calling_ae="SCANSIDE", timeout_s=30))
    assert result.ok, result.words
