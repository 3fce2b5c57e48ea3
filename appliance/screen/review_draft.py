"""A draft of a review as a page posts it, checked: nothing of it is taken on trust but that somebody looked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from appliance.dicom import codes
from appliance.dicom.headers import read_header
from appliance.errors import RejectedInstance
from appliance.records import Presence, Region, ReviewDecision, ReviewReason, Side
from appliance.store import Store
from appliance.store.review_rules import Answer, Draft
from appliance.store.reviews import ELSEWHERE, Reading

#: What a person may say is there, besides the package's own findings; names in ``codes.yaml``.
FINDING_CODES = ("intracranial_hemorrhage", "hemorrhage", "pneumothorax", "pleural_effusion", "nodule", "opacity")
OPINIONS = ("suspicious", "nothing", "unsure")
_PICTURE = re.compile(r"([1-9]\d{0,17})\.([1-9]\d{0,5})")
_MOST_ANSWERS = 40
_MOST_SEEN = 100_000


def draft_of(store: Store, study_id: int, given: Mapping[str, Any]) -> Draft:
    """What the page says; reads a header for every region.

    Raises:
        HTTPException: 400, a value is of another kind than the page would send.
    """
    try:
        decision = ReviewDecision(given.get("decision"))
        reason = ReviewReason(given["reason"]) if given.get("reason") else None
    except ValueError as error:
        raise HTTPException(400, f"decision and reason come from closed lists: {error}") from error
    answers = given.get("answers", [])
    if not isinstance(answers, list) or len(answers) > _MOST_ANSWERS:
        raise HTTPException(400, f"answers are a list of at most {_MOST_ANSWERS}")
    is_amended = decision is ReviewDecision.AMEND
    return Draft(
        decision=decision,
        reason=reason if decision is ReviewDecision.DISAGREE else None,
        note=str(given.get("note", "")).strip(),
        answers=tuple(_answer(store, study_id, one) for one in answers) if is_amended else (),
    )


def reading_of(given: Mapping[str, Any]) -> Reading:
    """How the page says that it was read.

    Raises:
        HTTPException: 400.
    """
    seen, opinion = given.get("seen", {}), str(given.get("opinion", ""))
    if not isinstance(seen, dict) or len(seen) > _MOST_ANSWERS or opinion not in {"", *OPINIONS}:
        raise HTTPException(400, "tell what was seen as numbers by series, and an opinion of the list")
    found = {}
    for series, count in seen.items():
        if (series != ELSEWHERE and not str(series).isdecimal()) or type(count) is not int:
            raise HTTPException(400, "tell what was seen as numbers by series")
        found[str(series)[:18]] = min(max(count, 0), _MOST_SEEN)
    return Reading(seen=found, opinion=opinion)


def _answer(store: Store, study_id: int, given: Any) -> Answer:
    if not isinstance(given, dict) or type(given.get("analysis")) is not int:
        raise HTTPException(400, "an answer names its analysis by number")
    code, category = str(given.get("code", "")), given.get("category")
    if code and code not in FINDING_CODES:
        raise HTTPException(400, "a finding of no package comes from the list of codes")
    if category is not None and type(category) is not int:
        raise HTTPException(400, "the category is a number")
    try:
        presence = Presence(given.get("presence", Presence.PRESENT))
        side = Side(given["side"]) if given.get("side") else None
    except ValueError as error:
        raise HTTPException(400, f"presence and side come from closed lists: {error}") from error
    return Answer(
        analysis_id=given["analysis"],
        finding=str(given.get("finding", ""))[:64],
        presence=presence,
        added=given.get("added") is True,
        code=code,
        side=side,
        category=category,
        region=_region(store, study_id, given["region"]) if given.get("region") else None,
    )


def _region(store: Store, study_id: int, given: Any) -> Region:
    """A box as the viewer tells it: picture, and left, top, width, height in pixels of the image."""
    if not isinstance(given, dict) or type(given.get("series")) is not int:
        raise HTTPException(400, "a region names its series and picture")
    named = _PICTURE.fullmatch(str(given.get("picture", "")))
    file = store.images.file(study_id, given["series"], int(named[1])) if named else None
    if named is None or file is None or file.is_gone:
        raise HTTPException(400, "a region lies in an image of this study that is here")
    try:
        header = read_header(store.spool.path(file.path))
    except (RejectedInstance, OSError) as error:
        raise HTTPException(400, "the image of a region cannot be read") from error
    x, y, w, h = _numbers([given.get(name) for name in "xywh"])
    rows, columns, frames = header.rows or 0, header.columns or 0, header.number_of_frames or 1
    is_inside = x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= columns and y + h <= rows
    if not is_inside or int(named[2]) > frames:
        raise HTTPException(400, "a region lies inside its image")
    return Region(
        sop_instance_uid=file.sop_instance_uid,
        kind="box",
        # Pixel centres counted from 0 (records.Region): the last pixel is one less than the edge.
        points=((x, y), (x + w - 1, y + h - 1)),
        frame_number=int(named[2]) if header.number_of_frames is not None and frames > 1 else None,
    )


def _numbers(given: Sequence[Any]) -> list[float]:
    if not all(type(one) in {int, float} and math.isfinite(one) for one in given):
        raise HTTPException(400, "a region is four numbers")
    return [float(one) for one in given]


def code_text(name: str) -> dict[str, str]:
    """A concept of the table in both languages."""
    code = codes.table().get(name)
    return {"en": code.meaning, "zh_Hans": code.zh} if code else {"en": name, "zh_Hans": name}
