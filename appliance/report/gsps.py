"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): the places of the flagged findings as lines over the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from highdicom import PresentationLUTTransformation, pr
from highdicom.enum import PresentationLUTShapeValues
from pydicom.dataset import Dataset

from appliance.records import FindingResult, slice_id, split_id
from appliance.report.maker import (
    SHORT,
    WithoutIdentity,
    algorithm_uid,
    complete,
    in_short,
    origin,
    tracking_uid,
)
from appliance.report.places import Points, contours, outline
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sources import Sources

_NOT_FOR_DIAGNOSIS = "not for diagnosis"
#: Where a label stands from its place, in pixels.
_ABOVE = 4.0


class PresentationState(WithoutIdentity, pr.GrayscaleSoftcopyPresentationState):
    """A presentation state."""


@dataclass(slots=True)
class _Drawn:
    """What is drawn over one picture."""

    lines: list[tuple[FindingResult, Points]] = field(default_factory=list)


def build_gsps(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> PresentationState:
    """Build the presentation state of one analysis: contours where a finding has a mask, else its boxes and points.

    Args:
        request: What the analysis said, of whom, of which images.
        sources: These images, and the masks.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: No flagged finding has a place, the masks or an image cannot be read, or the places lie in images
            that one presentation state cannot show alike.
        ValueError: highdicom refuses a value; the message names it.
    """
    drawn = _drawn(request, sources)
    if not drawn:
        raise NotBuildable("no flagged finding has a place in an image that was analysed")
    images = {uid: sources.image(uid) for uid in dict.fromkeys(split_id(one)[0] for one in drawn)}
    _check_alike(images.values())
    layer = pr.GraphicLayer("SUSPECTED", order=1, description=f"Suspected findings, {_NOT_FOR_DIAGNOSIS}")
    first = next(iter(images.values()))
    made = PresentationState(
        referenced_images=list(images.values()),
        device_serial_number=algorithm_uid(request),
        content_label="SUSPECTED",
        content_description=in_short(request),
        graphic_layers=[layer],
        graphic_annotations=[
            _annotation(request, images[split_id(picture)[0]], split_id(picture)[1], one, layer)
            for picture, one in drawn.items()
        ],
        voi_lut_transformations=_window(request, first),
        presentation_lut_transformation=_polarity(first),
        **origin(request, codes),
    )
    # Type 2C where the body part may be one of a pair; the scanner knows better than we.
    made.Laterality = first.get("Laterality", "")
    complete(made, request)
    return made


def _drawn(request: ReportRequest, sources: Sources) -> dict[str, _Drawn]:
    """Per picture (slice id) the lines of all findings."""
    drawn: dict[str, _Drawn] = {}
    for finding in request.flagged:
        overlay = sources.overlays.get(finding.id)
        masks = dict(overlay.on_slices()) if overlay else {}
        for picture, mask in masks.items():
            drawn.setdefault(picture, _Drawn()).lines += [(finding, line) for line in contours(mask)]
        for region in finding.regions:
            picture = slice_id(region.sop_instance_uid, region.frame_number)
            if picture not in masks:
                drawn.setdefault(picture, _Drawn()).lines.append((finding, outline(region)))
    return drawn


def _check_alike(images: Iterable[Dataset]) -> None:
    """One displayed area, one polarity and one series for all."""
    alike = {(i.SeriesInstanceUID, i.Rows, i.Columns, i.PhotometricInterpretation) for i in images}
    if len(alike) > 1:
        raise NotBuildable(
            "the places lie in several series or in images of several sizes; one presentation state cannot show them"
        )


def _annotation(
    request: ReportRequest, image: Dataset, frame: int | None, drawn: _Drawn, layer: pr.GraphicLayer
) -> pr.GraphicAnnotation:
    """Everything over one picture: lines of each finding, and its name once."""
    edge = np.array([image.Columns, image.Rows], np.float64)
    lines: list[pr.GraphicObject] = []
    names: dict[str, tuple[str, Points]] = {}
    for finding, points in drawn.lines:
        title = request.declaration(finding.id).title
        inside = np.clip(points, 0.0, edge)
        lines.append(
            pr.GraphicObject(
                graphic_type=pr.GraphicTypeValues.POINT if len(inside) == 1 else pr.GraphicTypeValues.POLYLINE,
                graphic_data=inside,
                units=pr.AnnotationUnitsValues.PIXEL,
                tracking_id=title[:SHORT],
                tracking_uid=tracking_uid(request, finding.id),
            )
        )
        corner = np.clip(inside.min(axis=0) - _ABOVE, 0.0, edge)
        names.setdefault(finding.id, (f"{title} - {_NOT_FOR_DIAGNOSIS}", corner))
    return pr.GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=layer,
        referenced_frame_number=frame,
        graphic_objects=lines,
        text_objects=[
            pr.TextObject(
                text_value=text,
                units=pr.AnnotationUnitsValues.PIXEL,
                anchor_point=(float(corner[0]), float(corner[1])),
            )
            for text, corner in names.values()
        ],
    )


def _window(request: ReportRequest, image: Dataset) -> list[pr.SoftcopyVOILUTTransformation] | None:
    """Of a CT the package's window; an X-ray is shown as its own header says."""
    if image.get("Modality") != "CT":
        return None
    centre, width = request.window
    return [pr.SoftcopyVOILUTTransformation(window_center=centre, window_width=width)]


def _polarity(image: Dataset) -> PresentationLUTTransformation:
    """A presentation state knows no MONOCHROME1 (PS3.4 N.2): its images would be shown as negatives."""
    is_inverse = image.PhotometricInterpretation == "MONOCHROME1"
    shape = PresentationLUTShapeValues.INVERSE if is_inverse else PresentationLUTShapeValues.IDENTITY
    return PresentationLUTTransformation(presentation_lut_shape=shape)
