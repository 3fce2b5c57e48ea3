"""How long the objects of one analysis of a 300-slice CT take to build: SR, SEG, KO and SC in one fresh child."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.rows import ROOT, Bench, Row

_BOUND_S = 1.5
_SLICES = 300
_MATRIX = 512
#: Slices that the mask meets, and its radius in pixels: a bleed of 60 ml in slices of 0.5 mm.
_MASKED, _RADIUS = 90, 80


def measure(bench: Bench) -> list[Row]:
    """Build four objects of a finding with a mask over 90 slices, again and again, each time in a new child."""
    document = _document(bench.new_folder("report"), bench.size(_SLICES, least=_MASKED + 1))
    from appliance.deliver.build import LIMITS
    from engines.child import run_limited

    built, whole = [], []
    for _ in range(bench.size(10)):
        begun = time.perf_counter()
        answers = run_limited("appliance.report.child", document, LIMITS)["objects"]
        whole.append(time.perf_counter() - begun)
        built.append(sum(answer["ms"] for answer in answers) / 1000)
    median = statistics.median(built)
    last = {job["kind"]: round(answer["ms"]) for job, answer in zip(document["jobs"], answers, strict=True)}
    return [
        Row(
            name="report",
            figure=f"SR, SEG, KO and SC of a CT of {_SLICES} slices, built in the child",
            measured=f"{median:.2f} s (most {max(built):.2f} s, n={len(built)}); with the child's start"
            f" {statistics.median(whole):.2f} s",
            bound=f"{_BOUND_S:g} s",
            ok=median <= _BOUND_S,
            details={"seconds": [round(one, 3) for one in built], "ms": last},
        )
    ]


def _document(folder: Path, slices: int) -> dict[str, Any]:
    """What the report stage would ask the child."""
    sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tools" / "models")]
    import cv2
    import numpy as np
    import report_kit
    from pydicom import dcmread

    from appliance.records import AnalysisResult, DeliveryKind, FindingResult, Measurement, Outcome, Region
    from appliance.report.request import ReportPackage
    from appliance.simulate.dicomize import ct_series, save
    from appliance.simulate.study import Study
    from engines.overlay import Laying, Overlay, pack
    from engines.package import bundled_packages, load_package

    (path,) = save(ct_series(report_kit.ball_phantom(slices=1)[0], Study(seed="bench/report")), folder)
    ds, files = dcmread(path), []
    ds.Rows = ds.Columns = _MATRIX
    for n in range(slices):
        # The child reads no pixels; the first file alone must be whole for its header to be taken.
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n + 1}"
        ds.ImagePositionPatient, ds.PixelData = [0, 0, n / 2], bytes(2 if n else 2 * _MATRIX**2)
        files.append(folder / f"{n}.dcm")
        ds.save_as(files[-1])
    first = (slices - _MASKED) // 2
    y, x = np.mgrid[:_MATRIX, :_MATRIX] - _MATRIX // 2
    mask = np.broadcast_to(x**2 + y**2 < _RADIUS**2, (_MASKED, _MATRIX, _MATRIX))
    layings = tuple(
        Laying(slice_id=f"1.2.3.{first + k + 1}", shape=mask.shape[1:], index=k, row=(0.0, 1.0), column=(0.0, 1.0))
        for k in range(_MASKED)
    )
    manifest = load_package(bundled_packages()["head-ct-hyperdensity"]).manifest
    (finding,) = manifest.findings
    (folder / "m.npz").write_bytes(pack({finding.id: Overlay(mask=mask, slices=layings)}))
    (folder / "p.png").write_bytes(cv2.imencode(".png", np.full((_MATRIX, _MATRIX, 3), 90, np.uint8))[1])
    keys = tuple(f"1.2.3.{first + _MASKED // 2 + k}" for k in range(3))
    box = ((176.0, 176.0), (336.0, 336.0))
    result = AnalysisResult(
        outcome=Outcome.FINDING,
        findings=(
            FindingResult(
                id=finding.id,
                score=60.0,
                operating_point=finding.default_point.name,
                threshold=finding.default_point.threshold,
                flagged=True,
                category=finding.category,
                measurements=(Measurement(name="volume", value=60.0, unit="ml"),),
                key_instances=keys,
                regions=tuple(Region(sop_instance_uid=uid, kind="box", points=box) for uid in keys),
            ),
        ),
        pictures=("p.png",),
        masks="m.npz",
    )
    kinds = [DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.KO, DeliveryKind.SC]
    requests = report_kit.requests_for(
        ReportPackage.from_manifest(manifest), result, files, folder / "out", spool_root=folder, kinds=kinds
    )
    return {"jobs": [one.to_json() for one in requests.values()], "codes": report_kit.CODES}
