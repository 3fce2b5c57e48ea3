"""The whole box among real peers: DCMTK's senders and receiver, Orthanc, and scanners that send as scanners do."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import fixtures_real
import pytest
from box_kit import Box, box_config, box_with_pacs
from dcmtk_peers import call, storescp
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from real_senders import send_raw

from appliance.dicom.headers import pixel_sha256
from appliance.records import Outcome
from appliance.simulate.bleed import Bleed
from appliance.simulate.dicomize import ct_series, save
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.orthanc import Orthanc
from appliance.simulate.pacs import Pacs
from appliance.simulate.part10 import data_sha256, split
from appliance.simulate.rawscu import RawScu
from appliance.simulate.scanner import interleave
from appliance.simulate.study import Patient, Study
from appliance.store.facts import Kind


@pytest.fixture(scope="module")
def phantoms():
    """A head with a bleed and one without, 22 slices each."""
    scan = HeadScan(matrix=256, slices=22, thickness_mm=7.0, noise_hu=4)
    return head_ct(11, bleeds=[Bleed(kind="IPH", volume_ml=22)], scan=scan), head_ct(12, scan=scan)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with box_with_pacs(tmp_path_factory.mktemp("peers"), completeness={"quiet_min_s": QUIET_S}) as (running, _):
        yield running


def studies(phantoms, name):
    """The series of a study with a bleed and of one without."""
    return [
        ct_series(phantom, Study(seed=f"peers/{name}/{n}", patient=Patient(patient_id=f"P{n}", name=f"Peer^{n}")))
        for n, phantom in enumerate(phantoms)
    ]


# -- DCMTK sends -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-PEER-01")
def test_echoscu_is_answered_for_a_known_scanner_alone(box, dcmtk):
    echo = [dcmtk("echoscu"), "-aec", "SCANSIDE", "127.0.0.1", box.daemon.dicom_port]
    assert call(*echo[:1], "-aet", "CT-1", *echo[1:]).returncode == 0
    seq = box.store.journal.last_seq()
    assert call(*echo[:1], "-aet", "STRANGER", *echo[1:]).returncode != 0
    (refusal,) = box.store.journal.after(seq, kinds=(Kind.REFUSED,))
    assert "'STRANGER' from 127.0.0.1" in refusal.body["message"]


@pytest.mark.req("R-PEER-01")
@pytest.mark.req("R-INTAKE-06")
def test_images_of_an_unknown_ae_title_are_refused_and_the_journal_names_it(box, dcmtk, phantoms, tmp_path):
    paths = save(studies(phantoms, "stranger")[0][:3], tmp_path)
    seq, known = box.store.journal.last_seq(), len(box.store.views.studies(limit=1000))
    for program in ("storescu", "dcmsend"):
        done = call(dcmtk(program), "-aet", "MR7", "-aec", "SCANSIDE", "127.0.0.1", box.daemon.dicom_port, *paths)
        assert done.returncode != 0
    refusals = box.store.journal.after(seq, kinds=(Kind.REFUSED,))
    assert len(refusals) == 2
    assert all("'MR7' from 127.0.0.1 is no configured source" in one.body["message"] for one in refusals)
    assert len(box.store.views.studies(limit=1000)) == known


@pytest.mark.req("R-PEER-01")
@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_study_that_dcmtk_sends_ends_in_its_alert(box, dcmtk, phantoms, program, tmp_path):
    series = studies(phantoms, program)[0]
    save(series, tmp_path / "in")
    options = ["+sd"] if program == "storescu" else ["--scan-directories"]
    sent = call(
        dcmtk(program),
        *options,
        "-aet",
        "CT-1",
        "-aec",
        "SCANSIDE",
        "127.0.0.1",
        box.daemon.dicom_port,
        tmp_path / "in",
    )
    assert sent.returncode == 0, sent.stderr
    view = box.ended(series[0].StudyInstanceUID)
    assert (view.outcome, view.images) == (Outcome.FINDING, len(series))
    assert view.alert is not None


@pytest.mark.req("R-INTAKE-02")
def test_class_of_which_no_syntax_is_accepted_stands_in_the_journal_by_name(box):
    deflated, private = "1.2.840.10008.1.2.1.99", "1.2.840.113619.5.2"
    seq = box.store.journal.last_seq()
    with RawScu("127.0.0.1", box.daemon.dicom_port, calling="CT-1") as raw:
        proposed = [
            (CTImageStorage, [deflated]),
            (MRImageStorage, [private]),
            (MRImageStorage, [ExplicitVRLittleEndian]),
        ]
        assert list(raw.associate(proposed)) == [5]
        raw.release()
    (refusal,) = box.store.journal.after(seq, kinds=(Kind.REFUSED,))
    assert "CT Image Storage (proposed: Deflated Explicit VR Little Endian)" in refusal.body["message"]
    assert "MR" not in refusal.body["message"], "what can be sent in another syntax is no loss"


# -- DCMTK and Orthanc receive -----------------------------------------------------------------------------------------


@pytest.mark.req("R-PEER-01")
@pytest.mark.req("R-PEER-02")
@pytest.mark.req("R-FORWARD-01")
def test_inline_images_reach_storescp_and_orthanc_byte_for_byte_under_the_scanners_name(
    test_data, dcmtk, orthanc, free_port, wait_until, phantoms, tmp_path
):
    series, _ = studies(phantoms, "inline")
    made = save(series, tmp_path / "made")
    files = [*made, *fixtures_real.siemens_series(test_data, tmp_path / "siemens"), *sendable(test_data)]
    port = free_port()
    with (
        Orthanc(tmp_path / "orthanc") as archive,
        storescp(dcmtk("storescp"), tmp_path / "storescp", port, wait_until) as folder,
        Pacs(tmp_path / "pacs") as pacs,
    ):
        ports = {"ORTHANC": archive.dicom_port, "STORESCP": port, "PACS": pacs.port}
        config = box_config(tmp_path / "state", mode="inline", destinations=[to(name, ports[name]) for name in ports])
        with Box(config) as box:
            sent = {}
            for path in files:
                part = split(path)
                if part.sop_instance_uid not in sent and send_raw(path, box.daemon.dicom_port) == 0:
                    sent[part.sop_instance_uid] = part.sha256
            report = box.ended(series[0].StudyInstanceUID).live[0]
            parked = box.wait(lambda: all_gone(box), "forwarded images")
        assert report.outcome is Outcome.FINDING
        assert parked == [("ORTHANC", NOT_FOR_ORTHANC)], "the others pass it by"
        assert {uid: pacs.stored()[uid].sha256 for uid in sent} == sent
        assert {pacs.stored()[uid].calling for uid in sent} == {"CT-1"}
        at_dcmtk = {split(path).sop_instance_uid: path for path in folder.iterdir()}
        assert {uid: data_sha256(at_dcmtk[uid]) for uid in sent} == sent
        held = archive.instances()
        of_made = held[series[0].SOPInstanceUID]
        assert archive.get(f"/instances/{of_made}/metadata?expand")["RemoteAET"] == "CT-1"
        at_orthanc = {split(path).sop_instance_uid: path for path in archive.save_all(tmp_path / "out")}
    assert set(sent) - set(at_orthanc) == {NOT_FOR_ORTHANC}
    # Orthanc writes odd data sets anew when it takes them; what it leaves as it is must be ours to the byte.
    same = {uid for uid in sent if uid in at_orthanc and data_sha256(at_orthanc[uid]) == sent[uid]}
    assert same >= {ds.SOPInstanceUID for ds in series}
    assert len(same) > 0.8 * len(sent)
    for uid in sent.keys() & at_orthanc.keys():
        assert pixel_sha256(at_orthanc[uid]) == pixel_sha256(at_dcmtk[uid])
    reports = [dcmread(path) for uid, path in at_orthanc.items() if uid not in sent]
    assert series[0].StudyInstanceUID in {ds.StudyInstanceUID for ds in reports if ds.Modality == "SR"}
    assert set(at_orthanc) - set(sent) == set(at_dcmtk) - set(sent), "both have the same reports"


#: explicit_VR-UN.dcm, which Orthanc refuses with 0xC000.
NOT_FOR_ORTHANC = "1.2.826.0.1.3680043.2.1125.1.8828356712501776637392831168989589"


def sendable(test_data):
    """Real files with a SOP class; but one whose data set has an odd length, on which DCMTK and Orthanc abort."""
    files = fixtures_real.dicom_files(test_data)
    return [path for path in files if split(path).sop_class_uid and path.name != "dx_thorax_small.dcm"]


def all_gone(box):
    """Once all that is owed was sent or parked, what was parked: (destination, SOP Instance UID)."""
    rows = box.store.db.all("SELECT destination, sop_instance_uid, state FROM delivery WHERE state <> 'sent'")
    waits = any(row["state"] != "parked" for row in rows) or box.store.revisions.open_series()
    open_studies = any(view.outcome is None for view in box.store.views.studies(limit=1000))
    return None if waits or open_studies else [(row["destination"], row["sop_instance_uid"]) for row in rows]


def to(name, port):
    return {
        "kind": "dicom",
        "name": name,
        "purpose": "test",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": name,
        "send": ["original", "sr"],
        "timeout_s": 30,
    }


# -- ways in which scanners send ---------------------------------------------------------------------------------------

#: Far below the shortest quiet time: a busy machine makes each pause longer.
PAUSE_S, QUIET_S = 1.2, 10.0


def pause():
    threading.Event().wait(PAUSE_S)


def one_association_per_image(box, bleed, _, is_over):
    """As GE consoles do. A pause where the operator looks away."""
    scanner = box.scanner("CT-1")
    for number, sent in enumerate(scanner.send_each(bleed)):
        assert sent.status == 0
        if number == len(bleed) // 2:
            pause()


def held_open_and_interleaved(box, bleed, plain, is_over):
    """One association carries two studies in turn, with pauses, and stays open afterwards."""
    items = interleave(bleed, plain)
    with box.scanner("CT-2").open(items) as held:
        for number, item in enumerate(items):
            assert held.send(item).status == 0
            if number in {3, len(items) // 2, len(items) - 3}:
                pause()
        assert is_over.wait(280)


def two_associations_at_once(box, bleed, _, is_over):
    """Every other image by another association; one is released long before the other has brought the last image."""
    with box.scanner("DX-1").open(bleed) as late:
        with box.scanner("DX-1").open(bleed) as early:
            for one, other in zip(bleed[::2], bleed[1::2], strict=True):
                assert early.send(one).status == 0
                if other is not bleed[-1]:
                    assert late.send(other).status == 0
        pause()
        assert late.send(bleed[-1]).status == 0


WAYS = {way.__name__: way for way in (one_association_per_image, held_open_and_interleaved, two_associations_at_once)}


@pytest.fixture(scope="module")
def sent_by_ways(box, phantoms):
    """All ways at once: by name, (seconds from the last answer to the alert, the two series)."""
    is_over = threading.Event()
    made = {name: studies(phantoms, name) for name in WAYS}
    with ThreadPoolExecutor(len(WAYS)) as pool:
        work = {name: pool.submit(way, box, *made[name], is_over) for name, way in WAYS.items()}
        try:
            for name in WAYS:
                box.ended(made[name][0][0].StudyInstanceUID)
            box.ended(made["held_open_and_interleaved"][1][0].StudyInstanceUID)
        finally:
            is_over.set()
        for one in work.values():
            one.result(60)
    return made


@pytest.mark.req("R-COMPLETE-06")
@pytest.mark.req("R-COMPLETE-03")
@pytest.mark.req("R-COMPLETE-02")
@pytest.mark.parametrize("way", WAYS)
def test_study_is_one_revision_and_one_alert_however_its_scanner_sends(box, sent_by_ways, way):
    bleed, plain = sent_by_ways[way]
    expected = {bleed[0].StudyInstanceUID: (Outcome.FINDING, 1)}
    if way == "held_open_and_interleaved":
        expected[plain[0].StudyInstanceUID] = (Outcome.NOTHING_FLAGGED, 0)
    for uid, (outcome, alerts) in expected.items():
        view = box.study(uid)
        facts = box.store.views.study(view.id).facts
        kinds = Counter(fact.kind for fact in facts)
        assert (view.outcome, view.images) == (outcome, len(bleed))
        assert kinds[Kind.SERIES_READY] == kinds[Kind.ANALYSIS_DONE] == 1
        assert (kinds[Kind.ALERT_RAISED], kinds[Kind.ALERT_WITHDRAWN]) == (alerts, 0)
        (ready,) = (fact for fact in facts if fact.kind == Kind.SERIES_READY)
        last = max(fact.seq for fact in facts if fact.kind == Kind.INSTANCE_STORED)
        assert ready.seq > last, "taken as whole before the last image was there"
        assert ready.body["images"] == len(bleed)
        done = next(fact.at for fact in facts if fact.kind == Kind.ANALYSIS_DONE)
        stored = max(fact.at for fact in facts if fact.kind == Kind.INSTANCE_STORED)
        took = (done - stored).total_seconds()
        print(f"{way}: {outcome} {took:.1f} s after the last image; {ready.body['rule']}")  # noqa: T201 - for pytest -s
