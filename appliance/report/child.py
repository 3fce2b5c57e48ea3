"""The child process that builds objects: highdicom is large and slow to load, and never enters the daemon."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydicom import config
from pydicom.dataset import Dataset

from appliance.records import DeliveryKind
from appliance.report.gsps import build_gsps
from appliance.report.kinds import PLACES, may_show_places
from appliance.report.ko import build_ko
from appliance.report.note import build_note
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sc import build_sc
from appliance.report.seg import build_seg
from appliance.report.sources import Sources
from appliance.report.sr import build_sr
from appliance.report.statement import build_statement

Progress = Callable[[dict[str, Any]], None]
Builder = Callable[[ReportRequest, Sources, dict[str, ReportCode]], Dataset]

#: In the order in which the objects of one analysis are built: a report names the segmentation that exists.
_BUILDERS: dict[DeliveryKind, Builder] = {
    DeliveryKind.SEG: build_seg,
    DeliveryKind.GSPS: build_gsps,
    DeliveryKind.KO: build_ko,
    DeliveryKind.SC: build_sc,
    DeliveryKind.SR: build_sr,
    DeliveryKind.REJECTION_NOTE: build_note,
}
_ORDER = [str(kind) for kind in (*_BUILDERS, DeliveryKind.STATEMENT)]
_REQUEST = TypeAdapter(ReportRequest)


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Build one object per job.

    Args:
        request: ``jobs``: list of ``ReportRequest.to_json``; ``codes``: name: {value, scheme, meaning}.
        progress: Told the number of jobs done after each.

    Returns:
        ``objects``, one per job in order: ``{"ms": float}``, or ``{"error": str}`` where it cannot be built.
    """
    codes = TypeAdapter(dict[str, ReportCode]).validate_python(request["codes"])
    jobs = list(enumerate(request["jobs"]))
    objects: list[dict[str, Any]] = [{} for _ in jobs]
    done = 0
    # The objects of one analysis stand side by side and rest on the same files, which are read once.
    for _, group in itertools.groupby(jobs, key=lambda job: (job[1]["images"], job[1]["masks_path"])):
        analysis = _Analysis(codes)
        for n, job in sorted(group, key=lambda job: _ORDER.index(job[1]["kind"])):
            objects[n] = analysis.build(job)
            done += 1
            progress({"done": done})
    return {"objects": objects}


class _Analysis:
    """The objects of one analysis, or of several of the same images, one after the other."""

    def __init__(self, codes: dict[str, ReportCode]) -> None:
        self._codes = codes
        self._sources: Sources | None = None
        #: SOP Instance UIDs of what could not be built.
        self._failed: set[str] = set()

    def build(self, job: dict[str, Any]) -> dict[str, Any]:
        begin = time.monotonic()
        try:
            request = _REQUEST.validate_python(job)
            if request.kind is DeliveryKind.STATEMENT:
                Path(request.output_path).write_text(json.dumps(build_statement(request)), "utf-8")
                return {"ms": (time.monotonic() - begin) * 1000}
            self._sources = self._sources or Sources(request.images, request.masks_path)
            siblings = {kind: uid for kind, uid in request.siblings.items() if uid not in self._failed}
            _write(dataclasses.replace(request, siblings=siblings), self._sources, self._codes)
        except Exception as error:  # noqa: BLE001 - a scanner's values enter highdicom here; the other jobs go on
            self._failed.add(job["sop_instance_uid"])
            return {"error": _words(error)}
        return {"ms": (time.monotonic() - begin) * 1000}


def _words(error: Exception) -> str:
    """What may stand in the journal: messages of libraries quote values, and values may be a patient's."""
    if isinstance(error, NotBuildable):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno} ({frame.name})"


def _write(request: ReportRequest, sources: Sources, codes: dict[str, ReportCode]) -> None:
    if request.kind in PLACES and not may_show_places(request.package.intended_use):
        raise NotBuildable(f"a triage package tells no place, and {request.kind} is nothing else")
    # Identifiers of real scanners break their value representation; they must come out as they came in.
    with config.disable_value_validation():
        built = _BUILDERS[request.kind](request, sources, codes)
        built.save_as(request.output_path, enforce_file_format=True)
