"""Golden cases from DICOM files: what a package says of a study now, kept with the bare arrays and nothing of a header.

The daemon's routing picks the series; decoding and inference are foreign code over foreign bytes, in a limited child.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.geometry import in_plane_shifts, sort_slices
from appliance.dicom.headers import read_header
from appliance.dicom.pixels import hu_slices, xray_image
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.triage.claims import unclaimed
from appliance.triage.evaluation_run import find_studies, plan_inputs
from appliance.triage.workbench import decode_and_prepare, finish
from engines.child import Limits, Progress, run_limited
from engines.errors import ChildError, ContentError, EngineError, PackageError
from engines.golden import volumes_of
from engines.manifest import Input
from engines.package import Package, load_package
from engines.pipeline import Pipeline

_MODULE = "appliance.triage.golden_run"
#: What a file's name in a package cannot hold.
_UNFIT = re.compile(r"[^A-Za-z0-9-]+")
_LIMITS = Limits(wall_s=600, cpu_s=1200, memory_mb=8192, address_space=False, open_files=256)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One study as a golden case: its file, and the score of each finding."""

    path: Path
    scores: dict[str, float]


def record(package: Package, studies: Path, target: Path) -> list[Recorded]:
    """Run a package on every study below a folder and write each as a golden case, called like the study's folder.

    Args:
        package: The maker's own, not signed yet.
        studies: A folder of DICOM files.
        target: Where the ``.npz`` files are written.

    Raises:
        PackageError: A study cannot be such a case; one line each.
    """
    found, _ = find_studies(studies)
    if not found:
        raise PackageError(f"{studies} holds no DICOM studies; name the folder that does with --dicom")
    jobs: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for study in found:
        planned = plan_inputs(package.manifest, study)
        shown = study.series[0][1][0].parent
        if isinstance(planned, dict):
            name = _UNFIT.sub("-", shown.resolve().name).strip("-") or "case"
            same = sum(one["name"] == name for one in jobs.values())
            file = f"{name}-{same + 1}.npz" if same else f"{name}.npz"
            jobs[file] = {
                "name": name,
                "target": str(target / file),
                "shown": str(shown),
                "inputs": planned["inputs"],
            }
        else:
            faults.append(f"{shown}: the package does not take it: {planned.reason}: {planned.detail}")
    told: list[dict[str, Any]] = []
    if jobs:
        request = {"folder": str(package.path), "digest": package.digest, "jobs": list(jobs.values())}
        try:
            told = run_limited(_MODULE, request, _LIMITS)["cases"]
        except ChildError as error:
            raise PackageError(f"{package.path}: running it on these studies ends the process ({error})") from error
    faults += [f"{case['shown']}: {case['refused']}" for case in told if "refused" in case]
    if faults:
        raise PackageError("\n".join(faults))
    return [Recorded(Path(case["target"]), case["scores"]) for case in told]


# -- in the child ------------------------------------------------------------------------------------------------------


def handle(request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Be the child: ``{folder, digest, jobs}`` becomes ``{cases: [{target, scores} or {target, refused}]}``."""
    cases: list[dict[str, Any]] = []
    package = load_package(Path(request["folder"]), trusted=True)
    if package.digest != request["digest"]:
        raise PackageError(f"{package.path} was altered while it was read; begin again")
    try:
        pipeline = Pipeline(package)
    except EngineError as error:
        return {"cases": [{"shown": str(package.path), "refused": str(error)}]}
    with pipeline:
        for job in request["jobs"]:
            case = {"target": job["target"], "shown": job["shown"]}
            try:
                case["scores"] = _record(pipeline, job["inputs"], Path(job["target"]))
            except (NotAnalysable, ContentError) as error:
                case["refused"] = f"the package does not take it: {error.reason}: {error}"
            except (EngineError, RejectedInstance, OSError) as error:
                case["refused"] = str(error)
            cases.append(case)
    return {"cases": cases}


def _record(pipeline: Pipeline, inputs: Mapping[str, Mapping[str, Any]], target: Path) -> dict[str, float]:
    # As a box would, with everything that it refuses.
    pieces = {
        role: [decode_and_prepare(Path(path), given["kind"], [pipeline]).without_image() for path in given["files"]]
        for role, given in inputs.items()
    }
    finish(pieces, pipeline)
    feeds = pipeline.package.manifest.inputs
    arrays: dict[str, Any] = {}
    for role, given in inputs.items():
        paths = [Path(path) for path in given["files"]]
        wanted = pipeline.inputs[role].input
        made = _ct(paths, wanted) if given["kind"] == "ct" else _xray(paths, wanted)
        arrays |= {f"{role}.{key}" if len(feeds) > 1 else key: array for key, array in made.items()}
    # From the very arrays that every box will run.
    scores = pipeline.run_volumes(volumes_of(arrays, feeds)).output.scores
    known = [finding.id for finding in pipeline.package.manifest.findings]
    if sorted(scores) != sorted(known):
        raise PackageError(
            f"the head gives scores of {sorted(scores)}, model.yaml lists the findings {sorted(known)}; make them"
            " the same"
        )
    with target.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return {finding: float(scores[finding]) for finding in known}


def _ct(paths: Sequence[Path], wanted: Input) -> dict[str, NDArray[Any]]:
    """A series in the order of its slices, in HU."""
    decoded = [hu_slices(path) for path in paths if unclaimed(wanted, read_header(path)) is None]
    places = [place for one in decoded for place in one.places]
    pictures = [picture for one in decoded for picture in one.hu]
    geometry = sort_slices(places)
    ordered = [places[index] for index in geometry.order]
    return {
        "array": np.stack([pictures[index] for index in geometry.order]),
        "positions_mm": np.asarray(geometry.positions_mm),
        "spacing_mm": np.asarray(decoded[0].pixel_spacing_mm),
        "shifts_mm": np.asarray(in_plane_shifts(ordered)).reshape(-1, 2),
    }


def _xray(paths: Sequence[Path], wanted: Input) -> dict[str, NDArray[Any]]:
    """The first image that the package claims."""
    path = next(path for path in paths if unclaimed(wanted, read_header(path)) is None)
    return {
        "array": xray_image(path)[None],
        "positions_mm": np.zeros(1),
        # Who measures has refused a picture without; to whom does not, any will do.
        "spacing_mm": np.asarray(read_header(path).pixel_spacing_mm or (1.0, 1.0)),
    }
