"""The facts that the parts of the box hand to one another: frozen, checked, without behaviour.

Words are those of DESIGN §2; fields equal to a DICOM attribute carry its keyword in snake_case. Times are aware
datetimes (``*_at``) or monotonic seconds (``*_mono``).
"""

from __future__ import annotations

from appliance.records.alerts import AlertState, AlertStep, CommunicationMethod
from appliance.records.analyses import (
    AnalysisResult,
    AnalysisState,
    Detail,
    FindingResult,
    Measurement,
    Outcome,
    Reason,
    Region,
    Role,
    in_english,
)
from appliance.records.deliveries import DeliveryKind, DeliveryState
from appliance.records.images import (
    SELF_TEST_SOURCE,
    Header,
    Identity,
    Received,
    Rejection,
    RejectionTitle,
    SourceMode,
    SourceRef,
    Vector,
    VersionState,
    slice_id,
    split_id,
)
from appliance.records.issues import Issue, Severity
from appliance.records.orders import OrderState, StepState
from appliance.records.people import SYSTEM, Actor, ActorKind, UserRole
from appliance.records.quality import QualityChoice, QualityReason
from appliance.records.reviews import Presence, ReviewDecision, ReviewedFinding, ReviewReason, Side, SignedReview
from appliance.records.word import Word

__all__ = [
    "SELF_TEST_SOURCE",
    "SYSTEM",
    "Actor",
    "ActorKind",
    "AlertState",
    "AlertStep",
    "AnalysisResult",
    "AnalysisState",
    "CommunicationMethod",
    "DeliveryKind",
    "DeliveryState",
    "Detail",
    "FindingResult",
    "Header",
    "Identity",
    "Issue",
    "Measurement",
    "OrderState",
    "Outcome",
    "Presence",
    "QualityChoice",
    "QualityReason",
    "Reason",
    "Received",
    "Region",
    "Rejection",
    "RejectionTitle",
    "ReviewDecision",
    "ReviewReason",
    "ReviewedFinding",
    "Role",
    "Severity",
    "Side",
    "SignedReview",
    "SourceMode",
    "SourceRef",
    "StepState",
    "UserRole",
    "Vector",
    "VersionState",
    "Word",
    "in_english",
    "slice_id",
    "split_id",
]
