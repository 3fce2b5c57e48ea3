"""What the AI did with a study."""

from __future__ import annotations

from appliance.records import QualityChoice, QualityReason
from appliance.store.facts.kinds import Body, Kind


class AnalysisQueued(Body):  # noqa: D101
    kind = Kind.ANALYSIS_QUEUED
    analysis: int
    package: str
    version: str
    role: str
    revisions: dict[str, int]
    predecessor: int | None = None


class AnalysisStarted(Body):  # noqa: D101
    kind = Kind.ANALYSIS_STARTED
    analysis: int
    attempt: int


class AnalysisReturned(Body):
    """The analysis goes back to the queue: its worker ended, or the daemon was restarted under it."""

    kind = Kind.ANALYSIS_RETURNED
    analysis: int
    attempt: int
    why: str


class AnalysisDone(Body):  # noqa: D101
    kind = Kind.ANALYSIS_DONE
    analysis: int
    package: str
    version: str
    role: str
    outcome: str
    reason: str | None = None
    late: bool = False
    carried: bool = False
    scores: dict[str, float] = {}
    hops_ms: dict[str, float] = {}
    backend: str = ""
    precision: str = ""
    engine_digest: str = ""


class AnalysisSuperseded(Body):  # noqa: D101
    kind = Kind.ANALYSIS_SUPERSEDED
    analysis: int
    by: int | None = None


class StudyOutcome(Body):  # noqa: D101
    kind = Kind.STUDY_OUTCOME
    outcome: str
    reason: str | None = None


class StudyReprocessed(Body):  # noqa: D101
    kind = Kind.STUDY_REPROCESSED
    why: str


class BacklogDone(Body):
    """The AI is back and has caught up: one summary line instead of many alerts."""

    kind = Kind.BACKLOG_DONE
    studies: int
    findings: int
    since: str


class QualityDecided(Body):
    """What a person did about the quality warnings of a study, and why. A later one corrects it."""

    kind = Kind.QUALITY_DECIDED
    analyses: tuple[int, ...]
    choice: QualityChoice
    reason: QualityReason
