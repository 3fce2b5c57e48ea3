"""Whose report it is: decoded identity in UTF-8, nothing invented, nothing that breaks its value representation."""

from __future__ import annotations

import pytest
from pydicom import config
from pydicom.dataset import Dataset

from appliance.report.identity import set_identity


@pytest.mark.parametrize(
    ("birth_date", "written"), [("19700102", "19700102"), ("1970", ""), ("19700230", ""), ("unknown", ""), ("", "")]
)
def test_a_birth_date_that_is_none_is_left_empty(make_request, with_identity, birth_date, written):
    ds = Dataset()
    set_identity(ds, with_identity(make_request(), patient_birth_date=birth_date))
    assert ds.PatientBirthDate == written


@pytest.mark.parametrize(("sex", "written"), [("F", "F"), ("O", "O"), ("女", ""), ("U", ""), ("", "")])
def test_a_sex_that_dicom_does_not_know_is_left_empty(make_request, with_identity, sex, written):
    ds = Dataset()
    set_identity(ds, with_identity(make_request(), patient_sex=sex))
    assert ds.PatientSex == written


@pytest.mark.parametrize(
    ("time", "written"), [("0512", "0512"), ("051230.123", "051230.123"), ("5:12", ""), ("25", "")]
)
def test_a_study_time_that_is_none_is_left_empty(make_request, time, written):
    ds = Dataset()
    set_identity(ds, make_request(study_time=time))
    assert ds.StudyTime == written


def test_a_patient_id_is_never_shortened_into_somebody_elses(make_request, with_identity):
    ds = Dataset()
    long = "P" * 80
    with config.disable_value_validation():
        set_identity(ds, with_identity(make_request(), patient_id=long))
    assert ds.PatientID == long


def test_the_name_keeps_its_groups_and_loses_control_characters(make_request, with_identity):
    ds = Dataset()
    set_identity(ds, with_identity(make_request(), patient_name="Wang^XiaoDong=王^小东\x1b\x00"))
    assert str(ds.PatientName) == "Wang^XiaoDong=王^小东"
    assert ds.SpecificCharacterSet == "ISO_IR 192"
