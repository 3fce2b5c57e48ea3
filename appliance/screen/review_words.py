"""The words of a review: what a radiologist decides, why, of which side and category, and what is sent."""

from __future__ import annotations

from typing import Any

from appliance.records import DeliveryKind, Presence, ReviewDecision, ReviewReason, Side
from appliance.store.sending import Act
from appliance.web.i18n import N_

DECISIONS: dict[str, str] = {
    ReviewDecision.AGREE: N_("Agree"),
    ReviewDecision.DISAGREE: N_("Disagree"),
    ReviewDecision.AMEND: N_("Amend"),
    ReviewDecision.CANNOT_JUDGE: N_("Cannot judge"),
}
REASONS: dict[str, str] = {
    ReviewReason.ARTEFACT: N_("Artefact"),
    ReviewReason.ANATOMY: N_("Variant of anatomy"),
    ReviewReason.OLD_FINDING: N_("Old finding"),
    ReviewReason.WRONG_SUBJECT: N_("Wrong patient or part of the body"),
    ReviewReason.OTHER: N_("Another reason"),
}
PRESENCES: dict[str, str] = {
    Presence.PRESENT: N_("There"),
    Presence.ABSENT: N_("Not there"),
    Presence.UNDETERMINED: N_("Cannot be judged"),
}
SIDES: dict[str, str] = {Side.LEFT: N_("Left"), Side.RIGHT: N_("Right"), Side.BOTH: N_("Both sides")}
CATEGORIES: dict[int, str] = {1: N_("1: within minutes"), 2: N_("2: within hours"), 3: N_("3: within days")}
WAITS: dict[str, str] = {
    "flagged": N_("Flagged"),
    "changed": N_("Images changed since the review"),
    "asked": N_("Asked for"),
    "sampled": N_("Random sample"),
}
ACTS: dict[str, str] = {
    Act.REVISE: N_("A new version is sent and names the one before"),
    Act.WITHDRAW: N_("Is taken back"),
    Act.RESTORE: N_("Is sent again"),
    Act.STAYS: N_("Stays there: this destination takes no rejection notes"),
}
KINDS: dict[str, str] = {
    DeliveryKind.SR: N_("Report (SR)"),
    DeliveryKind.STATEMENT: N_("Message"),
    DeliveryKind.SEG: N_("Segmentation"),
    DeliveryKind.GSPS: N_("Presentation state"),
    DeliveryKind.KO: N_("Key images"),
    DeliveryKind.SC: N_("Picture"),
}

#: What templates of a review need.
REVIEW_WORDS: dict[str, Any] = {
    "decisions": DECISIONS,
    "reasons": REASONS,
    "presences": PRESENCES,
    "sides": SIDES,
    "categories": CATEGORIES,
    "acts": ACTS,
    "kinds": KINDS,
}
