"""The records of ``up/rec``: one model for each kind of row that may leave the box. What is not here does not leave it.

``up/health`` is a record's body too, though never a row: what a box sees of itself at this moment.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
#: At most three numbers in a row, so that no DICOM UID is a version.
_SUFFIX = r"([+-][0-9A-Za-z]|\.?[A-Za-z])[0-9A-Za-z.+_-]{0,31}"
Version = Annotated[str, StringConstraints(pattern=rf"^[0-9]{{1,8}}(\.[0-9]{{1,8}}){{0,2}}({_SUFFIX})?$")]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,47}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
#: Of equipment, which DICOM lets anybody write: few signs, short, and only what many studies said (``device/gate.py``).
Make = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,31}$")]
Count = Annotated[int, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Hour = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}Z$")]


#: How far a box's wall clock is to be trusted.
Clk = Literal["ntp", "rtc", "none"]


class Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantiles(Part):
    """Milliseconds; None where there were none."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class ResultsHour(Part):
    """What a package did in one hour, or in a day where an hour had fewer than five studies.

    Attributes:
        hours: How many hours are in it, from ``hour`` on.
        flagged: Analyses with each finding, by the finding's id in the package.
        not_analysed: By reason.
        suppressed: Alerts that were not raised anew because the finding had been told (they count in ``flagged``).
        agreed: Of those reviewed, how many a radiologist agreed with.
        psi: Drift of scores against the acceptance baseline, by finding.
    """

    k: Literal["results"] = "results"
    package: Name
    version: Version
    role: Literal["live", "silent", "shadow"]
    hour: Hour
    hours: int = Field(default=1, ge=1, le=48)
    n: Count
    flagged: dict[Name, Count] = {}
    nothing_flagged: Count = 0
    not_analysed: dict[Slug, Count] = {}
    suppressed: Count = 0
    reviewed: Count = 0
    agreed: Count = 0
    ms: Quantiles = Quantiles()
    psi: dict[Name, float] = {}


class StudyResult(Part):
    """One analysis; sent only where the contract of the site says so (``fleet.detail: study``)."""

    k: Literal["study"] = "study"
    package: Name
    version: Version
    role: Literal["live", "silent", "shadow"]
    outcome: Slug
    reason: Slug | None = None
    flagged: tuple[Name, ...] = ()
    ms: float | None = None


class Machine(Part):
    """How the machine fares; None for what it does not have."""

    cpu: Percent | None = None
    memory: Percent | None = None
    disk: Percent | None = None
    disk_wear: Percent | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    gpu: Percent | None = None
    gpu_memory: Percent | None = None
    gpu_temperature_c: float | None = None


class HealthRollup(Part):
    """Five minutes of it: means, but the highest of waits and temperatures."""

    k: Literal["health"] = "health"
    minutes: int = Field(ge=1, le=1440)
    machine: Machine
    studies: Count = 0
    ms: Quantiles = Quantiles()
    oldest_owed_s: float = 0
    waiting: Count = 0
    skew_ms: int | None = None


class IssueChange(Part):
    """A coded health fact began or ended. ``ref`` tells two of one code apart, and nobody what they are about."""

    k: Literal["issue"] = "issue"
    code: Code
    severity: Slug | None = None
    state: Literal["raised", "cleared", "acknowledged", "shelved"]
    ref: Digest


class DaemonChange(Part):
    """The box's software began or ended."""

    k: Literal["daemon"] = "daemon"
    state: Literal["started", "stopped"]
    version: Version | None = None
    mode: Literal["evaluation", "clinical"] | None = None


class PackageChange(Part):
    """A package came, serves, went."""

    k: Literal["package"] = "package"
    package: Name
    version: Version
    digest: Digest | None = None
    state: Literal["installed", "activated", "live", "withdrawn", "rolled_back"]


class EngineChange(Part):
    """An engine of this device."""

    k: Literal["engine"] = "engine"
    package: Name
    state: Literal["building", "ready", "rejected", "serves", "fallback", "checked"]
    backend: Slug | None = None
    precision: Slug | None = None
    build_ms: float | None = None


class JobChange(Part):
    """A job took a step; the box is the authority.

    Attributes:
        version: Counts the steps of this job; a server keeps the highest.
        code: Why, as DISK_FULL or NOT_PERMITTED.
        percent: Of a download.
    """

    k: Literal["job"] = "job"
    job: str = Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")
    ctr: int
    state: Code
    version: Count
    code: Code | None = None
    percent: Percent | None = None
    figures: dict[Slug, float] = {}


class Gap(Part):
    """Rows that were skipped because the line was too bad for too long: so many of a class, from .. through."""

    k: Literal["gap"] = "gap"
    skipped: Literal["health"]
    first_seq: int
    last_seq: int
    n: Count


class Access(Part):
    """Audit, counted: how often in an hour something happened. Who did it stays on the box."""

    k: Literal["access"] = "access"
    hour: Hour
    signed_in: Count = 0
    sign_in_failed: Count = 0
    denied: Count = 0
    accounts_changed: Count = 0
    settings_changed: Count = 0
    exports: Count = 0


class Anchor(Part):
    """Once a day: the journal's chain at this row; whoever rewrites an older one cannot take this back."""

    k: Literal["anchor"] = "anchor"
    seq: int
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")


class Equipment(Part):
    """What a source is, once a day: no serial number, no AE title, no name of a station."""

    k: Literal["equipment"] = "equipment"
    source: int = Field(ge=1, description="Number of the source on this box")
    modality: Literal["CT", "CR", "DX", "OT"]
    make: Make
    model: Make
    kernels: tuple[Make, ...] = Field(default=(), max_length=16)


Told = Annotated[
    ResultsHour
    | StudyResult
    | HealthRollup
    | IssueChange
    | DaemonChange
    | PackageChange
    | EngineChange
    | JobChange
    | Gap
    | Access
    | Anchor
    | Equipment,
    Field(discriminator="k"),
]


class Record(Part):
    """A row of the journal as the server sees it.

    Attributes:
        seq: The journal's.
        ts: The box's wall clock, UTC milliseconds; never used to order, to tell twice from once, or to expire.
        mono: Milliseconds since the boot.
        clk: How far ``ts`` is to be trusted.
    """

    seq: int = Field(ge=1)
    ts: int
    boot: str = Field(pattern=r"^[0-9a-z-]{0,36}$")
    mono: int
    clk: Clk
    d: Told


class PackageState(Part):
    """A package that serves."""

    package: Name
    version: Version
    digest: Digest
    role: Literal["live", "silent", "shadow"]
    backend: Slug | None = None
    precision: Slug | None = None
    points: dict[Name, Name] = {}


class OpenIssue(Part):
    """An issue that stands."""

    code: Code
    severity: Slug
    ref: Digest
    since: int
    acknowledged: bool = False


class SourceState(Part):
    """How long a source has been silent, against what is usual at this hour."""

    source: int = Field(ge=1)
    last_image_s: float | None = None
    silent_too_long: bool = False


class Health(Part):
    """``up/health``: not kept on the box."""

    ts: int
    boot: str = Field(pattern=r"^[0-9a-z-]{0,36}$")
    mono: int
    clk: Clk
    skew_ms: int | None = None
    sess: int
    agent: Version
    mode: Literal["evaluation", "clinical"]
    ai: Slug
    machine: Machine
    studies_24h: Count = 0
    ms: Quantiles = Quantiles()
    receiving: Count = 0
    waiting: Count = 0
    oldest_owed_s: float = 0
    backlog: Count = 0
    backlog_s: float = 0
    restarts_24h: Count = 0
    cert_days: float | None = None
    packages: tuple[PackageState, ...] = Field(default=(), max_length=64)
    issues: tuple[OpenIssue, ...] = Field(default=(), max_length=200)
    sources: tuple[SourceState, ...] = Field(default=(), max_length=64)
