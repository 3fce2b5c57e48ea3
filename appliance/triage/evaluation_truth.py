"""Truth as a CSV file, and which studies its rows speak of. Pure but for reading the file's text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.errors import ApplianceError
from appliance.triage.evaluation import Case, Evaluated

_COLUMNS = ("study", "finding", "present")
_SOURCE = "source"
_VALUES = {"0": False, "1": True}
_MAX_FAULTS = 10


class TruthError(ApplianceError):
    """The truth cannot be used; one line per fault."""


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One line: whether a study has a finding."""

    line: int
    study: str
    finding: str
    present: bool
    source: str = ""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A row of truth that was not used, and why."""

    line: int
    study: str
    why: str


def read_truth(text: str, findings: Sequence[str]) -> list[TruthRow]:
    """The rows of a CSV file: a header line, then ``study,finding,present[,source]``; ``present`` is 0 or 1.

    Args:
        text: The file; a byte order mark and ``;`` instead of ``,`` are taken.
        findings: Ids that the package has.

    Raises:
        TruthError: Naming each line that cannot be read.
    """
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first and "," not in first else ",")
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    if not set(_COLUMNS) <= set(names) or set(names) - {*_COLUMNS, _SOURCE}:
        raise TruthError(f"line 1: the columns are {','.join(names) or 'missing'}; use study,finding,present[,source]")
    rows, faults = [], []
    for entry in reader:
        line = reader.line_num
        # A line that is too long keeps its rest under None, one that is too short lacks keys.
        values = {key: str(value or "").strip() for key, value in entry.items() if key is not None}
        if not any(values.values()):
            continue
        if None in entry or not values["study"]:
            faults.append(f"line {line}: expected {len(names)} values, the first of which names a study")
        elif values["finding"] not in findings:
            faults.append(f"line {line}: no finding {values['finding']!r}; the package has {', '.join(findings)}")
        elif values["present"] not in _VALUES:
            faults.append(f"line {line}: {values['present']!r} is neither 0 nor 1")
        else:
            present = _VALUES[values["present"]]
            rows.append(TruthRow(line, values["study"], values["finding"], present, values.get(_SOURCE, "")))
    if faults:
        more = [f"{len(faults) - _MAX_FAULTS} more such lines"] if len(faults) > _MAX_FAULTS else []
        raise TruthError("\n".join([*faults[:_MAX_FAULTS], *more]))
    return rows


def match(
    rows: Sequence[TruthRow], studies: Sequence[Evaluated]
) -> tuple[list[Case], list[Unmatched], list[Evaluated]]:
    """Put truth and studies together.

    Returns:
        Cases, rows that were not used, and studies of which no row speaks.

    Raises:
        TruthError: Two rows speak of one study and contradict each other.
    """
    known: dict[str, list[int]] = {}
    for index, study in enumerate(studies):
        for name in dict.fromkeys(study.names):
            known.setdefault(name, []).append(index)
    cases: list[Case] = []
    unmatched: list[Unmatched] = []
    told: dict[tuple[int, str], TruthRow] = {}
    faults = []
    for row in rows:
        found = known.get(row.study, [])
        if len(found) != 1:
            why = f"names {len(found)} studies; use the Study Instance UID" if found else "names no study"
            unmatched.append(Unmatched(row.line, row.study, why))
            continue
        before = told.setdefault((found[0], row.finding), row)
        if before is not row:
            if before.present != row.present:
                faults.append(f"line {row.line}: contradicts line {before.line}, which speaks of the same study")
            unmatched.append(Unmatched(row.line, row.study, f"says the same as line {before.line}"))
            continue
        study = studies[found[0]]
        cases.append(Case(study=study, finding=row.finding, present=row.present, source=row.source or study.source))
    if faults:
        raise TruthError("\n".join(faults[:_MAX_FAULTS]))
    spoken_of = {index for index, _ in told}
    return cases, unmatched, [study for index, study in enumerate(studies) if index not in spoken_of]
