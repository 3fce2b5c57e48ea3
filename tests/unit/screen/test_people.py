"""Masking, age and sex."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.screen.people import masked, whole


@pytest.fixture
def study(store, write, scenes):
    def make(age="", **identity):
        whose = replace(scenes.WANG, **identity)
        study_id = write(scenes.add_study, whose, age=age)
        return store.views.some([study_id])[study_id]

    return make


def test_the_mask_keeps_what_tells_two_patients_apart(study):
    person = masked(study())
    assert person.name == {"en": "W. X.", "zh_Hans": "王*明"}
    assert (person.accession_tail, person.sex) == ("4711", "M")


def test_age_comes_from_the_header_or_else_from_the_birth_date(study):
    assert (masked(study(age="006M")).age, masked(study(age="006M")).age_unit) == (6, "M")
    assert (masked(study()).age, masked(study()).age_unit) == (66, "Y")
    assert masked(study(patient_birth_date="unknown")).age is None
    assert masked(study(patient_birth_date="20300101")).age is None


def test_a_study_without_any_identity_is_still_shown(study):
    person = masked(study(patient_name="", accession_number="", patient_birth_date="", patient_sex="X"))
    assert person.name == {"en": "", "zh_Hans": ""}
    assert (person.accession_tail, person.age, person.sex) == ("", None, "")


def test_the_whole_identity_is_given_only_when_it_is_asked_for(study):
    assert whole(study(), "zh_Hans") == {
        "name": "王晓明",
        "patient_id": "PID-88172355",
        "birth_date": "1959-03-14",
        "accession_number": "ACC20260100474711",
    }
