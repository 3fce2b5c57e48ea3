"""What was seen of a wave, and what follows from it. Pure: numbers in, verdicts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.fleet.server.rollout.plan import BoxWord, Gate, Gates, Pause, Verdict
from appliance.fleet.server.rollout.sequential import Stratum, level, look_of, needed, odds_ratio, tails

#: Came to an end by what it did.
_ENDED = frozenset({BoxWord.SUCCEEDED, BoxWord.FAILED, BoxWord.ROLLED_BACK})
_BAD = frozenset({BoxWord.FAILED, BoxWord.ROLLED_BACK})
#: Can still end so.
OPEN = frozenset({BoxWord.WAITING, BoxWord.PENDING, BoxWord.ASKED_SITE, BoxWord.WORKING, BoxWord.SOAKING})
#: Neither holds a wave up nor says anything of the version.
_ASIDE = frozenset({BoxWord.PENDING, BoxWord.ASKED_SITE})


@dataclass(frozen=True, slots=True)
class Seen:
    """A box of the wave. ``is_there``: online. ``counts``: it came to this after the gates began to look."""

    word: BoxWord
    code: str = ""
    is_there: bool = True
    counts: frozenset[Gate] = frozenset(Gate)


@dataclass(frozen=True, slots=True)
class Times:
    """One box: the time that 19 of 20 analyses kept to before, and now on ``n`` of them."""

    n_before: int
    p95_before: float
    n: int
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the gates look at.

    Attributes:
        boxes: Of the wave.
        late: Of earlier waves, that ended since this one began.
        strata: Of the wave: alerts before and now.
        times: The same of latency.
        engines: Boxes where the version runs.
        not_ready: Those among them whose engine was refused or fell back.
        looks: What earlier looks at alerts found, by number.
        accepted: Gates that a person went on in spite of.
    """

    boxes: Sequence[Seen]
    late: Sequence[Seen] = ()
    strata: Sequence[Stratum] = ()
    times: Sequence[Times] = ()
    engines: int = 0
    not_ready: int = 0
    looks: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    accepted: frozenset[Gate] = frozenset()


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdicts of all gates, and the looks that have been taken."""

    verdicts: tuple[Verdict, ...]
    looks: dict[str, dict[str, Any]]


def judge(facts: Facts, gates: Gates) -> Judged:
    """What each gate says now."""
    alerts, looks = _alerts(facts, gates)
    found = (_failures(facts, gates), _safety(facts, gates), _latency(facts, gates), alerts, _acceptance(facts, gates))
    return Judged(
        tuple(
            one.model_copy(update={"accepted": one.word == "not_judged" and one.gate in facts.accepted})
            for one in found
        ),
        looks,
    )


def is_settled(boxes: Sequence[Seen], gates: Gates) -> bool:
    """Whether nearly all boxes that are there have come to an end, and none is still to be told."""
    if any(one.word is BoxWord.WAITING for one in boxes):
        return False
    held_up = [one for one in boxes if one.word in OPEN and not (one.word in _ASIDE and not _blocks(one))]
    ended = sum(one.word in _ENDED for one in boxes)
    # All away or waiting for their sites: nothing has come to an end at all.
    if not ended and any(one.word in _ASIDE for one in boxes):
        return False
    return ended >= gates.min_settled * (ended + len(held_up))


def _blocks(one: Seen) -> bool:
    """A box that is there and has been told will answer in a moment; a site's administrator may take a week."""
    return one.word is BoxWord.PENDING and one.is_there


def verdict_of_wave(verdicts: Sequence[Verdict], *, settled: bool, patient: bool) -> Pause | bool:
    """What follows: stand still and why, True: the next wave, False: wait.

    Args:
        verdicts: Of all gates.
        settled: The boxes have come to an end.
        patient: There is still time to see more.
    """
    for one in sorted(verdicts, key=lambda one: one.gate is not Gate.SAFETY):
        if one.word == "failed":
            return Pause[one.gate.name]
    if settled and all(one.word == "passed" or one.accepted for one in verdicts):
        return True
    return False if patient else Pause.NOT_JUDGED


def _enough(facts: Facts, gates: Gates) -> int:
    """Ends without which nothing is said: the least, or of a small wave all that can come."""
    able = sum(one.word in _ENDED | OPEN | {BoxWord.SOAK_NOT_JUDGED} for one in facts.boxes)
    return max(1, min(gates.min_ended, able))


def _failures(facts: Facts, gates: Gates) -> Verdict:
    ended = [one for one in (*facts.boxes, *facts.late) if one.word in _ENDED and Gate.FAILURES in one.counts]
    bad = [one for one in ended if one.word in _BAD]
    enough = _enough(facts, gates)
    share = len(bad) / len(ended) if ended else None
    if share is not None and share > gates.max_failed and len(ended) >= min(gates.failed_from, enough):
        word = "failed"
    else:
        word = "passed" if len(ended) >= enough else "not_judged"
    return Verdict.model_validate(
        {
            "gate": Gate.FAILURES,
            "word": word,
            "n": len(ended),
            "needed": enough,
            "value": share,
            "bound": gates.max_failed,
            "codes": dict(Counter(one.code or "UNKNOWN" for one in bad)),
        }
    )


def _safety(facts: Facts, gates: Gates) -> Verdict:
    told = [one for one in (*facts.boxes, *facts.late) if Gate.SAFETY in one.counts]
    bad = Counter(one.code for one in told if one.word in _BAD and one.code in gates.safety_codes)
    ended, enough = sum(one.word in _ENDED for one in told), _enough(facts, gates)
    word = "failed" if bad else "passed" if ended >= enough else "not_judged"
    return Verdict.model_validate(
        {"gate": Gate.SAFETY, "word": word, "n": ended, "needed": enough, "value": float(bad.total()), "bound": 0.0}
        | {"codes": dict(bad)}
    )


def _latency(facts: Facts, gates: Gates) -> Verdict:
    told = [one for one in facts.times if one.n_before and one.n]
    n = sum(one.n for one in told)
    basis = {"gate": Gate.LATENCY, "n": n, "needed": gates.latency_n, "bound": gates.latency_factor}
    if n < gates.latency_n or sum(one.n_before for one in told) < gates.latency_n:
        return Verdict.model_validate({**basis, "word": "not_judged"})
    # The same weights on both sides: a box that sees more now changes nothing by that.
    before = sum(one.n * one.p95_before for one in told) / n
    now = sum(one.n * one.p95 for one in told) / n
    is_slower = now > gates.latency_factor * before + gates.latency_more_ms
    figures = {"before_ms": round(before, 1), "now_ms": round(now, 1)}
    return Verdict.model_validate(
        {**basis, "word": "failed" if is_slower else "passed", "value": now / before if before else None}
        | {"figures": figures}
    )


def _alerts(facts: Facts, gates: Gates) -> tuple[Verdict, dict[str, dict[str, Any]]]:
    strata = [one for one in facts.strata if one.n_before and one.n_now]
    n, k = sum(one.n_now for one in strata), sum(one.k_now for one in strata)
    n_before, k_before = sum(one.n_before for one in strata), sum(one.k_before for one in strata)
    enough = needed(
        n_before,
        k_before,
        alpha=gates.alpha,
        power=gates.power,
        factor=gates.alert_factor,
        tolerance=gates.alert_tolerance,
    )
    looks = dict(facts.looks)
    look = look_of(n)
    if look is not None and str(look) not in looks and all(int(taken) < look for taken in looks):
        more, fewer = tails(strata, gates.alert_tolerance)
        looks[str(look)] = {
            "n": n,
            "p": min(more, fewer),
            "level": level(gates.alpha, look) / 2,
            "stops": min(more, fewer) <= level(gates.alpha, look) / 2,
        }
    stops = any(one["stops"] for one in looks.values())
    word = "failed" if stops else "passed" if enough is not None and n >= enough else "not_judged"
    figures = {
        "alpha": gates.alpha,
        "power": gates.power,
        "factor": gates.alert_factor,
        "tolerance": gates.alert_tolerance,
        "n_before": float(n_before),
        **({"rate_before": k_before / n_before} if n_before else {}),
        **({"rate": k / n} if n else {}),
        **({"p": min(one["p"] for one in looks.values()), "looks": float(len(looks))} if looks else {}),
    }
    verdict = Verdict.model_validate(
        {
            "gate": Gate.ALERTS,
            "word": word,
            "n": n,
            "needed": enough or 0,
            "value": odds_ratio(strata),
            "bound": gates.alert_factor,
            "figures": figures,
        }
    )
    return verdict, looks


def _acceptance(facts: Facts, gates: Gates) -> Verdict:
    gone = sum(one.word in _BAD for one in facts.boxes)
    enough = max(1, min(_enough(facts, gates), sum(one.word in _ENDED for one in facts.boxes) - gone))
    share = facts.not_ready / facts.engines if facts.engines else None
    if share is not None and share > gates.max_not_ready:
        word = "failed"
    else:
        word = "passed" if facts.engines >= enough else "not_judged"
    return Verdict.model_validate(
        {"gate": Gate.ACCEPTANCE, "word": word, "n": facts.engines, "needed": enough, "value": share}
        | {"bound": gates.max_not_ready}
    )
