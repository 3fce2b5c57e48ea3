"""What radiologists sign about results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.records.analyses import Region
from appliance.records.word import Word


class ReviewDecision(Word):
    """What a radiologist says of a study's results, as a whole."""

    AGREE = "agree"
    DISAGREE = "disagree"
    AMEND = "amend"
    CANNOT_JUDGE = "cannot_judge"


class ReviewReason(Word):
    """Why a radiologist disagrees."""

    ARTEFACT = "artefact"
    ANATOMY = "anatomy"
    #: It is there, and it is not new.
    OLD_FINDING = "old_finding"
    #: Another patient, or another part of the body, than was analysed.
    WRONG_SUBJECT = "wrong_subject"
    OTHER = "other"


class Presence(Word):
    """Whether a finding is there, as a person signed it (CID 240). The box itself never says absent."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class Side(Word):
    """Laterality (CID 244)."""

    LEFT = "left"
    RIGHT = "right"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedFinding:
    """What a person says of one finding of one analysis, or of one that no analysis gave."""

    analysis_id: int
    #: Of the package; empty where ``code`` is none of the package's.
    finding: str
    presence: Presence
    #: Whether the package flagged it.
    flagged: bool
    #: Whether what the package said of it stands: flagged and there, or not flagged and not there. None: not known.
    is_right: bool | None
    #: The person added it.
    added: bool = False
    #: Name in ``codes.yaml``, of a finding that is none of the package's.
    code: str = ""
    side: Side | None = None
    #: The person's, where it is another than the package's.
    category: int | None = None
    #: A box that the person drew; it takes the place of what the package marked.
    region: Region | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReview:
    """One version of what a radiologist signed about a study. Nothing of it is ever changed."""

    version: int
    decision: ReviewDecision
    reason: ReviewReason | None
    #: The person's own words.
    note: str
    reviewer: str
    role: str
    organization: str
    signed_at: datetime
    findings: tuple[ReviewedFinding, ...]

    def of(self, analysis_id: int) -> tuple[ReviewedFinding, ...]:
        """What it says of one analysis."""
        return tuple(one for one in self.findings if one.analysis_id == analysis_id)
