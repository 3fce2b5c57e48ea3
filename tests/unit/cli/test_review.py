"""Labels that leave the box: nothing of a patient unless two people say so, and what cannot be proven stays."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from plan_kit import plan_for
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from appliance.cli import main
from appliance.dicom.deidentify import IMAGES, Deidentifier, HeldBackError
from appliance.dicom.headers import read_header
from appliance.records import (
    SYSTEM,
    Actor,
    ActorKind,
    AnalysisResult,
    FindingResult,
    Outcome,
    Region,
    ReviewDecision,
    UserRole,
)
from appliance.store.facts import Kind
from appliance.store.review_rules import Answer, Draft
from appliance.store.reviews import ELSEWHERE, Reading
from appliance.web.passwords import Passwords

CT = "1.2.840.10008.5.1.4.1.1.2"
LI = Actor(kind=ActorKind.PERSON, name="SEED-REVIEWER", role="radiologist")
PASSWORD = "three words in a row"  # noqa: S105 - of nobody
#: Every one stands somewhere in image or review, and none may stand anywhere in an export.
SEEDS = (
    *("SEED-NAME", "SEED-ID", "SEED-ISSUER", "SEED-ACC", "SEED-STUDYID", "SEED-REFERRER", "SEED-DESCRIPTION"),
    *("SEED-SERIES", "SEED-PROTOCOL", "SEED-HOSPITAL", "SEED-STATION", "SEED-OPERATOR", "SEED-COMMENT", "SEED-PRIVATE"),
    *("SEED-KERNEL", "SEED-DEVICE", "SEEDBODY", "SEED-NESTED", "SEEDTYPE", "SEED-OVERLAY", "SEED-TRAILING"),
    *("SEED-PREAMBLE", "SEED-NOTE", "SEED-REVIEWER", "SEED-META", "19700229", "20260304", "051122", "1.2.99.4711"),
)


def image(n=1, **changes):
    """A CT image with a patient in every corner."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"1.2.99.4711.3.{n}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.99.4711", "1.2.99.4711.3", "1.2.99.4711.9"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "SEED-NAME^JANE", "SEED-ID", "SEED-ISSUER"
    ds.PatientBirthDate, ds.PatientSex, ds.AccessionNumber, ds.StudyID = "19700228", "F", "SEED-ACC", "SEED-STUDYID"
    ds.PatientComments = "born 19700229 SEED-COMMENT"
    ds.StudyDate, ds.StudyTime, ds.ContentDate = "20260304", "051122", "20260304"
    ds.ReferringPhysicianName, ds.StudyDescription = "SEED-REFERRER", "SEED-DESCRIPTION"
    ds.SeriesDescription, ds.ProtocolName, ds.InstitutionName = "SEED-SERIES", "SEED-PROTOCOL", "SEED-HOSPITAL"
    ds.StationName, ds.OperatorsName, ds.ImageComments = "SEED-STATION", "SEED-OPERATOR", "SEED-COMMENT"
    ds.ConvolutionKernel, ds.DeviceSerialNumber = "SEED-KERNEL", "SEED-DEVICE"
    ds.BodyPartExamined, ds.ImageType = "SEEDBODY", ["ORIGINAL", "PRIMARY", "AXIAL", "SEEDTYPE"]
    nested = Dataset()
    nested.CodeMeaning = "SEED-NESTED"
    ds.RequestAttributesSequence = [nested]
    ds.private_block(0x0029, "SEED-PRIVATE", create=True).add_new(1, "LO", "SEED-PRIVATE")
    ds.add_new(0x60003000, "OW", b"SEED-OVERLAY")
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = "CT", n, 2
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.PixelSpacing = "1", "-1024", ["0.5", "0.5"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 3.5 * n], [1, 0, 0, 0, 1, 0]
    ds.BurnedInAnnotation = "NO"
    ds.PixelData = np.arange(256, dtype="<i2").tobytes() + b"SEED-TRAILING."
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CT, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.SourceApplicationEntityTitle = "SEED-META"
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def part10(ds):
    ds.preamble = b"SEED-PREAMBLE".ljust(128, b"\0")
    held = io.BytesIO()
    ds.save_as(held, enforce_file_format=True)
    return held.getvalue()


@pytest.fixture
def reviewed(store, receive, tmp_path):
    """``reviewed(*images)``: a study of them whose finding a radiologist amended."""

    def make(*images, note="SEED-NOTE"):
        for ds in images:
            data = part10(ds)
            path = tmp_path / "in.dcm"
            path.write_bytes(data)
            stored = store.studies.add_new(receive(read_header(path), data=data), ())
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        (analysis,) = store.analyses.route(stored.study_id, (revision_id,), (plan_for(revision_id),), (), lambda *_: ())
        finding = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
        store.analyses.finish(analysis, AnalysisResult(outcome=Outcome.FINDING, findings=(finding,)), ())
        box = Region(sop_instance_uid=images[0].SOPInstanceUID, kind="box", points=((1.0, 2.0), (3.0, 4.0)))
        answer = Answer(analysis_id=analysis, finding="bleed", region=box)
        draft = Draft(decision=ReviewDecision.AMEND, note=note, answers=(answer,))
        case = store.reviews.case(stored.study_id)
        store.reviews.sign(stored.study_id, draft, case.etag, LI, Reading(seen={ELSEWHERE: 1}), organization="R")
        return stored.study_id

    return make


@pytest.fixture
def scanside(store, tmp_path):
    """``scanside(*arguments)``: the command on the box of this store."""
    path = tmp_path / "appliance.yaml"
    path.write_text(f"state_path: {tmp_path}\n", "utf-8")
    # The shipped state folder holds its own files; the store of these tests lies in it.
    return lambda *arguments: CliRunner().invoke(main, ["review", *arguments, "--config", str(path)])


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.req("R-REVIEW-08")
def test_nothing_of_a_patient_stands_in_an_export_or_its_file_names(scanside, reviewed, tmp_path, store):
    assert len(set(SEEDS)) >= 20
    reviewed(image(1), image(2), image(3, BurnedInAnnotation=None))
    out = tmp_path / "out"
    told = scanside("export", "--out", str(out))
    assert told.exit_code == 0, told.output
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 5
    everything = b"".join(path.read_bytes() + path.name.encode() for path in files) + told.output.encode()
    before = part10(image(1)) + b"SEED-NOTE" + LI.name.encode()
    assert not [seed for seed in SEEDS if seed.encode() not in before]  # each was there to be found
    assert not [seed for seed in SEEDS if seed.encode() in everything]
    (label,) = lines(out / "labels.jsonl")
    assert label["analyses"][0]["images"] == ["images/000001.dcm", "images/000002.dcm"]
    (said,) = label["analyses"][0]["labels"]
    assert (said["presence"], said["right"], said["region"]["image"]) == ("present", True, "images/000001.dcm")
    assert said["region"]["points"] == [[1.0, 2.0], [3.0, 4.0]]
    (held,) = lines(out / "held-back.jsonl")
    assert "does not say" in held["reason"]
    (fact,) = store.journal.after(0, 99, (Kind.LABELS_EXPORTED,))
    assert (fact.body["reviews"], fact.body["images"], fact.body["held_back"]) == (1, 2, 1)
    assert not fact.body["identified"]


@pytest.mark.req("R-REVIEW-08")
def test_what_training_needs_is_there_and_the_same_patient_is_the_same_subject(scanside, reviewed, tmp_path):
    reviewed(image(1), image(2))
    out = tmp_path / "out"
    scanside("export", "--out", str(out))
    one, two = (dcmread(out / "images" / name) for name in ("000001.dcm", "000002.dcm"))
    assert (one.pixel_array == np.arange(256).reshape(16, 16)).all()
    assert [float(value) for value in two.ImagePositionPatient] == [1, 2, 7]
    assert (one.Modality, one.RescaleIntercept, list(one.ImageType)) == ("CT", -1024, ["ORIGINAL", "PRIMARY", "AXIAL"])
    assert one.SeriesInstanceUID == two.SeriesInstanceUID != "1.2.99.4711.3"
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.PatientID == lines(out / "labels.jsonl")[0]["subject"]
    assert one.PatientIdentityRemoved == "YES"
    assert one.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert "BodyPartExamined" not in one
    again = tmp_path / "again"
    scanside("export", "--out", str(again))
    assert dcmread(again / "images" / "000001.dcm").SOPInstanceUID != one.SOPInstanceUID


HELD = {
    "says that it may": {"BurnedInAnnotation": "YES"},
    "does not say": {"BurnedInAnnotation": None},
    "can be recognised": {"RecognizableVisualFeatures": "YES"},
    "grey": {"PhotometricInterpretation": "RGB"},
    "kind": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "no pixels": {"PixelData": None},
    "fewer pixels": {"Rows": 4096},
    "unusual": {"HighBit": 11},
    "overlay": {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "PixelData": b"\xff" * 512},
}


@pytest.mark.req("R-REVIEW-08")
@pytest.mark.parametrize("why", HELD)
def test_what_cannot_be_proven_is_held_back_with_its_reason(tmp_path, why):
    path = tmp_path / "in.dcm"
    path.write_bytes(part10(image(1, **HELD[why])))
    with pytest.raises(HeldBackError, match=why):
        Deidentifier().image(path, "P-1")


def test_compressed_pixels_and_files_that_are_none_are_held_back(tmp_path):
    ds = image(1)
    ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    path = tmp_path / "in.dcm"
    path.write_bytes(part10(ds))
    with pytest.raises(HeldBackError, match="compressed"):
        Deidentifier().image(path, "P-1")
    path.write_bytes(b"SEED")
    with pytest.raises(HeldBackError, match="cannot be read"):
        Deidentifier().image(path, "P-1")
    assert CT in IMAGES


@pytest.fixture
def people(store):
    kept = Passwords().hashed(PASSWORD)
    for name, role in (("li", "radiologist"), ("ada", "administrator"), ("theo", "technologist")):
        store.accounts.add(name, f"{name.title()} Full", UserRole(role), kept, SYSTEM)


@pytest.fixture
def passwords(tmp_path):
    def make(*given):
        path = tmp_path / "passwords"
        path.write_text("".join(f"{one}\n" for one in given), "utf-8")
        return str(path)

    return make


@pytest.mark.req("R-REVIEW-09")
def test_an_identified_export_takes_two_people_a_reason_and_is_journalled(
    scanside, reviewed, people, passwords, tmp_path, store
):
    reviewed(image(1))
    out, file = tmp_path / "out", passwords(PASSWORD, PASSWORD)
    named = ("--identified", "--by", "li", "--second", "ada", "--reason", "second opinion", "--password-file", file)
    told = scanside("export", "--out", str(out), *named)
    assert told.exit_code == 0, told.output
    (label,) = lines(out / "labels.jsonl")
    assert (label["identity"]["patient_id"], label["note"]) == ("SEED-ID", "SEED-NOTE")
    assert (out / "images" / "000001.dcm").read_bytes() == part10(image(1))
    assert out.stat().st_mode & 0o077 == 0
    (fact,) = store.journal.after(0, 99, (Kind.LABELS_EXPORTED,))
    assert (fact.actor["name"], fact.body["second"], fact.body["reason"]) == ("Li Full", "Ada Full", "second opinion")
    assert fact.body["identified"]


@pytest.mark.req("R-REVIEW-09")
@pytest.mark.parametrize(
    ("first", "second", "given", "reason", "code"),
    [
        ("li", "li", (PASSWORD, PASSWORD), "r", 5),
        ("li", "theo", (PASSWORD, PASSWORD), "r", 5),
        ("li", "ada", (PASSWORD, "wrong"), "r", 5),
        ("li", "nobody", (PASSWORD, PASSWORD), "r", 5),
        ("li", "ada", (PASSWORD,), "r", 2),
        ("li", "", (PASSWORD, PASSWORD), "r", 2),
        ("li", "ada", (PASSWORD, PASSWORD), "", 2),
        ("li", "ada", (PASSWORD, PASSWORD), "  ", 2),
    ],
)
def test_nobody_exports_names_alone_without_a_reason_or_by_a_wrong_password(
    scanside, reviewed, people, passwords, tmp_path, store, first, second, given, reason, code
):
    out = tmp_path / "out"
    named = ("--identified", "--by", first, "--second", second, "--reason", reason)
    named += ("--password-file", passwords(*given))
    told = scanside("export", "--out", str(out), *named)
    assert told.exit_code == code, told.output
    assert not out.exists()
    assert store.journal.after(0, 99, (Kind.LABELS_EXPORTED,)) == []


def test_an_export_never_mixes_with_what_lies_in_a_folder(scanside, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    told = scanside("export", "--out", str(tmp_path / "out"))
    assert told.exit_code == 6


def test_what_waits_is_listed_as_json_too(scanside, reviewed, store):
    study = reviewed(image(1))
    store.reviews.ask(study, LI)
    told = scanside("list", "--json")
    assert [(one["study_id"], one["why"]) for one in json.loads(told.output)["waiting"]] == [(study, "asked")]
    assert "asked" in scanside("list").output


def test_a_day_and_a_package_narrow_the_export(scanside, reviewed, tmp_path):
    reviewed(image(1))
    assert "0 reviewed" in scanside("export", "--out", str(tmp_path / "a"), "--package", "other").output
    assert "0 reviewed" in scanside("export", "--out", str(tmp_path / "b"), "--since", "2999-01-01").output
    assert scanside("export", "--out", str(tmp_path / "c"), "--since", "yesterday").exit_code == 2
