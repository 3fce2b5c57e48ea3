"""Orders, performed procedure steps and rejection notes on a whole box, with DCMTK and pynetdicom as its peers."""

from __future__ import annotations

import copy

import pydicom
import pytest
from box_kit import Box, box_config
from dcmtk_peers import worklist
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep as Step

from appliance.records import Outcome, Reason
from appliance.simulate.pacs import Pacs
from appliance.simulate.scanner import give_answers_back
from appliance.simulate.scenarios import SCENARIOS
from appliance.store.facts import Kind

KO = "1.2.840.10008.5.1.4.1.1.88.59"


def entry(ds, **changes):
    """A worklist entry of the order that images belong to, with every key that wlmscpfs can return."""
    made, step = Dataset(), Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.AccessionNumber, made.PatientID, made.PatientName = "ORDER-77", ds.PatientID, ds.PatientName
    made.PatientBirthDate, made.PatientSex = ds.PatientBirthDate, ds.PatientSex
    made.ReferringPhysicianName = made.MedicalAlerts = made.Allergies = ""
    made.StudyInstanceUID = ds.StudyInstanceUID
    made.RequestingPhysician = "Roe^Jane"
    made.RequestedProcedureDescription, made.RequestedProcedureID = "头颅CT平扫", "RP1"
    made.RequestedProcedurePriority = "HIGH"
    step.Modality, step.ScheduledStationAETitle = "CT", "CT-1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = ds.StudyDate, "080000"
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription, step.ScheduledProcedureStepID = "Head", "SPS-1"
    step.ScheduledStationName = step.ScheduledProcedureStepLocation = step.PreMedication = ""
    made.ScheduledProcedureStepSequence = [step]
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def write_entry(folder, name, ds):
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.save_as(folder / f"{name}.wl", enforce_file_format=True)


def note(images, title="113001"):
    """A rejection note about images, in their study."""
    ds, name = Dataset(), Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID"):
        setattr(ds, keyword, images[0].get(keyword, ""))
    ds.SpecificCharacterSet = images[0].get("SpecificCharacterSet", "")
    ds.AccessionNumber = images[0].AccessionNumber
    ds.SOPClassUID, ds.SOPInstanceUID = KO, generate_uid()
    ds.SeriesInstanceUID, ds.Modality = generate_uid(), "KO"
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title, "DCM", "Rejected for Quality Reasons"
    ds.ConceptNameCodeSequence = [name]
    ds.ContentSequence = []
    for image in images:
        item, reference = Dataset(), Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        reference.ReferencedSOPClassUID = image.SOPClassUID
        reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
        item.ReferencedSOPSequence = [reference]
        ds.ContentSequence.append(item)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = KO, ds.SOPInstanceUID
    return ds


@pytest.fixture(scope="module")
def bleed():
    """A head CT with a finding, as a scanner sends it that did not use the worklist's accession number."""
    made = next(one for one in SCENARIOS if one.name == "head_ct_bleed").build("orders")
    for ds in made:
        ds.AccessionNumber = ""
    return made


@pytest.fixture
def ris(tmp_path, dcmtk, free_port, wait_until):
    port = free_port()
    with worklist(dcmtk("wlmscpfs"), tmp_path / "worklist", port, wait_until) as folder:
        yield port, folder


def reports(pacs, study_uid):
    """Every SR that the PACS got, oldest first."""
    found = [pydicom.dcmread(one.path) for one in pacs.arrivals if one.path and one.status == 0]
    return [ds for ds in found if ds.Modality == "SR" and ds.StudyInstanceUID == study_uid]


def said(report):
    return " ".join(str(item.get("TextValue", "")) for item in report.ContentSequence)


@pytest.mark.req("R-ORDER-01", "R-ORDER-02", "R-REJECT-01", "R-INTAKE-11")
def test_order_then_correction_then_rejection_are_told_to_the_pacs_each_naming_what_it_replaces(tmp_path, ris, bleed):
    port, entries = ris
    write_entry(entries, "own", entry(bleed[0]))
    write_entry(entries, "other", entry(bleed[0], PatientID="SOMEBODY-ELSE", AccessionNumber="ORDER-1"))
    uid = bleed[0].StudyInstanceUID
    settings = {"host": "127.0.0.1", "port": port, "ae_title": "WLM"}
    with (
        Pacs(tmp_path / "pacs") as pacs,
        Box(box_config(tmp_path / "state", pacs.port, mode="inline", worklist=settings)) as box,
    ):
        box.send(bleed[:1])
        order = box.wait(lambda: (view := box.study(uid)) and view.order, "order")
        assert (order.priority, order.procedure_description, order.accession_number) == (
            "HIGH",
            "头颅CT平扫",
            "ORDER-77",
        )
        box.send(bleed[1:])
        view = box.ended(uid)
        assert view.outcome is Outcome.FINDING
        assert view.stat
        assert view.identity.accession_number == "", "what the images say stays what they say"
        (first,) = box.wait(lambda: reports(pacs, uid), "first report")
        assert first.AccessionNumber == "ORDER-77"
        (request,) = first.ReferencedRequestSequence
        assert (request.RequestedProcedureID, request.RequestedProcedureDescription) == ("RP1", "头颅CT平扫")
        originals = {one.sop_instance_uid: pydicom.dcmread(one.path) for one in pacs.arrivals if one.path}
        assert {originals[ds.SOPInstanceUID].AccessionNumber for ds in bleed} == {""}

        corrected = copy.deepcopy(bleed[-1])
        corrected.PatientID = "CORRECTED-1"
        box.send([corrected])
        second = box.wait(lambda: reports(pacs, uid)[1:], "report under the corrected identity")[-1]
        assert second.PatientID == "CORRECTED-1"
        assert _predecessors(second) == {first.SOPInstanceUID}

        rejection = note([corrected, *bleed[:-1]])
        box.send([rejection])
        third = box.wait(lambda: reports(pacs, uid)[2:], "report that withdraws")[-1]
        assert _predecessors(third) == {first.SOPInstanceUID, second.SOPInstanceUID}
        assert "Not analysed." in said(third)
        assert "the images were rejected for quality reasons" in said(third)
        assert "taken out of service" not in said(third)
        view = box.study(uid)
        assert (view.outcome, view.reason) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
        assert (view.alert.state, view.alert.withdrawn_why) == ("withdrawn", "rejected")
        box.wait(lambda: rejection.SOPInstanceUID in pacs.stored(), "forwarded note")


def _predecessors(report):
    return {
        instance.ReferencedSOPInstanceUID
        for study in report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def began_and_ended(series):
    """The data sets of N-CREATE and N-SET of a step that lists a series."""
    began, ended, listed = Dataset(), Dataset(), Dataset()
    began.PerformedProcedureStepStatus = "IN PROGRESS"
    ended.PerformedProcedureStepStatus = "COMPLETED"
    listed.SeriesInstanceUID = series[0].SeriesInstanceUID
    listed.ReferencedImageSequence = []
    for ds in series:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        listed.ReferencedImageSequence.append(item)
    ended.PerformedSeriesSequence = [listed]
    return began, ended


@pytest.mark.long
@pytest.mark.req("R-MPPS-03")
def test_nothing_flagged_is_taken_back_when_the_scanner_lists_an_image_that_never_came_and_stands_once_it_came(
    tmp_path,
):
    plain = next(one for one in SCENARIOS if one.name == "head_ct_no_bleed").build("short")
    series = [ds for ds in plain if "LOCALIZER" not in ds.ImageType]
    study_uid = series[0].StudyInstanceUID
    began, ended = began_and_ended(series)
    with (
        Pacs(tmp_path / "pacs") as pacs,
        Box(box_config(tmp_path / "state", pacs.port, dicom={"mpps": True}, completeness={"quiet_max_s": 6.0})) as box,
    ):
        box.send(series[:-1])  # the last slice at the top: what came looks whole
        assert box.ended(study_uid).outcome is Outcome.NOTHING_FLAGGED
        assert reports(pacs, study_uid) == []
        ae = AE(ae_title="CT-1")
        ae.add_requested_context(Step)
        assoc = ae.associate("127.0.0.1", box.daemon.dicom_port, ae_title="SCANSIDE")
        give_answers_back(assoc)
        uid = generate_uid()
        assert assoc.send_n_create(began, Step, uid)[0].Status == 0
        assert assoc.send_n_set(ended, Step, uid)[0].Status == 0
        assoc.release()
        view = box.wait(
            lambda: (one := box.study(study_uid)).outcome is Outcome.NOT_ANALYSED and one, "outcome that says so"
        )
        assert view.reason is Reason.INCOMPLETE
        (told,) = box.wait(lambda: reports(pacs, study_uid), "report that says so")
        assert f"the scanner lists 1 more images than the {len(series) - 1} that came" in said(told)
        box.send(series[-1:])
        box.wait(lambda: box.study(study_uid).outcome is Outcome.NOTHING_FLAGGED, "outcome on all images")
        corrected = box.wait(lambda: reports(pacs, study_uid)[1:], "report on all images")[-1]
        assert _predecessors(corrected) == {told.SOPInstanceUID}


@pytest.mark.req("R-MPPS-01")
def test_listed_series_is_ready_with_its_last_image_while_the_scanner_holds_its_association(tmp_path, bleed):
    series = [ds for ds in bleed if "LOCALIZER" not in ds.ImageType]
    uid = generate_uid()
    began, ended = began_and_ended(series)
    quiet = {"quiet_min_s": 20.0}  # however long a busy machine takes for an image, that is not why it is ready
    config = box_config(tmp_path / "state", packages=(), dicom={"port": 0, "mpps": True}, completeness=quiet)
    with Box(config) as box:
        ae = AE(ae_title="CT-1")
        ae.add_requested_context(Step)
        assoc = ae.associate("127.0.0.1", box.daemon.dicom_port, ae_title="SCANSIDE")
        give_answers_back(assoc)
        assert assoc.send_n_create(began, Step, uid)[0].Status == 0
        with box.scanner("CT-1").open(series) as sending:
            for ds in series[:-1]:
                sending.send(ds)
            assert assoc.send_n_set(ended, Step, uid)[0].Status == 0
            assert box.store.journal.after(0, kinds=(Kind.SERIES_READY,)) == []
            sending.send(series[-1])
            (fact,) = box.wait(lambda: box.store.journal.after(0, kinds=(Kind.SERIES_READY,)), "ready series")
            assert (fact.body["rule"], fact.body["images"]) == ("mpps", len(series))
            assert fact.body["facts"]["listed"] == len(series)
        assert assoc.send_n_set(ended, Step, uid)[0].Status == 0x0110
        assoc.release()
