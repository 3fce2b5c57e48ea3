"""Facts of what people judged, and of labels that left the box. Their own words stand in the row, never here."""

from __future__ import annotations

from appliance.records import ReviewDecision, ReviewReason
from appliance.store.facts.kinds import Body, Kind


class ReviewAsked(Body):
    """Somebody wants a radiologist's word on a study."""

    kind = Kind.REVIEW_ASKED


class ReviewSampled(Body):
    """Chance chose a study of which nothing was flagged, so that misses are counted."""

    kind = Kind.REVIEW_SAMPLED
    share: float


class ReviewSigned(Body):
    """A radiologist signed a version. ``seen``: how many images of each series the page says were shown first.

    ``opinion``: what they entered before they were shown the AI's result; empty where they read with it.
    """

    kind = Kind.REVIEW_SIGNED
    review: int
    version: int
    predecessor: int | None
    decision: ReviewDecision
    reason: ReviewReason | None
    findings: int
    seen: dict[str, int]
    opinion: str = ""
    objects: int = 0


class LabelsExported(Body):
    """Labels and images were written to a folder outside the box."""

    kind = Kind.LABELS_EXPORTED
    identified: bool
    reviews: int
    images: int
    held_back: int
    package: str = ""
    reason: str = ""
    #: Who stood beside it: of an identified export.
    second: str = ""
