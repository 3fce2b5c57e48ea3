"""What the objects that the box creates hold: built from phantoms by the code that ships, then read back."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from appliance.deliver.build import SOP_CLASSES
from appliance.dicom import codes
from appliance.dicom.headers import read_header
from appliance.records import (
    AnalysisResult,
    DeliveryKind,
    Detail,
    FindingResult,
    Measurement,
    Outcome,
    Reason,
    Region,
)
from appliance.report import child
from appliance.report.kinds import PLACES, applies, key_picture
from appliance.report.request import (
    ReportCode,
    ReportFinding,
    ReportImage,
    ReportMeasurement,
    ReportObject,
    ReportPackage,
    ReportPredecessor,
    ReportRequest,
)
from appliance.simulate.dicomize import ct_series, save, xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Order, Patient, Study
from engines.manifest import Manifest
from engines.overlay import Laying, Overlay, pack

OBJECTS = (DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.KO, DeliveryKind.SC)
_LONGEST = 48
_CODE = {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}
_PLACE = Region(sop_instance_uid="1.2.3", kind="box", points=((1.0, 1.0), (2.0, 2.0)))
#: Shown as a tree.
_NOT_WALKED = frozenset({"ContentSequence"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One analysis, its objects as they were sent, and the first of its images."""

    name: str
    objects: Mapping[DeliveryKind, Dataset]
    image: Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribute:
    """One attribute over all samples of an object."""

    name: str
    tag: str
    vr: str
    depth: int
    presence: str
    value: str


# -- samples ---------------------------------------------------------------------------------------------------------


def samples() -> list[Sample]:
    """CT and X-ray, with places and without, urgent or not, not flagged, not analysed, corrected, in both modes.

    They differ in every value that comes from elsewhere: what is the same in all of them is fixed.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return [
            _sample(root, "located finding", side=96, use="detection", evaluation=True, corrected=True),
            _sample(root, "located finding again", side=72, use="detection"),
            _sample(root, "X-ray", side=80, use="detection", is_ct=False, status="research", corrected=True),
            _sample(root, "triage finding", side=64, use="triage", status="cleared"),
            _sample(root, "nothing flagged", side=48, use="triage", outcome=Outcome.NOTHING_FLAGGED),
            _sample(root, "not analysed", side=56, use="detection", outcome=Outcome.NOT_ANALYSED),
        ]


def _sample(
    root: Path,
    name: str,
    *,
    side: int,
    use: str,
    outcome: Outcome = Outcome.FINDING,
    is_ct: bool = True,
    status: str = "demonstrator",
    evaluation: bool = False,
    corrected: bool = False,
) -> Sample:
    folder = root / name
    files = _images(folder, _study(name, side), side, is_ct=is_ct)
    uids = [str(dcmread(one, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for one in files]
    image, header = dcmread(files[0], stop_before_pixels=True), read_header(files[0])
    result = _result(folder, outcome, uids, side)
    kinds = [kind for kind in OBJECTS if applies(kind, use, result)]
    minted = {kind: f"2.25.{side}{n}" for n, kind in enumerate(kinds)}
    shown = key_picture(result)
    earlier = ReportPredecessor(sop_instance_uid=f"2.25.1{side}", study_instance_uid=f"2.25.2{side}")
    requests = {
        kind: ReportRequest(
            kind=kind,
            sop_instance_uid=minted[kind],
            predecessors=(earlier,) * corrected,
            output_path=str(folder / f"{kind}.dcm"),
            package=_package(use, status, side),
            package_version=f"1.0.{side}",
            box_version=f"0.{side}",
            result=result,
            late=corrected,
            evaluation=evaluation,
            done_at=datetime(2026, 3, side % 28 + 1, 5, side % 60, 7, tzinfo=timezone.utc),
            identity=dataclasses.replace(header.identity, issuer_of_patient_id=f"Issuer {side}" if corrected else ""),
            study_description=f"Study {side}",
            study_date=header.study_date,
            study_time=header.study_time,
            patient_age=header.patient_age if corrected else "",
            modality=header.modality,
            images=tuple(
                ReportImage(sop_instance_uid=uid, series_instance_uid=str(image.SeriesInstanceUID), path=str(one))
                for uid, one in zip(uids, files, strict=True)
            ),
            picture_path="" if shown is None else str(folder / result.pictures[shown]),
            masks_path=str(folder / result.masks) if result.masks else "",
            window=(40.0 + side, 80.0 + side),
            siblings={other: uid for other, uid in minted.items() if other is not kind},
            procedure=f"Procedure {side}" if corrected else "",
        )
        for kind in kinds
    }
    if requests.keys() >= PLACES:
        requests[DeliveryKind.REJECTION_NOTE] = _note(requests, folder, side)
    table = {key: {"value": c.code, "scheme": c.scheme, "meaning": c.meaning} for key, c in codes.table().items()}
    jobs = {"jobs": [request.to_json() for request in requests.values()], "codes": table}
    failed = [answer["error"] for answer in child.handle(jobs, lambda _: None)["objects"] if "error" in answer]
    if failed:
        msg = f"sample {name!r}: {failed[0]}"
        raise RuntimeError(msg)
    objects = {kind: dcmread(request.output_path) for kind, request in requests.items()}
    return Sample(name=name, image=image, objects=objects)


def _note(requests: Mapping[DeliveryKind, ReportRequest], folder: Path, side: int) -> ReportRequest:
    """About all that was sent, as after a corrected patient."""
    rejected = [
        ReportObject(kind=kind, sop_class_uid=SOP_CLASSES[kind], sop_instance_uid=request.sop_instance_uid)
        for kind, request in requests.items()
    ]
    return dataclasses.replace(
        requests[DeliveryKind.SR],
        kind=DeliveryKind.REJECTION_NOTE,
        sop_instance_uid=f"2.25.{side}9",
        predecessors=(),
        output_path=str(folder / "note.dcm"),
        patient_age="",
        images=(),
        picture_path="",
        masks_path="",
        siblings={},
        procedure="",
        rejected=tuple(rejected),
    )


def _study(name: str, side: int) -> Study:
    patient = Patient(
        patient_id=f"ID {side}",
        name=f"{name}^Patient",
        birth_date=f"19{side}0101",
        sex="MFO"[side // 8 % 3],
        age=f"0{side}Y",
    )
    order = Order(
        accession_number=f"A{side}",
        study_id=f"S{side}",
        requested_procedure_id=f"P{side}",
        referring_physician_name=f"Doctor {side}",
        study_date=f"202601{side // 8 + 10}",
        study_time=f"08{side % 60:02}00",
    )
    return Study(seed=name, patient=patient, order=order)


def _images(folder: Path, study: Study, side: int, *, is_ct: bool) -> list[Path]:
    if is_ct:
        lean = np.radians(side / 8)
        phantom = Phantom(
            kind="head_ct",
            pixels=np.zeros((3, side, side), np.int16),
            spacing_mm=(side / 80, side / 80),
            positions_mm=tuple((float(side), 0.0, side / 20 * n) for n in range(3)),
            orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(lean)), float(-np.sin(lean))),
            thickness_mm=side / 20,
            instance_numbers=(1, 2, 3),
        )
        images = ct_series(phantom, study)
    else:
        grey = np.tile(np.arange(side, dtype=np.uint16) * 40, (side, 1))
        phantom = Phantom(kind="chest_xray", pixels=grey, spacing_mm=(side / 40, side / 40))
        images = [xray(phantom, study, photometric="MONOCHROME1")]
    for ds in images:
        ds.RescaleSlope = str(side)
        ds.Laterality = "LR"[side // 8 % 2]
        ds.PositionReferenceIndicator = f"Mark {side}"
    return save(images, folder)


def _package(use: str, status: str, side: int) -> ReportPackage:
    def named(key: str) -> ReportCode:
        code = codes.get(key)
        return ReportCode(value=code.code, scheme=code.scheme, meaning=code.meaning)

    name, n = f"sample-{side}", side // 8 % 3
    finding = ReportFinding(
        id="finding",
        code=named(("hemorrhage", "pleural_effusion", "nodule")[n]),
        title=f"Suspected finding of {name}",
        category=1,
        site=named(("brain", "lung", "head")[n]),
        measurements=(ReportMeasurement(name="volume", code=named("volume")),),
    )
    return ReportPackage(
        name=name,
        title=f"Title of {name}",
        status=status,
        intended_use=use,
        looked_for="What it looks for.",
        not_looked_for="What it does not look for.",
        findings=(finding,),
    )


def _result(folder: Path, outcome: Outcome, uids: Sequence[str], side: int) -> AnalysisResult:
    if outcome is Outcome.NOT_ANALYSED:
        details = (Detail("slices 12 to 19 are missing"),)
        return AnalysisResult(outcome=outcome, reason=Reason.INCOMPLETE, details=details)
    begin, end = side // 4, side // 2
    mask = np.zeros((1, side, side), bool)
    mask[0, begin:end, begin:end] = True
    # The last image has no mask but a point.
    masked = uids[:-1] if len(uids) > 1 else uids
    slices = tuple(Laying(slice_id=uid, shape=(side, side), index=0, row=(0, 1), column=(0, 1)) for uid in masked)
    shape = (side * 20, side * 20, 3) if side % 3 else (side, side)
    (folder / "picture.png").write_bytes(cv2.imencode(".png", np.full(shape, 90, np.uint8))[1].tobytes())
    (folder / "masks.npz").write_bytes(pack({"finding": Overlay(mask=mask, slices=slices)}))
    flagged = outcome is Outcome.FINDING
    places = (
        Region(sop_instance_uid=uids[0], kind="box", points=((begin, begin), (end, end))),
        Region(sop_instance_uid=uids[-1], kind="point", points=((begin, end),)),
    )
    finding = FindingResult(
        id="finding",
        score=0.9 if flagged else 0.1,
        operating_point="default",
        threshold=0.5,
        flagged=flagged,
        category=1,
        measurements=(Measurement(name="volume", value=float(side), unit="ml", sd=1.0),) * flagged,
        key_instances=(uids[0],),
        regions=places if flagged else (),
    )
    return AnalysisResult(
        outcome=outcome,
        findings=(finding,),
        package_digest=f"{side}" * 32,
        engine_digest=f"{side}" * 32,
        backend="onnxruntime",
        precision="fp32",
        pictures=("picture.png",),
        masks="masks.npz",
    )


def when() -> list[list[str]]:
    """Which objects tell of which result, asked of the rule itself: a row a result, a column an object."""
    finding = FindingResult(
        id="finding", score=0.9, operating_point="default", threshold=0.5, flagged=True, category=1, regions=(_PLACE,)
    )
    shown = {"outcome": Outcome.FINDING, "findings": (finding,), "pictures": ("picture.png",), "masks": "masks.npz"}
    plain = dataclasses.replace(finding, category=3, regions=())
    results = {
        "flagged, category 1 or 2; place, mask and key picture": AnalysisResult(**shown),
        "flagged, category 1 or 2; place and key picture": AnalysisResult(**{**shown, "masks": None}),
        "flagged, category 3; neither place nor picture": AnalysisResult(outcome=Outcome.FINDING, findings=(plain,)),
        "nothing flagged": AnalysisResult(outcome=Outcome.NOTHING_FLAGGED),
        "not analysed": AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED),
    }
    uses = get_args(Manifest.model_fields["intended_use"].annotation)
    rows = []
    for name, result in results.items():
        sent = {kind: [use for use in uses if applies(kind, use, result)] for kind in OBJECTS}
        cells = ["every package" if len(found) == len(uses) else ", ".join(found) for found in sent.values()]
        rows.append([name, *cells])
    return rows


# -- attributes ------------------------------------------------------------------------------------------------------


def attributes(kind: DeliveryKind, found: Sequence[Sample]) -> list[Attribute]:
    """Every attribute that an object of this kind holds in any sample, in the order of tags, sequences walked."""
    told = [(sample, sample.objects[kind]) for sample in found if kind in sample.objects]
    return list(_walk([[ds] for _, ds in told], [sample.image for sample, _ in told], 0))


def _walk(levels: Sequence[Sequence[Dataset]], images: Sequence[Dataset], depth: int) -> Iterator[Attribute]:
    """One level of all samples: per sample the data sets that stand at this place."""
    present = [ds for level in levels for ds in level]
    for tag in sorted({element.tag for ds in present for element in ds}):
        holders = [[ds[tag] for ds in level if tag in ds] for level in levels]
        elements = [element for one in holders for element in one]
        first = elements[0]
        items = [item for element in elements for item in element.value] if first.VR == "SQ" else []
        is_code = bool(items) and all({element.keyword for element in item} == _CODE for item in items)
        value = "" if depth or first.VR == "SQ" else _copied(first, elements, images)
        if is_code and all(item == items[0] for item in items):
            value = concept(items[0])
        elif not value and sum(map(bool, holders)) > 1:
            value = _same(elements)
        yield Attribute(
            name=first.name,
            tag=f"({tag.group:04X},{tag.element:04X})",
            vr=str(first.VR),
            depth=depth,
            presence=_presence(
                is_always=all(tag in ds for ds in present), filled=[not element.is_empty for element in elements]
            ),
            value=value,
        )
        if items and not is_code and first.keyword not in _NOT_WALKED:
            below = [[item for element in one for item in element.value] for one in holders]
            yield from _walk(below, images, depth + 1)


def _presence(*, is_always: bool, filled: Sequence[bool]) -> str:
    """The terms of PS3.2: ALWAYS, VNAP (value not always present), EMPTY, ANAP (attribute not always present)."""
    if not any(filled):
        return "EMPTY"
    if not is_always:
        return "ANAP"
    return "ALWAYS" if all(filled) else "VNAP"


def _same(elements: Sequence[DataElement]) -> str:
    """The value, where it is the same in every sample and says anything."""
    first = elements[0]
    if first.VR in {"SQ", "OB", "OW", "UN"} or first.is_empty or any(one.value != first.value for one in elements):
        return ""
    value: Any = first.value
    if first.VR == "UI":
        name = getattr(value, "name", str(value))
        return name if name != str(value) else ""
    shown = "\\".join(map(str, value)) if first.VM > 1 else str(value)
    return shown if len(shown) <= _LONGEST else ""


def _copied(first: DataElement, elements: Sequence[DataElement], images: Sequence[Dataset]) -> str:
    """Whether the value is that of the first analysed image in every sample, and not the same in all."""
    values = {str(element.value) for element in elements}
    is_copy = len(elements) == len(images) and all(
        str(image.get(first.keyword)) == str(element.value) for image, element in zip(images, elements, strict=True)
    )
    return "of the images" if is_copy and len(values) > 1 else ""


# -- content trees ---------------------------------------------------------------------------------------------------


def tree(ds: Dataset) -> list[str]:
    """The content tree of a structured report, a line an item; what repeats is told once."""
    title = concept(ds.ConceptNameCodeSequence[0])
    (template,) = [item.TemplateIdentifier for item in ds.ContentTemplateSequence]
    return [f"CONTAINER {title}, TID {template}", *_items(ds, 1)]


def _items(ds: Dataset, depth: int) -> list[str]:
    blocks: dict[tuple[str, ...], int] = {}
    for item in ds.get("ContentSequence", ()):
        block = ("  " * depth + _line(item), *_items(item, depth + 1))
        blocks[block] = blocks.get(block, 0) + 1
    lines: list[str] = []
    for (first, *others), count in blocks.items():
        lines += [first + (f"  (x {count})" if count > 1 else ""), *others]
    return lines


def _line(item: Dataset) -> str:
    name = concept(item.ConceptNameCodeSequence[0]) if item.get("ConceptNameCodeSequence") else ""
    value = ""
    if item.ValueType == "CODE":
        value = f"= {concept(item.ConceptCodeSequence[0])}"
    elif item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
        value = f"in {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue}"
    elif item.ValueType in {"SCOORD", "SCOORD3D"}:
        value = item.GraphicType
    template = [f"TID {one.TemplateIdentifier}" for one in item.get("ContentTemplateSequence", ())]
    relation = item.RelationshipType
    return " ".join(part for part in (f"{relation}: {item.ValueType}", name, value, *template) if part)


def concept(item: Dataset) -> str:
    """A code as PS3.16 writes it."""
    return f"({item.CodeValue}, {item.CodingSchemeDesignator}, {item.CodeMeaning})"
