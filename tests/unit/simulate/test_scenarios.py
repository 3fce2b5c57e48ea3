import numpy as np
import pytest

from appliance.records import Outcome, Reason
from appliance.simulate.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def built():
    return {scenario.name: scenario.build("1") for scenario in SCENARIOS}


def test_each_scenario_is_one_study_of_a_patient_who_is_plainly_made_up(built):
    studies = {name: {ds.StudyInstanceUID for ds in objects} for name, objects in built.items()}
    assert all(len(uids) == 1 for uids in studies.values())
    assert len(set.union(*studies.values())) == len(SCENARIOS)
    assert all(ds.PatientID.startswith("SIM-") for objects in built.values() for ds in objects)


def test_the_demo_shows_every_outcome():
    assert {s.outcome for s in SCENARIOS} == set(Outcome)
    assert [s.reason for s in SCENARIOS if s.outcome is Outcome.NOT_ANALYSED] == [Reason.INCOMPLETE]
    assert {s.source for s in SCENARIOS} == {"CT-1", "DX-1"}


def test_the_missing_block_is_a_hole_in_an_otherwise_regular_series(built):
    heights = np.array([float(ds.ImagePositionPatient[2]) for ds in built["head_ct_missing_block"]])
    steps = np.diff(heights)
    assert sorted(set(steps)) == [5.0, 30.0]
    assert (steps == 30.0).sum() == 1


def test_another_run_is_another_study_of_the_same_patient(built):
    again = next(s for s in SCENARIOS if s.name == "knee_xray").build("2")[0]
    first = built["knee_xray"][0]
    assert again.StudyInstanceUID != first.StudyInstanceUID
    assert again.SOPInstanceUID != first.SOPInstanceUID
    assert again.PatientID == first.PatientID


def test_one_patient_has_a_chinese_name_in_gb18030(built):
    ds = built["head_ct_bleed"][1]
    assert ds.SpecificCharacterSet == "GB18030"
    assert "测试" in str(ds.PatientName)
