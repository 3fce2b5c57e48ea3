"""Rejection notes: Key Object Selections that take images back (IHE RAD Imaging Object Change Management)."""

from __future__ import annotations

import re

from appliance.dicom.attributes import Attributes
from appliance.dicom.classes import KEY_OBJECT_SELECTION
from appliance.records import Rejection, RejectionTitle

_CONCEPT_NAME, _CONTENT = 0x0040A043, 0x0040A730
_CODE_VALUE, _CODING_SCHEME = 0x00080100, 0x00080102
_REFERENCED_SOP_INSTANCE_UID = 0x00081155
_TITLES = {str(title): title for title in RejectionTitle}
_UID = re.compile(r"[0-9.]{1,64}")


def read_rejection(attributes: Attributes, sop_class_uid: str) -> Rejection | None:
    """What an object rejects; None for every object that is no rejection note.

    The items of the content tree count, which a note must have (PS3.16 TID 2010); the evidence list beside it may name
    more than the person selected.

    Args:
        attributes: The top level of the data set.
        sop_class_uid: Its SOP Class.

    Raises:
        RejectedInstance: One of its sequences cannot be read.
    """
    if sop_class_uid != KEY_OBJECT_SELECTION:
        return None
    named = attributes.items(_CONCEPT_NAME)
    title = _TITLES.get(named[0].ascii(_CODE_VALUE)) if named else None
    if title is None or named[0].ascii(_CODING_SCHEME) != "DCM":
        return None
    references = (item.ascii(_REFERENCED_SOP_INSTANCE_UID) for item in attributes.items(_CONTENT))
    uids = tuple(dict.fromkeys(uid for uid in references if _UID.fullmatch(uid)))
    return Rejection(title=title, sop_instance_uids=uids) if uids else None
