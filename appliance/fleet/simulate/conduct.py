"""How a simulated box behaves: what it does with a job and how long, and what its models say. Pure; chance is given.

A box that fails does so where a real one would: by its golden cases before anything is changed, or while it soaks,
and then it goes back by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from appliance.fleet.wire import Job, Op
from appliance.fleet.wire_jobs import JobState
from appliance.fleet.wire_records import (
    Equipment,
    JobChange,
    Machine,
    PackageChange,
    PackageState,
    Quantiles,
    ResultsHour,
    Told,
)

#: What a job without an artefact goes through on a box that has nothing to do.
STEPS = ("ACCEPTED", "SUCCEEDED")
#: What an install goes through (``wire_jobs.NEXT``).
INSTALLS = (
    JobState.ACCEPTED,
    JobState.DOWNLOADING,
    JobState.VERIFIED,
    JobState.STAGED,
    JobState.SELFTEST,
    JobState.WAIT_IDLE,
    JobState.ACTIVATING,
    JobState.SOAKING,
    JobState.SUCCEEDED,
)


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one box behaves.

    Attributes:
        step_s: How long each step of a job takes, from .. to; 0: at once.
        fails: An install of this version ends here, in SELFTEST (FAILED) or SOAKING (ROLLED_BACK).
        code: Why.
        alerts: Of the analyses of an hour, the share with a finding, by version; ``usual_alerts`` for others.
        studies: Analyses of an hour.
        ms: How long one takes.
        is_offline: It never connects.
        flaps_s: On average it loses its line after so long; 0: never.
    """

    step_s: tuple[float, float] = (0.0, 0.0)
    fails: Mapping[str, JobState] = field(default_factory=dict)
    code: str = "GOLDEN"
    alerts: Mapping[str, float] = field(default_factory=dict)
    usual_alerts: float = 0.08
    studies: int = 40
    ms: float = 400.0
    is_offline: bool = False
    flaps_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Planned:
    """What a box says and is, so long after the step before.

    Attributes:
        serves: By package the version that serves from then on; None: none does.
    """

    after_s: float
    told: tuple[Told, ...]
    serves: Mapping[str, tuple[str, str] | None] = field(default_factory=dict)


@dataclass(slots=True)
class Slots:
    """The versions of a package on a box: what serves, and what served before; (version, digest)."""

    live: tuple[str, str] | None = None
    before: tuple[str, str] | None = None

    def take(self, now: tuple[str, str] | None) -> None:
        """Another version serves from here on."""
        if now != self.live:
            self.live, self.before = now, self.live if now is None or now != self.before else None


def plan(job: Job, slots: Mapping[str, Slots], conduct: Conduct, rng: random.Random) -> list[Planned]:
    """What a box does with a job, step by step."""
    name, version = str(job.args.package), str(job.args.version)
    here = slots.get(name, Slots())
    if job.op is Op.MODEL_INSTALL:
        if here.live is not None and here.live[0] == version:
            steps = [(JobState.ACCEPTED, ""), (JobState.ALREADY_INSTALLED, "")]
            return _timed(job, steps, {}, conduct, rng)
        return _install(job, here, conduct, rng)
    if job.op is Op.MODEL_ROLLBACK:
        if here.before is None or (job.args.version is not None and here.before[0] != version):
            return _timed(job, [(JobState.ACCEPTED, ""), (JobState.FAILED, "NO_PREDECESSOR")], {}, conduct, rng)
        told = PackageChange(package=name, version=here.before[0], state="rolled_back")
        return _timed(job, [(JobState(one), "") for one in STEPS], {1: ((told,), {name: here.before})}, conduct, rng)
    if job.op is Op.MODEL_WITHDRAW and here.live is not None and here.live[0] == version:
        told = PackageChange(package=name, version=version, state="withdrawn")
        return _timed(job, [(JobState(one), "") for one in STEPS], {1: ((told,), {name: here.before})}, conduct, rng)
    return _timed(job, [(JobState(one), "") for one in STEPS], {}, conduct, rng)


def _install(job: Job, here: Slots, conduct: Conduct, rng: random.Random) -> list[Planned]:
    name, version, digest = str(job.args.package), str(job.args.version), job.args.digest
    ends_at = conduct.fails.get(version)
    steps: list[tuple[JobState, str]] = []
    for state in INSTALLS:
        steps.append((state, ""))
        if state == ends_at:
            steps.append((JobState.ROLLED_BACK if state is JobState.SOAKING else JobState.FAILED, conduct.code))
            break
    also: dict[int, tuple[tuple[Told, ...], Mapping[str, tuple[str, str] | None]]] = {}
    for n, (state, _) in enumerate(steps):
        if state is JobState.STAGED:
            also[n] = ((PackageChange(package=name, version=version, digest=digest, state="installed"),), {})
        elif state is JobState.SOAKING:
            live = PackageChange(package=name, version=version, digest=digest, state="live")
            also[n] = ((live,), {name: (version, str(digest))})
        elif state is JobState.ROLLED_BACK:
            gone: list[Told] = [PackageChange(package=name, version=version, state="withdrawn")]
            if here.live is not None:
                gone.append(PackageChange(package=name, version=here.live[0], state="rolled_back"))
            also[n] = (tuple(gone), {name: here.live})
    return _timed(job, steps, also, conduct, rng)


def _timed(
    job: Job,
    steps: list[tuple[JobState, str]],
    also: Mapping[int, tuple[tuple[Told, ...], Mapping[str, tuple[str, str] | None]]],
    conduct: Conduct,
    rng: random.Random,
) -> list[Planned]:
    found = []
    for n, (state, code) in enumerate(steps):
        told, serves = also.get(n, ((), {}))
        change = JobChange(
            job=job.id,
            ctr=job.ctr,
            state=str(state),
            version=n + 1,
            code=code or None,
            percent=0.0 if state is JobState.DOWNLOADING else None,
        )
        found.append(Planned(rng.uniform(*conduct.step_s) if n else 0.0, (change, *told), serves))
    return found


def results(
    package: str, version: str, hour: datetime, conduct: Conduct, rng: random.Random, *, hours: int = 1
) -> ResultsHour:
    """What a version did from an hour on, by the alert rate that the box has with it."""
    rate, n = conduct.alerts.get(version, conduct.usual_alerts), hours * conduct.studies
    flagged = sum(rng.random() < rate for _ in range(n))
    return ResultsHour(
        package=package,
        version=version,
        role="live",
        hour=f"{hour:%Y-%m-%dT%HZ}",
        hours=hours,
        n=n,
        flagged={"finding": flagged} if flagged else {},
        nothing_flagged=n - flagged,
        ms=Quantiles(p50=conduct.ms, p95=conduct.ms * 2, p99=conduct.ms * 3),
    )


def package_states(slots: Mapping[str, Slots]) -> tuple[PackageState, ...]:
    """What serves, as a heartbeat lists it."""
    return tuple(
        PackageState(package=name, version=one.live[0], digest=one.live[1], role="live", backend="onnxruntime")
        for name, one in sorted(slots.items())
        if one.live is not None
    )


def machine(rng: random.Random) -> Machine:
    """A machine that does its work."""
    return Machine(
        cpu=round(rng.uniform(3, 45), 1),
        memory=round(rng.uniform(25, 60), 1),
        disk=round(rng.uniform(8, 55), 1),
        temperature_c=round(rng.uniform(38, 62), 1),
    )


def equipment(source: int, kind: tuple[str, str, str]) -> Equipment:
    """A source: (modality, make, model)."""
    return Equipment.model_validate({"source": source, "modality": kind[0], "make": kind[1], "model": kind[2]})
