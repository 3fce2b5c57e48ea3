"""What a roll-out is: which boxes, in which waves, through which gates, and what was found. Documents of its rows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from appliance.fleet.wire import Id
from appliance.records import Word

Modality = Literal["CT", "CR", "DX", "OT"]
Role = Literal["silent", "shadow", "live"]


class RollOutState(Word):
    """Where a roll-out stands. FINISHED, ABORTED and REVERTED are ends; the first two can still be reverted."""

    DRAFT = "DRAFT"
    WAITING_APPROVAL = "WAITING_APPROVAL"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    ABORTED = "ABORTED"
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"


#: From each state, where a roll-out may go.
NEXT: dict[RollOutState, frozenset[RollOutState]] = {
    RollOutState.DRAFT: frozenset({RollOutState.WAITING_APPROVAL, RollOutState.ABORTED}),
    RollOutState.WAITING_APPROVAL: frozenset({RollOutState.READY, RollOutState.ABORTED}),
    RollOutState.READY: frozenset({RollOutState.RUNNING, RollOutState.ABORTED}),
    RollOutState.RUNNING: frozenset(
        {RollOutState.PAUSED, RollOutState.FINISHED, RollOutState.ABORTED, RollOutState.REVERTING}
    ),
    RollOutState.PAUSED: frozenset({RollOutState.RUNNING, RollOutState.ABORTED, RollOutState.REVERTING}),
    RollOutState.FINISHED: frozenset({RollOutState.REVERTING}),
    RollOutState.ABORTED: frozenset({RollOutState.REVERTING}),
    RollOutState.REVERTING: frozenset({RollOutState.REVERTED}),
    RollOutState.REVERTED: frozenset(),
}


class WaveState(Word):
    """Where a wave stands; one at most is RUNNING."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"


class Gate(Word):
    """What is looked at between waves, and all the time within one."""

    FAILURES = "failures"
    SAFETY = "safety"
    LATENCY = "latency"
    ALERTS = "alerts"
    ACCEPTANCE = "acceptance"


class Pause(Word):
    """Why a roll-out stands still: ``roll_out.paused_why``."""

    MANUAL = "MANUAL"
    FAILURES = "FAILURES"
    SAFETY = "SAFETY"
    LATENCY = "LATENCY"
    ALERTS = "ALERTS"
    ACCEPTANCE = "ACCEPTANCE"
    #: Patience is over, and too little was seen to say anything.
    NOT_JUDGED = "NOT_JUDGED"
    #: The grant has expired, or a key that signed it was retired.
    GRANT = "GRANT"


class BoxWord(Word):
    """How a box of a roll-out fares, from its job."""

    #: In a later wave, or its turn has not come.
    WAITING = "waiting"
    #: Told, and it has not answered: it is away.
    PENDING = "pending"
    #: Its site's administrator has not said yes or no.
    ASKED_SITE = "asked_site"
    WORKING = "working"
    SOAKING = "soaking"
    #: It sees too few studies for its soak to end in the plan's patience: neither good nor bad.
    SOAK_NOT_JUDGED = "soak_not_judged"
    SUCCEEDED = "succeeded"
    HAD_IT = "had_it"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    #: Its site's administrator said no.
    DECLINED = "declined"
    #: Never its time: a window that did not come, or it was away for too long.
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    LEFT_OUT = "left_out"


class LeftOut(Word):
    """Why a box gets no job: ``wave_device.left_out``."""

    HELD = "HELD"
    HAS_IT = "HAS_IT"
    NOT_ENROLLED = "NOT_ENROLLED"
    REPLACED = "REPLACED"
    NO_SOURCE = "NO_SOURCE"
    COUNTRY = "COUNTRY"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Chosen(_Document):
    """Which boxes: those of any of the three lists, or, where all are empty, everything below the roll-out's tenant.

    Attributes:
        modalities: Boxes without a source of any of them are left out; empty: whatever their sources are.
        countries: ISO 3166 codes of sites where the version may be installed; empty: everywhere.
        lab: Boxes of the first wave: the service team's own.
        canaries: How many boxes at least make the second one; all that it takes to cover every make and model do.
    """

    tenants: tuple[Id, ...] = ()
    sites: tuple[Id, ...] = ()
    devices: tuple[Id, ...] = ()
    modalities: tuple[Modality, ...] = ()
    countries: tuple[str, ...] = ()
    lab: tuple[Id, ...] = ()
    canaries: int = Field(default=5, ge=1, le=500)


class Gates(_Document):
    """When a roll-out stops by itself, and what must have been seen before the next wave.

    Attributes:
        max_failed: Share of boxes, of those that came to an end, that may have failed or gone back.
        failed_from: So many ends before that share is looked at; a wave's last one counts always.
        min_ended: So many ends (or the whole wave) before the next wave.
        min_settled: Share of the boxes that are there which must have come to an end.
        safety_codes: One box that tells one of these is enough.
        latency_factor: The time that 19 of 20 analyses keep to may be so many times what it was on the same boxes,
        latency_more_ms: and so much more.
        latency_n: So many analyses before it is looked at.
        alpha: Chance to stop, ever, for an alert rate that has not changed by more than ``alert_tolerance``.
        power: Chance to see one that has changed by ``alert_factor`` at the n that the verdict names.
        alert_factor: Smallest change that matters: so many times as often, or as rarely.
        alert_tolerance: A change by less than this factor is none.
        max_not_ready: Share of boxes whose engine for it was refused or fell back.
    """

    max_failed: float = Field(default=0.02, ge=0, lt=1)
    failed_from: int = Field(default=5, ge=1)
    min_ended: int = Field(default=10, ge=1)
    min_settled: float = Field(default=0.95, gt=0, le=1)
    safety_codes: tuple[str, ...] = ("CRASHES", "ERROR_RATE", "NOT_ANALYSED_RATE", "GOLDEN", "DIGEST", "CONTENTS")
    latency_factor: float = Field(default=1.5, gt=1)
    latency_more_ms: float = Field(default=250.0, ge=0)
    latency_n: int = Field(default=200, ge=20)
    alpha: float = Field(default=0.02, gt=0, lt=0.5)
    power: float = Field(default=0.9, gt=0.5, lt=1)
    alert_factor: float = Field(default=2.0, gt=1)
    alert_tolerance: float = Field(default=1.1, ge=1)
    max_not_ready: float = Field(default=0.02, ge=0, lt=1)


class WavePlan(_Document):
    """One wave: its name (lab, canaries, 1 %, ...) and how many boxes are in it."""

    number: int = Field(ge=1)
    name: str
    boxes: int = Field(ge=0)


class Plan(_Document):
    """How it goes.

    Attributes:
        waves: In order.
        not_covered: Makes and models of sources, and hardware, that no canary has, as people read them.
        left_out: How many boxes of the choice get nothing, by ``LeftOut``.
        per_minute: Boxes that are told in a minute, at most.
        timeout_h: A box that has not answered for so long is given up.
        patience_h: So long beyond the soak a box may take for it, and a wave after its last box was told; what was not
            judged by then is put before a person.
        grant_days: How long the approval holds, from the submission.
    """

    gates: Gates = Gates()
    waves: tuple[WavePlan, ...] = ()
    not_covered: tuple[str, ...] = ()
    left_out: dict[str, int] = {}
    shares: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0)
    per_minute: int = Field(default=100, ge=1, le=1000)
    timeout_h: float = Field(default=168.0, gt=0, le=24 * 60)
    patience_h: float = Field(default=96.0, gt=0, le=24 * 60)
    soak_h: float = Field(default=24.0, ge=0, le=720)
    soak_studies: int = Field(default=50, ge=0, le=100_000)
    wait_h: float = Field(default=72.0, gt=0, le=720)
    grant_days: int = Field(default=60, ge=1, le=365)


class Verdict(_Document):
    """What a gate found. "not_judged" is never "passed".

    Attributes:
        n: Of what there was: boxes that ended, or analyses.
        needed: Fewer say nothing.
        value: Share, ratio of times, or ratio of alert rates.
        bound: Of it.
        codes: How often each code was told.
        figures: The rest: alpha, power, factor, p, rates before and now.
        accepted: A person saw it and went on.
    """

    gate: Gate
    word: Literal["passed", "failed", "not_judged"]
    n: int = 0
    needed: int = 0
    value: float | None = None
    bound: float | None = None
    codes: dict[str, int] = {}
    figures: dict[str, float] = {}
    accepted: bool = False
