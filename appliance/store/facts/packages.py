"""Packages and their engines."""

from __future__ import annotations

from appliance.store.facts.kinds import Body, Kind


class PackageConfigured(Body):
    """What the configuration says of a package that came with this software is new or has changed."""

    kind = Kind.PACKAGE_CONFIGURED
    package: str
    version: str
    digest: str
    state: str
    operating_points: dict[str, str] = {}


class PackageInstalled(Body):
    """A signed package lies in its slot and runs nowhere yet. ``replaced``: the versions that gave way."""

    kind = Kind.PACKAGE_INSTALLED
    package: str
    version: str
    digest: str
    signed_by: tuple[str, ...]
    p95_ms: float | None
    replaced: tuple[str, ...] = ()


class PackageActivated(Body):
    """A version begins its silent time, or runs as shadow."""

    kind = Kind.PACKAGE_ACTIVATED
    package: str
    version: str
    state: str
    days: float | None = None
    studies: int | None = None
    operating_points: dict[str, str] = {}
    why: str = ""


class PackageLive(Body):
    """From now on a version serves. ``days``, ``studies``: how long it was silent."""

    kind = Kind.PACKAGE_LIVE
    package: str
    version: str
    previous: str = ""
    days: float = 0.0
    studies: int = 0


class PackageWithdrawn(Body):
    """A version was taken out of service at once; ``analyses`` that were open ended NOT_ANALYSED(withdrawn)."""

    kind = Kind.PACKAGE_WITHDRAWN
    package: str
    version: str
    was: str
    why: str
    analyses: int


class PackageRolledBack(Body):
    """The previous version serves again, at once."""

    kind = Kind.PACKAGE_ROLLED_BACK
    package: str
    from_version: str
    version: str
    why: str


class OperatingPointChanged(Body):  # noqa: D101
    kind = Kind.OPERATING_POINT_CHANGED
    package: str
    version: str
    finding: str
    before: str
    point: str
    reason: str


class ShadowAgreement(Body):
    """What a shadow version said of a study beside the one that serves: all that its work leads to."""

    kind = Kind.SHADOW_AGREEMENT
    package: str
    live_version: str
    shadow_version: str
    same_outcome: bool
    #: finding: score of the shadow minus score of the live version.
    score_differences: dict[str, float] = {}
    #: Findings that only one of the two flagged.
    flagged_by_one: tuple[str, ...] = ()


class EngineBuildAsked(Body):
    """A person wants an engine now. The daemon has the worker build it."""

    kind = Kind.ENGINE_BUILD_ASKED
    package: str
    flavour: str
    precision: str


class EngineCancelAsked(Body):  # noqa: D101
    kind = Kind.ENGINE_CANCEL_ASKED


class EngineBuilding(Body):
    """A build began, or begins its next step; ``share`` in tenths where the builder tells how far it is."""

    kind = Kind.ENGINE_BUILDING
    package: str
    flavour: str
    precision: str
    step: str
    share: float | None = None


class EngineReady(Body):
    """An engine was built and accepted; ``differences``: the largest to the reference, by what was compared."""

    kind = Kind.ENGINE_READY
    package: str
    engine_digest: str
    flavour: str
    precision: str
    ms: float
    differences: dict[str, float] = {}


class EngineRejected(Body):
    """No engine came of a build: what ``why`` says. What served goes on serving."""

    kind = Kind.ENGINE_REJECTED
    package: str
    flavour: str
    precision: str
    cause: str
    why: str


class EngineServes(Body):
    """From now on results of the package come from this engine."""

    kind = Kind.ENGINE_SERVES
    package: str
    engine_digest: str
    backend: str
    precision: str


class EngineChecked(Body):
    """A spot check: a golden case on what serves, against the reference."""

    kind = Kind.ENGINE_CHECKED
    package: str
    engine_digest: str
    ok: bool
    why: str = ""


class EngineFallback(Body):
    """Not the wished engine serves but another, or ONNX Runtime on the CPU."""

    kind = Kind.ENGINE_FALLBACK
    package: str
    engine_digest: str
    backend: str
    precision: str
    why: str
