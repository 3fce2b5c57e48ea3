"""A patient as a screen in a corridor may show them: enough to tell two apart, nothing more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.dicom.charsets import display_name, mask_name
from appliance.store.readmodels import StudyView

_TAIL = 4
_AGE = re.compile(r"(\d{1,3})([DWMY])$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Masked. ``age`` is a number with D, W, M or Y (PS3.5 §6.2 AS); ``sex`` is M, F, O or empty."""

    name: Mapping[str, str]
    accession_tail: str
    age: int | None
    age_unit: str
    sex: str


def masked(study: StudyView) -> Person:
    """Whose study it is, masked."""
    identity = study.identity
    age, unit = _age(study)
    accession = identity.accession_number
    return Person(
        name={language: mask_name(identity.patient_name, language) for language in ("en", "zh_Hans")},
        accession_tail=accession[-_TAIL:] if len(accession) > _TAIL else accession,
        age=age,
        age_unit=unit,
        sex=identity.patient_sex if identity.patient_sex in {"M", "F", "O"} else "",
    )


def whole(study: StudyView, language: str) -> dict[str, str]:
    """Whose study it is, for a person who asked for it."""
    identity = study.identity
    return {
        "name": display_name(identity.patient_name, language),
        "patient_id": identity.patient_id,
        "birth_date": _date(identity.patient_birth_date),
        "accession_number": identity.accession_number,
    }


def _age(study: StudyView) -> tuple[int | None, str]:
    match = _AGE.match(study.patient_age.strip())
    if match:
        return int(match.group(1)), match.group(2)
    born, taken = study.identity.patient_birth_date, study.study_date
    if re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", taken) and born <= taken:
        return (int(taken) - int(born)) // 10_000, "Y"
    return None, ""


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if re.fullmatch(r"\d{8}", text) else text
