"""Segmentation (PS3.3 A.51), BINARY: the masks of the flagged findings on the slices that the scanner made.

LABELMAP would be smaller, but PACS and validators in use do not know it.
"""

from __future__ import annotations

from collections.abc import Mapping

import highdicom as hd
import numpy as np
from highdicom import seg
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from appliance.records import FindingResult, split_id
from appliance.report import uids
from appliance.report.maker import (
    MANUFACTURER,
    SHORT,
    WithoutIdentity,
    algorithm_uid,
    coded,
    complete,
    in_short,
    origin,
    tracking_uid,
)
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sources import Sources, orientation

#: Of one finding by slice id.
_Laid = dict[str, NDArray[np.bool_]]


class Segmentation(WithoutIdentity, seg.Segmentation):
    """A BINARY segmentation."""


def segmented(request: ReportRequest, sources: Sources) -> list[FindingResult]:
    """The flagged findings that have a mask: segment n is the n-th of them.

    Raises:
        NotBuildable: The masks cannot be read.
    """
    return [f for f in request.flagged if f.id in sources.overlays and sources.overlays[f.id].mask.any()]


def build_seg(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> Segmentation:
    """Build the segmentation of one analysis: one segment per flagged finding with a mask.

    Args:
        request: What the analysis said, of whom, of which images.
        sources: These images, and the masks.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: There is no mask of a flagged finding, the masks or an image cannot be read, the images do not say
            where they lie, or the masks lie on images that one object cannot hold.
        ValueError: highdicom refuses a value; the message names it.
    """
    findings = segmented(request, sources)
    masks: list[_Laid] = [dict(sources.overlays[finding.id].on_slices()) for finding in findings]
    # In the order of the stack, which every overlay keeps.
    slice_ids = [
        one.slice_id
        for one in (sources.overlays[findings[0].id].slices if findings else ())
        if any(one.slice_id in laid for laid in masks)
    ]
    others = {slice_id for laid in masks for slice_id in laid} - set(slice_ids)
    slice_ids += sorted(others)
    if not slice_ids:
        raise NotBuildable("no flagged finding has a mask over an image that was analysed")
    images, pixels = _stacked(slice_ids, masks, sources)
    made = Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(n, finding, request, codes) for n, finding in enumerate(findings, 1)],
        device_serial_number=algorithm_uid(request),
        content_label="SUSPECTED",
        content_description=in_short(request),
        omit_empty_frames=True,
        **origin(request, codes),
    )
    if "FrameOfReferenceUID" not in made:
        # Type 2C where no plane says it (PS3.3 C.7.6.1).
        made.PatientOrientation = orientation(images[0])
    _settle_dimensions(made)
    complete(made, request)
    return made


def _stacked(slice_ids: list[str], masks: list[_Laid], sources: Sources) -> tuple[list[Dataset], NDArray[np.uint8]]:
    """Source images, and [frame, row, column, segment]: of a multi-frame object all frames, as highdicom wants them."""
    places = [split_id(slice_id) for slice_id in slice_ids]
    images = [_source(sources, uid) for uid in dict.fromkeys(uid for uid, _ in places)]
    first = images[0]
    same = {(image.SeriesInstanceUID, image.Rows, image.Columns) for image in images}
    is_multi_frame = places[0][1] is not None
    # Pixels alone, as of X-rays, say of one image at most where they lie.
    if len(same) > 1 or (len(images) > 1 and (is_multi_frame or "FrameOfReferenceUID" not in first)):
        raise NotBuildable("the masks lie on several X-rays, series or sizes of image; one SEG cannot hold them")
    if "ImagePositionPatient" in first:
        _complete_measures(images)
    frames = int(first.NumberOfFrames) if is_multi_frame else len(images)
    pixels = np.zeros((frames, first.Rows, first.Columns, len(masks)), np.uint8)
    for n, (slice_id, (_, frame)) in enumerate(zip(slice_ids, places, strict=True)):
        for segment, laid in enumerate(masks):
            if slice_id in laid:
                pixels[n if frame is None else frame - 1, :, :, segment] = laid[slice_id]
    return images, pixels


def _source(sources: Sources, uid: str) -> Dataset:
    image = sources.image(uid)
    if "ImagePositionPatient" not in image and "PerFrameFunctionalGroupsSequence" not in image:
        # An X-ray may have a frame of reference; a mask over it has no place in it, only pixels.
        image.pop("FrameOfReferenceUID", None)
        for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
            if keyword in image and not all(value > 0 for value in image[keyword].value or (0,)):
                del image[keyword]
    elif "FrameOfReferenceUID" not in image:
        raise NotBuildable("the images have no Frame of Reference UID; a segmentation could not say where it lies")
    return image


def _complete_measures(images: list[Dataset]) -> None:
    """Slice Thickness may be empty in a CT and must not be in a segmentation: then it is how far slices lie apart."""
    for image in images:
        if image.get("SliceThickness"):
            continue
        away = abs(float(image.get("SpacingBetweenSlices") or 0))
        if not away and len(images) > 1:
            one, other = (np.asarray(each.ImagePositionPatient, np.float64) for each in images[:2])
            away = float(np.linalg.norm(other - one))
        if not away:
            raise NotBuildable("the image has no Slice Thickness; a segmentation must name one")
        image.SliceThickness = away


def _segment(
    number: int, finding: FindingResult, request: ReportRequest, codes: Mapping[str, ReportCode]
) -> seg.SegmentDescription:
    declared = request.declaration(finding.id)
    return seg.SegmentDescription(
        segment_number=number,
        segment_label=declared.title[:SHORT],
        # It says no more than that this is a place: whether anything is wrong there, a person says.
        segmented_property_category=coded(codes["spatial_concept"]),
        segmented_property_type=coded(declared.code),
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=request.package.name,
            family=coded(codes["artificial_intelligence"]),
            version=request.package_version,
            source=MANUFACTURER,
        ),
        tracking_id=declared.title[:SHORT],
        tracking_uid=tracking_uid(request, finding.id),
        anatomic_regions=[coded(declared.site)] if declared.site else None,
    )


def _settle_dimensions(ds: Dataset) -> None:
    """Built again it must be the same object; highdicom draws this UID anew each time."""
    settled = uids.dimension_uid(ds.SOPInstanceUID)
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = settled
