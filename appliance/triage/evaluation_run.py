"""Runs a package over studies on disk as the box would, without the box: no database, no alert, no delivery.

Which series a package takes is decided here by the daemon's own routing; decoding, preparing and inference are the
worker's own functions, in a limited child. A study that ends the child is told as failed or timed out, and the next
child goes on behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.config import Triage
from appliance.dicom.headers import read_header
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Header, Reason, Role
from appliance.store.revisions import Revision
from appliance.triage.claims import series_kind
from appliance.triage.evaluation import NOT_APPLICABLE, Evaluated
from appliance.triage.routing import Candidate, plan_study
from engines.child import Limits, Progress, run_limited
from engines.errors import ChildError, ContentError, EngineError, PackageError
from engines.manifest import Manifest
from engines.package import Package, load_package
from engines.pipeline import Pipeline
from engines.signing import PublicKey, load_public

_MODULE = "appliance.triage.evaluation_run"
_MEMORY_MB = 8192
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """The files of one study, as far as their headers can be read."""

    names: tuple[str, ...]
    source: str
    date: str
    #: Header of the first image and all files, by series.
    series: tuple[tuple[Header, tuple[Path, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a package made of the studies, and what ran it."""

    studies: tuple[Evaluated, ...]
    engine_digest: str
    backend: str
    precision: str


def find_studies(folder: Path) -> tuple[list[FoundStudy], list[Path]]:
    """Every study below a folder, and the files that are no DICOM images or are damaged."""
    files: dict[str, dict[tuple[str, str], list[tuple[int, str, Path, Header]]]] = {}
    others = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = read_header(path)
        except (RejectedInstance, OSError):
            others.append(path)
            continue
        key = (header.series_instance_uid, header.sop_class_uid)
        series = files.setdefault(header.identity.study_instance_uid, {}).setdefault(key, [])
        series.append((header.instance_number or 0, str(path), path, header))
    studies = []
    for uid, of_study in files.items():
        names = {uid: None}
        ordered = [sorted(series, key=lambda one: one[:2]) for series in of_study.values()]
        for _, _, path, header in (one for series in ordered for one in series):
            relative = path.relative_to(folder)
            # In this order a person would name it; a dict keeps it, and each name once.
            names |= dict.fromkeys((header.identity.accession_number, *relative.parts, path.stem, str(relative.parent)))
        first = ordered[0][0][3]
        source = f"{first.manufacturer} {first.manufacturer_model_name}".strip() or "unknown"
        whole = tuple((of[0][3], tuple(path for _, _, path, _ in of)) for of in ordered)
        studies.append(FoundStudy(tuple(n for n in names if n not in {"", "."}), source, first.study_date, whole))
    return studies, others


def run_studies(
    package: Package,
    keys: Sequence[PublicKey],
    studies: Sequence[FoundStudy],
    *,
    trusted: bool,
    threads: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> Ran:
    """Run a package over studies.

    Args:
        package: Has passed the gate.
        keys: Whose signatures count.
        studies: From ``find_studies``.
        trusted: The signature is not asked for.
        threads: Of one inference.
        on_done: Told how many studies are done.

    Raises:
        PackageError: The package cannot be opened.
    """
    ended: list[Evaluated | None] = []
    jobs: list[dict[str, Any]] = []
    for index, study in enumerate(studies):
        planned = plan_inputs(package.manifest, study)
        ended.append(planned if isinstance(planned, Evaluated) else None)
        if not isinstance(planned, Evaluated):
            jobs.append({"index": index, **planned})
    request = {
        "folder": str(package.path),
        "digest": package.digest,
        "keys": [key.pem() for key in keys],
        "trusted": trusted,
        "threads": threads,
    }
    opened = {"engine_digest": "", "backend": "", "precision": ""}
    while jobs:
        for index, told in _run_child(request, jobs, opened):
            ended[index] = replace(blank(studies[index]), **told)
            on_done(sum(one is not None for one in ended))
        jobs = [job for job in jobs if ended[job["index"]] is None]
    return Ran(studies=tuple(one for one in ended if one is not None), **opened)


def _run_child(
    request: dict[str, Any], jobs: list[dict[str, Any]], opened: dict[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What one child tells of the studies, in their order; the one that it died of included.

    Raises:
        PackageError: It could not open the package.
    """
    done: list[tuple[int, dict[str, Any]]] = []
    begun: list[float] = []

    def listen(told: dict[str, Any]) -> None:
        if "backend" in told:
            opened.update(told)
        elif "begun" in told:
            begun.append(time.monotonic())
        else:
            done.append((told.pop("index"), told))

    wall_s = _START_S + sum(job["limit_s"] + 5 for job in jobs)
    limits = Limits(
        wall_s=wall_s, cpu_s=wall_s * request["threads"] + 60, memory_mb=_MEMORY_MB, address_space=False, open_files=256
    )
    try:
        answer = run_limited(_MODULE, {**request, "jobs": jobs}, limits, listen)
    except ChildError as error:
        if not begun:
            raise PackageError(f"{request['folder']} cannot be opened: {error}") from error
        yield from done
        if len(begun) > len(done):
            late = time.monotonic() - begun[-1] >= jobs[len(done)]["limit_s"]
            reason = Reason.TIMED_OUT if late or error.fault == "timeout" else Reason.FAILED
            yield jobs[len(done)]["index"], {"reason": str(reason), "detail": str(error)}
        return
    if "refused" in answer:
        raise PackageError(answer["refused"])
    yield from done


def blank(study: FoundStudy) -> Evaluated:
    """A study that nothing is known of yet."""
    return Evaluated(names=study.names, source=study.source, date=study.date, scores={})


def plan_inputs(manifest: Manifest, study: FoundStudy) -> Evaluated | dict[str, Any]:
    """The files of each input by the daemon's own routing, and the time for them; or how the study ends without."""
    revisions = [
        Revision(
            id=number,
            series_id=number,
            study_id=1,
            n=1,
            images=len(paths),
            header=header,
            ready_mono=0.0,
            last_image_mono=0.0,
            is_newest=True,
            routed=False,
            is_rebuilt=False,
        )
        for number, (header, paths) in enumerate(study.series)
    ]
    candidate = Candidate(manifest=manifest, role=Role.SILENT)
    times = Triage()
    plans, left_out = plan_study(
        revisions, [candidate], [], ct_deadline_s=times.ct_deadline_s, xray_deadline_s=times.xray_deadline_s
    )
    if not plans:
        why = ", ".join(dict.fromkeys(one.why for one in left_out))
        return replace(blank(study), reason=NOT_APPLICABLE, detail=why)
    (plan,) = plans
    if plan.ended is not None:
        return replace(blank(study), reason=str(plan.ended.reason), detail=plan.ended.detail)
    inputs = {}
    for role, number in plan.inputs.items():
        header, paths = study.series[number]
        inputs[role] = {"kind": series_kind(header), "files": [str(path) for path in paths]}
    return {"inputs": inputs, "limit_s": plan.deadline_s}


# -- in the child ------------------------------------------------------------------------------------------------------


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Be the child: open the package, then tell of one study after the other."""
    # The timer of the worker: the kernel ends a stuck call even if it never gives the interpreter back.
    from appliance.triage.worker import limited

    try:
        package = load_package(
            Path(request["folder"]),
            keys=[load_public(str(pem)) for pem in request["keys"]],
            trusted=bool(request["trusted"]),
        )
        if package.digest != request["digest"]:
            raise PackageError(f"{package.path} was altered while it was read; begin again")
        pipeline = Pipeline(package, threads=request["threads"])
        pipeline.warmup()
    except EngineError as error:
        return {"refused": str(error)}
    with pipeline:
        progress({"engine_digest": pipeline.digest, "backend": pipeline.backend, "precision": pipeline.precision})
        for job in request["jobs"]:
            progress({"begun": job["index"]})
            with limited(job["limit_s"]):
                told = _study(pipeline, job["inputs"])
            progress({"index": job["index"], **told})
    return {}


def _study(pipeline: Pipeline, inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One study: its scores, or the reason that the box would give."""
    from appliance.triage.workbench import decode_and_prepare, finish

    try:
        series = {
            role: [decode_and_prepare(Path(path), given["kind"], [pipeline]) for path in given["files"]]
            for role, given in inputs.items()
        }
        return {"scores": finish(series, pipeline).output.scores}
    except NotAnalysable as error:
        return {"reason": str(error.reason), "detail": str(error)}
    except ContentError as error:
        return {"reason": error.reason, "detail": str(error)}
    except (EngineError, OSError) as error:
        return {"reason": str(Reason.FAILED), "detail": str(error)}
