"""What the alert screen is made of. Nothing here is in a language, and nobody's identity is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from appliance.records import AlertState, Detail, Issue, Reason, Word
from appliance.screen.people import Person
from appliance.store.readmodels import AlertView, BoxState, ExposureView, StudyView


class State(Word):
    """What has the biggest place."""

    URGENT = "urgent"
    PRIORITY = "priority"
    NOT_ANALYSED = "not-analysed"
    QUALITY = "quality"
    WITHDRAWN = "withdrawn"
    SEEN = "seen"
    AI_DOWN = "ai-down"
    ANALYSING = "analysing"
    RECEIVING = "receiving"
    NOTE = "note"
    NOTHING_FLAGGED = "nothing-flagged"
    IDLE = "idle"


class Level(Word):
    """How a result is drawn: each has its own shape, word and colour."""

    URGENT = "urgent"
    PRIORITY = "priority"
    NOTE = "note"
    #: Look at the image before the patient leaves: for the technologist, no result about the patient.
    QUALITY = "quality"
    NOT_ANALYSED = "not-analysed"
    NOTHING_FLAGGED = "nothing-flagged"


class Mark(Word):
    """What else must be said of a result."""

    LATE = "late"
    REVISED = "revised"
    CORRECTED = "corrected"
    AGAIN = "again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One finding that is told. Place and size only where the package's intended use allows it."""

    title: Mapping[str, str]
    advice: Mapping[str, str]
    volume_ml: float | None
    slices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One study's result, or its open quality warnings."""

    study_id: int
    alert_id: int | None
    level: Level
    alert_state: AlertState | None
    lines: tuple[Line, ...]
    reason: Reason | None
    details: tuple[Detail, ...]
    looked_for: tuple[Mapping[str, str], ...]
    not_looked_for: tuple[Mapping[str, str], ...]
    person: Person
    about: str
    source: str
    received_at: datetime
    at: datetime
    seen_by: str
    seen_at: datetime | None
    withdrawn_why: str
    marks: tuple[Mark, ...]
    warnings: tuple[Detail, ...]
    picture: bool
    #: Of quality warnings: the analyses that warn.
    analyses: tuple[int, ...] = ()
    #: How the images were exposed, where a quality package looked at them and their headers say so.
    exposures: tuple[ExposureView, ...] = ()
    #: Of the order, in the RIS's words: what is to be done; and its priority, where it goes before the others.
    procedure: str = ""
    priority: str = ""
    #: Not analysed because a note rejected the images.
    is_rejected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A study that is arriving or being analysed."""

    person: Person
    about: str
    source: str
    images: int
    package: Mapping[str, str] | None
    since_at: datetime
    usual_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The AI was away and has caught up: one line instead of many alerts."""

    at: datetime
    since_at: datetime
    studies: int
    findings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the board is made of, as read from the store at one moment."""

    now: datetime
    open_alerts: tuple[AlertView, ...]
    withdrawn: tuple[AlertView, ...]
    #: Ended studies within ``WINDOW``, newest first; those not analysed are complete up to the list's length.
    recent: tuple[StudyView, ...]
    #: Studies with quality warnings that nobody has decided within ``WINDOW``, newest warning first.
    warned: tuple[int, ...]
    #: Every study that alerts and activities refer to.
    studies: Mapping[int, StudyView]
    box: BoxState
    counts: Mapping[str, int]
    names: tuple[str, ...]
    notice: Notice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Everything on the screen. Equal boards need no painting."""

    state: State
    hero: Card | None
    #: Open alerts in all, the one in the biggest place included.
    open_alerts: int
    #: Studies with open quality warnings, the one in the biggest place included.
    open_warnings: int
    items: tuple[Card, ...]
    receiving: tuple[Activity, ...]
    analysing: tuple[Activity, ...]
    queued: int
    ai_down_since: datetime | None
    faults: tuple[Issue, ...]
    warnings: int
    counts: Mapping[str, int]
    last: Card | None
    #: Open alerts that sound.
    chime: tuple[int, ...]
    names: tuple[str, ...]
    looked_for: tuple[Mapping[str, str], ...]
    notice: Notice | None
