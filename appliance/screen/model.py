"""What the alert screen is made of. Nothing here is in a language, and nobody's identity is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from appliance.records import AlertState, AlertStep, CommunicationMethod, Detail, Issue, Reason, UserRole, Word
from appliance.screen.people import Person
from appliance.store.alert_tests import AlertTest
from appliance.store.communications import Communication
from appliance.store.readmodels import AlertView, BoxState, ExposureView, StudyView


@dataclass(frozen=True, slots=True)
class Scope:
    """What one reader's board is made of.

    Attributes:
        sources: Theirs alone; empty: all.
        escalated: Alerts of other sources too, once they went to further targets.
        told: Whether findings are told in words even where technologists are told the priority only.
    """

    sources: tuple[str, ...] = ()
    escalated: bool = False
    told: bool = True


def knows_findings(role: UserRole) -> bool:
    """Whether findings are told in words to a role where the site, or a package, says ``priority_only``."""
    return role is UserRole.RADIOLOGIST


#: Everything.
ALL = Scope()


class State(Word):
    """What has the biggest place."""

    URGENT = "urgent"
    TEST = "test"
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


class ImagePath(Word):
    """How the images of the sources shown come to the PACS, as far as this box knows."""

    #: No source is named, so who sends what to whom is not known.
    UNKNOWN = "unknown"
    #: Every scanner sends to the PACS itself.
    ITSELF = "itself"
    FORWARDED = "forwarded"
    #: Images come through this box, and it cannot pass them on.
    STOPPED = "stopped"


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
class Told:
    """That a person was told of an alert: the last line of the register about it."""

    received_by: str
    at: datetime
    method: CommunicationMethod
    read_back: bool


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
    #: Its findings are not this reader's to know: neither words nor places nor picture.
    withheld: bool = False
    #: The same finding of the same patient was alerted before, then for the last time.
    flagged_before: datetime | None = None
    #: Images of it have not reached a destination of originals.
    not_in_pacs: bool = False
    #: Nobody has acknowledged it for longer than is right, since it was raised.
    overdue: bool = False
    reminded: bool = False
    told: Told | None = None
    decided_by: str = ""
    decided_at: datetime | None = None
    #: When the examination began, as HH:MM; empty where no header says so.
    taken_at: str = ""


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
class Overdue:
    """An alert that nobody acknowledges, as every screen shows it: masked, without the finding."""

    alert_id: int
    person: Person
    source: str
    raised_at: datetime
    #: Whether it is one of this reader's own.
    is_mine: bool


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
    #: Alerts of any source that are overdue.
    overdue: tuple[AlertView, ...] = ()
    #: How many more there are.
    overdue_more: int = 0
    steps: Mapping[int, Mapping[AlertStep, datetime]] = field(default_factory=dict)
    flagged_before: Mapping[int, datetime] = field(default_factory=dict)
    #: Studies with images that a destination has not got.
    not_in_pacs: frozenset[int] = frozenset()
    told: Mapping[int, Sequence[Communication]] = field(default_factory=dict)
    tests: tuple[AlertTest, ...] = ()
    image_path: ImagePath = ImagePath.UNKNOWN
    #: Since when images of an inline source do not reach a destination of originals.
    pacs_down_since: datetime | None = None


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
    #: Changes of models that wait for the administrator.
    approvals: int
    counts: Mapping[str, int]
    last: Card | None
    #: Open alerts that sound, and tests, whose names begin with t.
    chime: tuple[str, ...]
    #: Of these, those whose sound repeats.
    repeat: tuple[str, ...]
    overdue: tuple[Overdue, ...]
    #: How many more there are.
    overdue_more: int
    tests: tuple[AlertTest, ...]
    image_path: ImagePath
    pacs_down_since: datetime | None
    names: tuple[str, ...]
    looked_for: tuple[Mapping[str, str], ...]
    notice: Notice | None

    @property
    def ai(self) -> str:
        """The AI's state in a word: down, none where nothing is looked for, or ready."""
        if self.ai_down_since is not None:
            return "down"
        return "ready" if self.looked_for else "none"
