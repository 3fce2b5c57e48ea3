"""When is a series whole? Decided from evidence; the timer is the last resort (DESIGN §1.4).

No DICOM attribute tells how many images a CT series will have, so the rule reads what arrived: how the association
ended, whether the numbers and positions leave a hole, whether the scanner is still sending.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from appliance.dicom.classes import SLICE_CLASSES
from appliance.dicom.geometry import SlicePlace, regular
from appliance.store.revisions import ImageEvidence, SeriesEvidence

_P99 = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The series is whole, by ``rule``."""

    rule: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet; look again at ``until_mono`` at the latest."""

    until_mono: float


def quiet_s(gaps_s: list[float], minimum_s: float, maximum_s: float) -> float:
    """How long a source must have been quiet: max(minimum, 5 x its p99 gap), at most the maximum."""
    if not gaps_s:
        return minimum_s
    ordered = sorted(gaps_s)
    p99 = ordered[min(len(ordered) - 1, math.ceil(_P99 * len(ordered)) - 1)]
    return min(max(minimum_s, 5 * p99), maximum_s)


def decide(evidence: SeriesEvidence, *, now_mono: float, quiet: float, longest: float = 0.0) -> Ready | Wait:
    """The rule of issue "From the scanner to the alert" §3; the first that holds wins.

    Args:
        evidence: What arrived.
        now_mono: The monotonic clock.
        quiet: ``quiet_s`` of the source.
        longest: How long to wait for images that the modality lists; at least ``quiet``.
    """
    images = evidence.images
    if evidence.sop_class_uid not in SLICE_CLASSES:
        return Ready(rule="single_image", facts={"images": len(images)})
    if evidence.rejected or not images or (evidence.taken_back and not any(image.is_new for image in images)):
        # A note took images back: what is left was whole, or nothing is left.
        return Ready(rule="rejected", facts={"images": len(images), "taken_back": evidence.taken_back})
    facts, is_awaited = _listed_facts(evidence), False
    if evidence.listed is not None:
        if not evidence.listed.missing and not evidence.listed.extra:
            return Ready(rule="mpps", facts=facts)
        if evidence.listed.missing and not evidence.listed.discontinued:
            quiet, is_awaited = max(quiet, longest), True
    newest = [image for image in images if image.is_new]
    carrier = newest[-1].association_id if newest else 0
    if (
        not is_awaited
        and evidence.associations.get(carrier) == "released"
        and sum(image.association_id == carrier for image in images) > 1
        and not evidence.peer_is_open
        and _numbers_are_contiguous(images)
        and _positions_are_regular(images)
    ):
        return Ready(rule="released", facts={"association": carrier, "contiguous": True, "regular": True, **facts})
    waited = now_mono - evidence.last_mono
    if waited >= quiet:
        ends = sorted({how or "open" for how in evidence.associations.values()})
        facts |= {
            "quiet_s": round(quiet, 3),
            "associations": ends,
            "contiguous": _numbers_are_contiguous(images),
            "regular": _positions_are_regular(images),
        }
        return Ready(rule="quiet", facts=facts)
    return Wait(until_mono=evidence.last_mono + quiet)


def _listed_facts(evidence: SeriesEvidence) -> dict[str, Any]:
    """What the modality lists, in counts; ``missing`` and ``discontinued`` are what routing acts on."""
    listed = evidence.listed
    if listed is None:
        return {}
    return {
        "listed": listed.images,
        "missing": listed.missing if not listed.discontinued else 0,
        "not_listed": listed.extra,
        "discontinued": listed.discontinued,
    }


def _numbers_are_contiguous(images: tuple[ImageEvidence, ...]) -> bool:
    """Instance Numbers 1..n, or k..k+n-1, each once. A series that starts late cannot be told from a whole one."""
    numbers = sorted(image.instance_number for image in images if image.instance_number is not None)
    return len(numbers) == len(images) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _positions_are_regular(images: tuple[ImageEvidence, ...]) -> bool:
    places = [
        SlicePlace(image.position, image.orientation)
        for image in images
        if image.position is not None and image.orientation is not None
    ]
    return len(places) == len(images) and regular(places)
