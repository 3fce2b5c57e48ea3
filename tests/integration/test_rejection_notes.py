"""A result that holds no longer, on a whole box with Orthanc as its PACS: what was sent of it is named there."""

from __future__ import annotations

import copy
import io

import pytest
import report_kit
from box_kit import Box, box_config
from pydicom import dcmread

from appliance.records import Outcome
from appliance.simulate.dicomize import ct_series
from appliance.simulate.orthanc import Orthanc
from appliance.simulate.study import Study

KO = "1.2.840.10008.5.1.4.1.1.88.59"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEND = ["sr", "seg", "gsps", "ko", "sc", "rejection_note"]


class Held:
    """What Orthanc holds of ours."""

    def __init__(self, server):
        self._server, self._read = server, {}

    def objects(self):
        for uid, orthanc_id in self._server.instances().items():
            if uid not in self._read:
                self._read[uid] = dcmread(io.BytesIO(self._server.fetch(orthanc_id)))
        return list(self._read.values())

    def notes(self):
        selections = [ds for ds in self.objects() if ds.SOPClassUID == KO]
        return [ds for ds in selections if ds.ConceptNameCodeSequence[0].CodeValue == "113037"]

    def results(self, patient_id):
        notes = {ds.SOPInstanceUID for ds in self.notes()}
        return {
            ds.SOPInstanceUID: ds.SOPClassUID
            for ds in self.objects()
            if ds.SOPInstanceUID not in notes and ds.PatientID == patient_id
        }


def named(note):
    items = [item for item in note.ContentSequence if item.ValueType in {"IMAGE", "COMPOSITE"}]
    return {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items}


@pytest.mark.req("R-RESULT-10", "R-REPORT-11", "R-PEER-01")
def test_what_a_pacs_holds_of_a_result_is_rejected_there_once_corrected_and_once_superseded(tmp_path, orthanc):
    folder = report_kit.make_ball_package(tmp_path / "package" / "ball")
    images = ct_series(report_kit.ball_phantom()[0], Study(seed="rejected"))
    uid, first_id = images[0].StudyInstanceUID, images[0].PatientID
    with Orthanc(tmp_path / "orthanc") as server:
        pacs = {"kind": "dicom", "name": "PACS", "purpose": "test", "host": "127.0.0.1", "port": server.dicom_port}
        pacs |= {"ae_title": "ORTHANC", "send": SEND}
        config = box_config(tmp_path / "state", packages=["ball"], destinations=[pacs])
        with Box(config, [folder]) as box:
            held = Held(server)
            box.send(images)
            assert box.ended(uid).outcome is Outcome.FINDING
            first = box.wait(lambda: all_five(held.results(first_id)), "five objects")
            assert held.notes() == []

            corrected = copy.deepcopy(images[-1])
            corrected.PatientID = "CORRECTED-1"
            box.send([corrected])
            (note,) = box.wait(held.notes, "note about the wrong patient")
            assert named(note) == set(first)
            assert (note.PatientID, note.StudyInstanceUID) == (first_id, uid), "it stands where they stand"
            second = box.wait(lambda: all_five(held.results("CORRECTED-1")), "five corrected objects")

            box.store.analyses.reprocess(box.study(uid).id)
            again = box.wait(lambda: held.notes()[1:], "note about the older result")[0]
            assert named(again) == {one for one, sop_class in second.items() if sop_class != SR}
            assert again.PatientID == "CORRECTED-1"
            for n, ds in enumerate(held.notes()):
                ds.save_as(tmp_path / f"{n}.dcm", enforce_file_format=True)
                assert report_kit.dciodvfy_errors(tmp_path / f"{n}.dcm") == []
            assert box.store.issues.open() == []


def all_five(found):
    return found if len(found) == 5 else None
