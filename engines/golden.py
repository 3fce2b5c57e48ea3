"""Golden cases: small phantoms beside a package with what it must say of them.

The worker runs them before a package serves and after it failed; acceptance compares engines on them.
``golden/golden.json`` lists cases: ``{"file": "bleed.npz", "origin": "phantom", "scores": {"finding": [low, high]}}``
(``origin``: see ``engines.data_rules``). A file holds what a ``Volume`` holds: ``array``, ``positions_mm``,
``spacing_mm`` and, of a tilted gantry, ``shifts_mm``; of a package with several inputs each once per role, as
``frontal.array``. An X-ray is a volume of one slice.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from engines.data_rules import GOLDEN_FOLDER, GOLDEN_LIST
from engines.errors import ContentError, PackageError, SessionError
from engines.manifest import Feed
from engines.package import Package
from engines.pipeline import Pipeline
from engines.types import Volume


@checked(frozen=True)
class Expected:
    """One line of ``golden.json``: the bounds of each score, ends included."""

    file: str
    scores: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """What the package takes, by role, and what it must say of it."""

    name: str
    inputs: dict[str, Volume]
    scores: dict[str, tuple[float, float]]

    def outside(self, scores: Mapping[str, float]) -> Iterator[tuple[str, float, float, float]]:
        """(finding, score, low, high) of each score outside its bounds; of one that is missing it is NaN."""
        for finding, (low, high) in self.scores.items():
            score = scores.get(finding, float("nan"))
            if not low <= score <= high:
                yield finding, score, low, high


def golden_cases(package: Package) -> Iterator[GoldenCase]:
    """Read the golden cases of a package, one by one as they are asked for; none where it has none.

    Raises:
        PackageError: A case is listed but cannot be read.
    """
    if GOLDEN_LIST not in package.files:
        return
    try:
        for expected in TypeAdapter(list[Expected]).validate_python(json.loads(package.data(GOLDEN_LIST))):
            data = io.BytesIO(package.data(f"{GOLDEN_FOLDER}/{expected.file}"))
            with np.load(data, allow_pickle=False) as held:
                inputs = volumes_of(held, package.manifest.inputs)
            yield GoldenCase(expected.file, inputs, expected.scores)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, ValidationError) as error:
        raise PackageError(f"{package.path / GOLDEN_LIST}: a golden case cannot be read: {error}") from error


def volumes_of(held: Mapping[str, NDArray[Any]], feeds: Sequence[Feed]) -> dict[str, Volume]:
    """The series of one case, from the arrays of its file; an optional one may be missing.

    Raises:
        KeyError: An array is missing.
    """
    volumes = {}
    for feed in feeds:
        prefix = f"{feed.input.role}." if len(feeds) > 1 else ""
        if feed.optional and f"{prefix}array" not in held:
            continue
        array, spacing = held[f"{prefix}array"], held[f"{prefix}spacing_mm"]
        shifts = held.get(f"{prefix}shifts_mm", np.empty((0, 2)))
        volumes[feed.input.role] = Volume(
            array=array,
            slice_ids=tuple(f"{prefix}slice-{k}" for k in range(len(array))),
            positions_mm=tuple(float(p) for p in held[f"{prefix}positions_mm"]),
            spacing_mm=(float(spacing[0]), float(spacing[1])),
            shifts_mm=tuple((float(down), float(along)) for down, along in shifts),
        )
    return volumes


def check_golden(pipeline: Pipeline, cases: Iterable[GoldenCase] | None = None) -> int:
    """Run every golden case of the pipeline's package.

    Args:
        pipeline: The package, opened.
        cases: Its golden cases, where the caller holds them already.

    Returns:
        How many there were.

    Raises:
        PackageError: A case cannot be read.
        SessionError: A score lies outside its bounds, or a case was refused or failed.
    """
    count = 0
    for case in golden_cases(pipeline.package) if cases is None else cases:
        try:
            scores = pipeline.run_volumes(case.inputs).output.scores
        except ContentError as error:
            raise SessionError(f"golden case {case.name} of {pipeline.package.name} was refused: {error}") from error
        for finding, score, low, high in case.outside(scores):
            raise SessionError(
                f"golden case {case.name} of {pipeline.package.name}: {finding} scores {score:.4g}, "
                f"expected {low:g} to {high:g}"
            )
        count += 1
    return count
