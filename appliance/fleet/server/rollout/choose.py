"""Which boxes go in which wave. Pure and deterministic: the same boxes and the same roll-out give the same waves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.fleet.server.rollout.plan import Chosen, LeftOut

#: (modality, make, model) of a source, as it told them.
Source = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A box as the server knows it.

    Attributes:
        country: Of its site.
        hardware: What it told at its enrolment; "" where nothing.
        studies: Of its last day.
        has_it: The version serves there in the role that is wanted.
        held: A hold stands over it.
    """

    device: str
    site: str
    tenant: str
    country: str = ""
    hardware: str = ""
    is_enrolled: bool = True
    is_online: bool = True
    studies: int = 0
    sources: frozenset[Source] = frozenset()
    has_it: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Names and boxes of the waves in order; boxes without one and why; kinds that no canary has."""

    waves: list[tuple[str, list[str]]] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    not_covered: list[str] = field(default_factory=list)


def choose(
    candidates: Sequence[Candidate], chosen: Chosen, shares: Sequence[float], seed: str, *, least_studies: int = 0
) -> Choice:
    """Put boxes into waves: the lab, canaries that cover every make and model, then shares of all.

    Args:
        candidates: All boxes of the choice.
        chosen: What is asked for.
        shares: Of all boxes, cumulative and rising to 1.
        seed: Of the roll-out: boxes that nothing else tells apart go in its order.
        least_studies: A box that sees fewer a day is no canary.
    """
    choice = Choice()
    fit: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: _rank(seed, one.device)):
        why = _why_not(one, chosen)
        if why is None:
            fit.append(one)
        else:
            choice.left_out[one.device] = why
    lab = [one.device for one in fit if one.device in chosen.lab]
    rest = [one for one in fit if one.device not in chosen.lab]
    free = [one for one in rest if not one.held]
    there = [one for one in free if one.is_online]
    # Some go first, whatever they are: a first wave of half of all boxes would be worse than slow canaries.
    able = [one for one in there if one.studies >= least_studies] or there or free
    canaries = _cover(able, chosen.canaries)
    seen = set().union(*(kinds_of(one) for one in canaries))
    wanted = set().union(*(kinds_of(one) for one in fit))
    choice.not_covered.extend(sorted(wanted - seen))
    taken = {*lab, *(one.device for one in canaries)}
    if lab:
        choice.waves.append(("lab", lab))
    if canaries:
        choice.waves.append(("canaries", [one.device for one in canaries]))
    # Held ones last: they are taken while their wave runs, if they are free by then.
    waiting = sorted((one for one in rest if one.device not in taken), key=lambda one: one.held)
    begun, given = len(fit) - len(waiting), 0
    for share in shares:
        until = max(given, math.ceil(share * len(fit) - 1e-9) - begun) if share < 1 else len(waiting)
        if until > given:
            choice.waves.append((f"{share:.0%}", [one.device for one in waiting[given:until]]))
            given = until
    if given < len(waiting):
        choice.waves.append(("100%", [one.device for one in waiting[given:]]))
    return choice


def kinds_of(one: Candidate) -> set[str]:
    """What a canary covers, as people read it: each make and model of its sources, and its hardware."""
    found = {f"{make} {model}".strip() for _, make, model in one.sources}
    return found | ({f"hardware {one.hardware}"} if one.hardware else set())


def _cover(able: Sequence[Candidate], least: int) -> list[Candidate]:
    """Greedily: whoever adds most kinds, from a site that has none yet where it can be; then up to ``least``."""
    found: list[Candidate] = []
    seen: set[str] = set()
    sites: set[str] = set()
    left = list(able)
    kinds = {one.device: kinds_of(one) for one in able}

    def gain(one: Candidate) -> int:
        return len(kinds[one.device] - seen)

    while left:
        elsewhere = [one for one in left if one.site not in sites]
        best = max(elsewhere, key=lambda one: (gain(one), one.studies), default=None)
        if best is None or not gain(best):
            best = max(left, key=lambda one: (gain(one), one.site not in sites, one.studies))
            if not gain(best) and len(found) >= least:
                break
        found.append(best)
        seen |= kinds[best.device]
        sites.add(best.site)
        left.remove(best)
    return found


def _why_not(one: Candidate, chosen: Chosen) -> LeftOut | None:
    if not one.is_enrolled:
        return LeftOut.NOT_ENROLLED
    if one.has_it:
        return LeftOut.HAS_IT
    if chosen.countries and one.country not in chosen.countries:
        return LeftOut.COUNTRY
    if chosen.modalities and not any(modality in chosen.modalities for modality, _, _ in one.sources):
        return LeftOut.NO_SOURCE
    return None


def _rank(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed} {device}".encode()).digest()
