"""Golden cases: small phantoms beside a package with what it must say of them.

The worker runs them before a package serves and after it failed; acceptance compares engines on them.
``golden/golden.json`` lists cases: ``{"file": "bleed.npz", "scores": {"finding": [low, high]}}``. A file holds what a
``Volume`` holds: ``array``, ``positions_mm``, ``spacing_mm``.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from engines.errors import ContentError, PackageError, SessionError
from engines.package import Package
from engines.pipeline import Pipeline
from engines.types import Volume

_FOLDER = "golden"


@checked(frozen=True)
class Expected:
    """One line of ``golden.json``: the bounds of each score, ends included."""

    file: str
    scores: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """An input and what the package must say of it."""

    name: str
    volume: Volume
    scores: dict[str, tuple[float, float]]


def golden_cases(package: Package) -> list[GoldenCase]:
    """Read the golden cases of a package; empty where it has none.

    Raises:
        PackageError: A case is listed but cannot be read.
    """
    listing = package.path / _FOLDER / "golden.json"
    if not listing.is_file():
        return []
    cases = []
    try:
        for expected in TypeAdapter(list[Expected]).validate_python(json.loads(listing.read_text())):
            with np.load(package.path / _FOLDER / expected.file, allow_pickle=False) as held:
                array, spacing = held["array"], held["spacing_mm"]
                volume = Volume(
                    array=array,
                    slice_ids=tuple(f"slice-{k}" for k in range(len(array))),
                    positions_mm=tuple(float(p) for p in held["positions_mm"]),
                    spacing_mm=(float(spacing[0]), float(spacing[1])),
                )
            cases.append(GoldenCase(expected.file, volume, expected.scores))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, ValidationError) as error:
        raise PackageError(f"{listing}: a golden case cannot be read: {error}") from error
    return cases


def check_golden(pipeline: Pipeline) -> int:
    """Run every golden case of the pipeline's package.

    Returns:
        How many there were.

    Raises:
        PackageError: A case cannot be read.
        SessionError: A score lies outside its bounds, or a case was refused or failed.
    """
    cases = golden_cases(pipeline.package)
    for case in cases:
        try:
            scores = pipeline.run_volume(case.volume).output.scores
        except ContentError as error:
            raise SessionError(f"golden case {case.name} of {pipeline.package.name} was refused: {error}") from error
        for finding, (low, high) in case.scores.items():
            score = scores.get(finding, float("nan"))
            if not low <= score <= high:
                raise SessionError(
                    f"golden case {case.name} of {pipeline.package.name}: {finding} scores {score:.4g}, "
                    f"expected {low:g} to {high:g}"
                )
    return len(cases)
