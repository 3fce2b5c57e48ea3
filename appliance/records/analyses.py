"""What the packages say of a study, and the words in which it is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from appliance.records.word import Word

_PLACE = re.compile(r"\{(\w+)\}")


class Outcome(Word):
    """How an analysis, and by the rule in ``triage.verdict`` a study, ended. Never "normal" or "negative"."""

    FINDING = "FINDING"
    NOTHING_FLAGGED = "NOTHING_FLAGGED"
    NOT_ANALYSED = "NOT_ANALYSED"
    #: Of a study only: no live package claims it. Quiet, counted, no object sent.
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Reason(Word):
    """Why something was not analysed. The order is the order in which a study shows them (DESIGN §2)."""

    OUT_OF_ENVELOPE = "out_of_envelope"
    QUALITY = "quality"
    CANNOT_DECODE = "cannot_decode"
    INCOMPLETE = "incomplete"
    UNRELIABLE_OUTPUT = "unreliable_output"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    AI_UNAVAILABLE = "ai_unavailable"
    WITHDRAWN = "withdrawn"


class Role(Word):
    """What a package's analyses may do. Silent and shadow ones make no outcome, alert or delivery."""

    LIVE = "live"
    SILENT = "silent"
    SHADOW = "shadow"


class AnalysisState(Word):
    """Where one package's work on its series revisions stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A place in one source image, for a person's eye and for the SR. Never made for a ``triage`` package's screen.

    ``kind`` is ``box`` or ``point``; ``points`` are (column, row) in the source image, 0-based pixel centres.
    """

    sop_instance_uid: str
    kind: str
    points: tuple[tuple[float, float], ...]
    frame_number: int | None = None
    finding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its UCUM unit."""

    name: str
    value: float
    unit: str
    sd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingResult:
    """What a package says of one of its findings in one analysis; scores of findings that are not flagged too."""

    id: str
    score: float
    #: Name of the operating point that was used, and its threshold.
    operating_point: str
    threshold: float
    flagged: bool
    #: Urgency of the finding as its package declares it: 1 minutes, 2 hours, 3 days (CID 7035).
    category: int = 3
    measurements: tuple[Measurement, ...] = ()
    #: SOP Instance UIDs of the slices that show it best, most telling first.
    key_instances: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """One sentence for a person beside an outcome, kept apart from its numbers so that every screen can translate it.

    Attributes:
        text: English with named ``{placeholders}``, a literal in the code: the id of its translations.
        values: What stands in the placeholders: numbers and names, no words of a language, no patient data.
    """

    text: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        """In English."""
        return self.told()

    def told(self, gettext: Callable[[str], str] = str) -> str:
        """The sentence in the language of ``gettext``.

        Placeholders are replaced by name and nothing else: what a worker sent is no format to be carried out.
        """
        return _PLACE.sub(lambda place: _shown(self.values.get(place[1], place[0])), gettext(self.text))


def _shown(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_english(details: Iterable[Detail]) -> str:
    """Details as one line, for logs, JSON and reports."""
    return "; ".join(map(str, details))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisResult:
    """What the worker and the verdict say of one analysis (DESIGN §5, analysis row)."""

    outcome: Outcome
    reason: Reason | None = None
    #: For a person, beside the reason.
    details: tuple[Detail, ...] = ()
    findings: tuple[FindingResult, ...] = ()
    #: What the result leaves out, and what else limits it.
    caveats: tuple[Detail, ...] = ()
    #: What the package warns of.
    warnings: tuple[Detail, ...] = ()
    package_digest: str = ""
    engine_digest: str = ""
    backend: str = ""
    precision: str = ""
    #: Key pictures in the spool, relative paths, in the order of the key instances.
    pictures: tuple[str, ...] = ()
    #: The findings' masks in the spool (``engines.overlay``), of packages that may show places.
    masks: str | None = None
    #: Milliseconds per hop, as measured in the worker and the daemon.
    hops_ms: dict[str, float] = field(default_factory=dict)
    #: What the head measured besides the findings (slice count, spacing, brain volume, ...), for drift and replay.
    numbers: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A result that says NOT_ANALYSED without a reason, or a reason without NOT_ANALYSED, cannot exist."""
        if (self.outcome is Outcome.NOT_ANALYSED) != (self.reason is not None):
            msg = f"outcome {self.outcome} with reason {self.reason}"
            raise ValueError(msg)
        if self.outcome is Outcome.NOT_APPLICABLE:
            msg = "NOT_APPLICABLE is an outcome of a study, not of an analysis"
            raise ValueError(msg)

    @property
    def detail(self) -> str:
        """The details in English."""
        return in_english(self.details)
