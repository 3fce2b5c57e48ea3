"""Rejection note (IHE RAD Imaging Object Change Management): which objects of ours hold no longer.

A Key Object Selection (PS3.3 A.35.4, TID 2010) under a title of CID 7010, in the study and under the patient that the
objects were sent for, so that it finds them there.
"""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import ko
from pydicom.dataset import Dataset

from appliance.records import DeliveryKind
from appliance.report.identity import empty_identity
from appliance.report.ko import KeyObjects
from appliance.report.maker import (
    coded,
    complete,
    device_observer,
    origin,
    permitted_use,
    reference,
    series_uid,
)
from appliance.report.request import NotBuildable, ReportCode, ReportObject, ReportRequest
from appliance.report.sources import Sources
from appliance.report.uids import derived_uid

#: What is referred to as an image; the others are composite objects (PS3.3 C.17.6.3).
_IMAGES = frozenset({DeliveryKind.SEG, DeliveryKind.SC})
_WORDS = "These objects tell a result that holds no longer. Do not use them."


def build_note(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> KeyObjects:
    """Build the rejection note of what a destination was sent of one analysis.

    Args:
        request: Names the objects; its identity is the one that they were built under.
        sources: Not read: the images may have left the box.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: It names nothing.
        ValueError: highdicom refuses a value; the message names it.
    """
    del sources
    if not request.rejected:
        raise NotBuildable("a rejection note must name an object")
    named = [_reference(request, one) for one in request.rejected]
    empty_identity(named[0])
    content = ko.KeyObjectSelection(
        # Of the four titles the only one that hides the objects wherever IOCM is honoured (docs/adr/0031).
        document_title=coded(codes["rejected_for_patient_safety_reasons"]),
        referenced_objects=named,
        observer_device_context=device_observer(request, codes),
        description=" ".join([*permitted_use(request), _WORDS]),
    )
    # A series of its own: archives hide a note together with what it names.
    told = {**origin(request, codes), "series_instance_uid": derived_uid("series", request.sop_instance_uid)}
    made = KeyObjects(evidence=named, content=content, **told)
    for item in made.ContentSequence:
        if item.ValueType in {"IMAGE", "COMPOSITE"}:
            # TID 2010 has no purpose of reference.
            del item.ConceptNameCodeSequence
    complete(made, request)
    return made


def _reference(request: ReportRequest, rejected: ReportObject) -> Dataset:
    ds = reference(
        request,
        sop_class_uid=rejected.sop_class_uid,
        sop_instance_uid=rejected.sop_instance_uid,
        series_instance_uid=series_uid(request, rejected.kind),
    )
    if rejected.kind in _IMAGES:
        # Only by its pixels highdicom knows an image; what it holds is not written.
        ds.Rows = ds.Columns = 1
    return ds
