"""The child process that builds objects: highdicom is large and slow to load, and never enters the daemon."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydicom import config
from pydicom.dataset import Dataset

from appliance.records import DeliveryKind
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sources import Sources
from appliance.report.sr import build_sr

Progress = Callable[[dict[str, Any]], None]
Builder = Callable[[ReportRequest, Sources, dict[str, ReportCode]], Dataset]

_BUILDERS: dict[DeliveryKind, Builder] = {DeliveryKind.SR: build_sr}


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Build one object per job.

    Args:
        request: ``jobs``: list of ``ReportRequest.to_json``; ``codes``: name: {value, scheme, meaning}.
        progress: Told the number of jobs done after each.

    Returns:
        ``objects``, one per job in order: ``{"ms": float}``, or ``{"error": str}`` where it cannot be built.
    """
    codes = TypeAdapter(dict[str, ReportCode]).validate_python(request["codes"])
    adapter = TypeAdapter(ReportRequest)
    objects: list[dict[str, Any]] = []
    for job in request["jobs"]:
        begin = time.monotonic()
        try:
            _build(adapter.validate_python(job), codes)
        except Exception as error:  # noqa: BLE001 - a scanner's values enter highdicom here; the other jobs go on
            objects.append({"error": _words(error)})
        else:
            objects.append({"ms": (time.monotonic() - begin) * 1000})
        progress({"done": len(objects)})
    return {"objects": objects}


def _words(error: Exception) -> str:
    """What may stand in the journal: messages of libraries quote values, and values may be a patient's."""
    if isinstance(error, NotBuildable):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno} ({frame.name})"


def _build(request: ReportRequest, codes: dict[str, ReportCode]) -> None:
    # Identifiers of real scanners break their value representation; they must come out as they came in.
    with config.disable_value_validation():
        built = _BUILDERS[request.kind](request, Sources(request.images), codes)
        built.save_as(request.output_path, enforce_file_format=True)
