"""What the API answers. The OpenAPI document is made of these models, so it cannot say anything else."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from appliance.records import AlertState, Outcome, Reason, Severity


class Answer(BaseModel):
    """Every field is always there."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(Answer):
    """A text in both languages."""

    en: str
    zh_Hans: str  # noqa: N815 - the key of the packages' texts


class AlertFinding(Answer):
    """What an alert tells, in words that are never a diagnosis."""

    package: str
    id: str = Field(description="Of the package; empty where the site tells the technologist the priority only")
    title: Text


class Alert(Answer):
    """An alert of one study. Acknowledging one says that somebody has seen it; it closes nothing."""

    id: int
    study: int
    study_instance_uid: str
    accession_number: str
    source: str
    category: int = Field(ge=1, le=3, description="1: minutes, 2: hours, 3: days (ACR actionable findings)")
    is_active: bool = Field(description="False: shown passively, without sound")
    state: AlertState
    findings: tuple[AlertFinding, ...]
    raised_at: datetime
    presented_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    decided_at: datetime | None = Field(description="When a radiologist signed a review of the study")
    withdrawn_at: datetime | None
    withdrawn_why: str


class Alerts(Answer):
    """Alerts that nobody has acknowledged, and those of the last hours, the most urgent first."""

    seq: int = Field(description="Journal row that the answer reaches to; give it to /events as after")
    alerts: tuple[Alert, ...]


class StudyAnalysis(Answer):
    """One package's work on the study."""

    package: str
    version: str
    outcome: Outcome | None
    reason: Reason | None


class Study(Answer):
    """How far a study is. Without an outcome it is not known yet; nothing here is a statement about a patient."""

    id: int
    study_instance_uid: str
    accession_number: str
    source: str
    images: int
    first_image_at: datetime
    last_image_at: datetime
    state: Literal["open", "ended"]
    outcome: Outcome | None
    reason: Reason | None
    text: Text = Field(description="The outcome in words that may be shown to a person")
    analyses: tuple[StudyAnalysis, ...]
    alert: int | None


class Studies(Answer):
    """Studies, the newest image first."""

    studies: tuple[Study, ...]


class Problem(Answer):
    """A coded fault of the box; never a patient's."""

    code: str
    severity: Severity
    since_at: datetime


class Health(Answer):
    """Whether studies are being checked."""

    version: str
    mode: Literal["evaluation", "clinical"]
    ai: Literal["ready", "down", "no_package"]
    ai_down_since: datetime | None
    receiving: int
    analysing: int
    queued: int
    issues: tuple[Problem, ...]


class Error(Answer):
    """What went wrong, and how to mend it."""

    error: str


class Acknowledge(BaseModel):
    """Who has seen the alert: the person, not the program."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1, max_length=64)
