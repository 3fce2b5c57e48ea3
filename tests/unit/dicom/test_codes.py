from __future__ import annotations

import re
from importlib import resources

import pytest
from pydicom.sr._concepts_dict import concepts

from appliance.dicom import codes

IN_THE_STANDARD = [name for name, code in codes.table().items() if re.match(r"CID|TID|PS3\.16", code.source)]


def test_a_concept_is_found_by_its_name_and_cannot_be_changed():
    code = codes.get("intracranial_hemorrhage")
    assert (code.code, code.scheme, code.zh, code.reviewed) == ("1386000", "SCT", "颅内出血", False)
    with pytest.raises(ValueError, match="frozen"):
        code.code = "1"
    with pytest.raises(TypeError):
        codes.table()["other"] = code


def test_a_concept_that_is_not_in_the_table_is_an_error_and_no_guess():
    with pytest.raises(KeyError, match="aneurysm"):
        codes.get("aneurysm")


def test_no_name_and_no_code_stands_twice():
    text = resources.files("appliance.dicom").joinpath("codes.yaml").read_text("utf-8")
    names = re.findall(r"^(\w+): \{", text, flags=re.MULTILINE)
    assert names == list(codes.table())
    assert len({(code.scheme, code.code) for code in codes.table().values()}) == len(names)


@pytest.mark.parametrize("name", IN_THE_STANDARD)
def test_a_code_that_claims_to_be_in_the_standard_is_there_with_its_meaning(name):
    code = codes.get(name)
    known = [entry[code.code][0] for entry in concepts[code.scheme].values() if code.code in entry]
    assert any(meaning.lower().startswith(code.meaning.lower()) for meaning in known) or name == "finding_category", (
        known
    )


def test_urgency_categories_are_those_of_cid_7035():
    values = [codes.get(f"actionable_category_{category}").code for category in (1, 2, 3)]
    assert values == ["RID49480", "RID49481", "RID49482"]


def test_no_meaning_calls_a_patient_normal_or_negative():
    for code in codes.table().values():
        assert not re.search(r"normal|negative|正常|阴性", f"{code.meaning} {code.zh}", flags=re.IGNORECASE)
