"""Coded facts about the health of the box."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from appliance.records.word import Word


class Severity(Word):
    """How loudly an issue is shown."""

    WARNING = "warning"
    #: The box does not do its work, or cannot promise to.
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """A coded health fact with since-when; the same on screen, CLI and fleet."""

    code: str
    subject: str
    severity: Severity
    since_at: datetime
    detail: dict[str, Any] = field(default_factory=dict)
    study_id: int | None = None
    #: When and by whom somebody was the first to say that they have seen it.
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    #: Until then it is listed and not told anew.
    shelved_until: datetime | None = None
