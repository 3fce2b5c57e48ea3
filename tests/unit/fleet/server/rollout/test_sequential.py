"""The test of alert rates: exact where it says so, right about its errors, and without a preference for a direction."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.server.rollout.sequential import (
    FIRST,
    Stratum,
    level,
    look_of,
    needed,
    odds_ratio,
    tails,
)

pytestmark = pytest.mark.req("R-FLEET-75")

ALPHA, POWER, FACTOR, TOLERANCE = 0.02, 0.9, 2.0, 1.1


@st.composite
def strata(draw):
    found = []
    for _ in range(draw(st.integers(1, 4))):
        n_before, n_now = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        found.append(Stratum(n_before, draw(st.integers(0, n_before)), n_now, draw(st.integers(0, n_now))))
    return found


def mirrored(one):
    return Stratum(one.n_before, one.n_before - one.k_before, one.n_now, one.n_now - one.k_now)


def stops(boxes, rate_before, odds, rng, *, per_box=40, most=6400):
    """Whether a wave is stopped, looked at whenever a box has told of an hour."""
    now_rate = rate_before * odds / (1 - rate_before + rate_before * odds)
    before = [(per_box * 20, sum(rng.random() < rate_before for _ in range(per_box * 20))) for _ in range(boxes)]
    now = [[0, 0] for _ in range(boxes)]
    taken = -1
    while (n := sum(one[0] for one in now)) < most:
        for one in now:
            one[0] += 10
            one[1] += sum(rng.random() < now_rate for _ in range(10))
        look = look_of(sum(one[0] for one in now))
        if look is None or look <= taken:
            continue
        taken = look
        seen = [Stratum(*was, *is_now) for was, is_now in zip(before, now, strict=True)]
        if min(tails(seen, TOLERANCE)) <= level(ALPHA, look) / 2:
            return True, n
    return False, most


def test_it_is_fishers_exact_test_where_nothing_is_tolerated():
    """A tea-tasting lady: 3 of 4 right, one-sided p = 17/70."""
    more, _ = tails([Stratum(4, 1, 4, 3)], 1.0)
    assert more == pytest.approx(17 / 70)


@given(strata())
def test_boxes_one_by_one_are_the_same_as_all_ways_of_sharing_the_flagged_ones_out(boxes):
    """Against the sum over all tables, for small boxes."""
    small = [Stratum(min(b.n_before, 5), min(b.k_before, 5), min(b.n_now, 5), min(b.k_now, 5)) for b in boxes[:2]]
    odds = TOLERANCE
    weights = {}

    def walk(rest, sum_, weight):
        if not rest:
            weights[sum_] = weights.get(sum_, 0.0) + weight
            return
        one = rest[0]
        flagged = one.k_before + one.k_now
        ways = {
            x: math.comb(one.n_now, x) * math.comb(one.n_before, flagged - x) * odds**x
            for x in range(max(0, flagged - one.n_before), min(flagged, one.n_now) + 1)
        }
        for x, way in ways.items():
            walk(rest[1:], sum_ + x, weight * way / sum(ways.values()))

    walk(small, 0, 1.0)
    seen = sum(one.k_now for one in small)
    assert tails(small, odds)[0] == pytest.approx(sum(w for x, w in weights.items() if x >= seen))


@given(strata())
def test_more_and_fewer_are_judged_alike(boxes):
    """What is flagged and what is not change places: so do the tails."""
    more, fewer = tails(boxes, TOLERANCE)
    assert tails([mirrored(one) for one in boxes], TOLERANCE) == (pytest.approx(fewer), pytest.approx(more))


@given(strata())
def test_one_flagged_more_never_makes_more_alerts_less_suspicious(boxes):
    first = boxes[0]
    if first.k_now == first.n_now:
        return
    raised = [Stratum(first.n_before, first.k_before, first.n_now, first.k_now + 1), *boxes[1:]]
    assert tails(raised, TOLERANCE)[0] <= tails(boxes, TOLERANCE)[0] + 1e-9
    assert tails(raised, TOLERANCE)[1] >= tails(boxes, TOLERANCE)[1] - 1e-9


@given(strata(), st.floats(1.0, 3.0), st.floats(1.0, 3.0))
def test_who_tolerates_more_stops_less(boxes, one, other):
    less, more = sorted((one, other))
    assert all(a <= b + 1e-9 for a, b in zip(tails(boxes, less), tails(boxes, more), strict=True))


def test_the_wide_law_and_the_exact_one_agree(monkeypatch):
    boxes = [Stratum(2000, 100, 300, 15 + k) for k in range(12)]
    exact = tails(boxes, TOLERANCE)
    monkeypatch.setattr("appliance.fleet.server.rollout.sequential._EXACT", 10)
    # Far out in the tail, and with far fewer boxes than where it is used.
    assert tails(boxes, TOLERANCE) == (pytest.approx(exact[0], rel=0.25), pytest.approx(exact[1], rel=0.01))


def test_all_looks_together_spend_no_more_than_alpha():
    assert sum(level(ALPHA, look) for look in range(60)) <= ALPHA
    assert [look_of(n) for n in (0, FIRST - 1, FIRST, 2 * FIRST - 1, 2 * FIRST, 7 * FIRST)] == [None, None, 0, 0, 1, 2]


def test_an_unchanged_rate_is_stopped_no_more_often_than_alpha_over_all_looks():
    """Type I: of 200 waves at the edge of what is tolerated alpha is 4 and of 200 unchanged ones far fewer; 7 looks."""
    rng = random.Random(20260302)
    edge = sum(stops(8, 0.08, odds, rng, most=3200)[0] for odds in (TOLERANCE, 1 / TOLERANCE) for _ in range(100))
    same = sum(stops(8, 0.08, 1.0, rng, most=3200)[0] for _ in range(200))
    assert same <= 3
    assert edge <= 8


@pytest.mark.parametrize("odds", [FACTOR, 1 / FACTOR], ids=["doubled", "halved"])
def test_a_change_that_matters_is_seen_with_the_power_that_is_stated_at_the_n_that_is_stated(odds):
    rng = random.Random(7)
    n = needed(8 * 800, round(8 * 800 * 0.08), alpha=ALPHA, power=POWER, factor=FACTOR, tolerance=TOLERANCE)
    assert n is not None
    seen = sum(stops(8, 0.08, odds, rng, most=n)[0] for _ in range(100))
    assert seen >= 85  # 90 are stated; below 85 of 100 would be 1 in 20 by chance


def test_alerts_that_vanish_are_seen_long_before_those_that_halve():
    rng = random.Random(1)
    ends = [stops(8, 0.08, 1e-9, rng) for _ in range(20)]
    assert all(stopped for stopped, _ in ends)
    n = needed(6400, 512, alpha=ALPHA, power=POWER, factor=FACTOR, tolerance=TOLERANCE)
    assert max(n for _, n in ends) < n


def test_with_little_before_no_number_is_enough():
    assert needed(30, 2, alpha=ALPHA, power=POWER, factor=FACTOR, tolerance=TOLERANCE) is None
    assert needed(0, 0, alpha=ALPHA, power=POWER, factor=FACTOR, tolerance=TOLERANCE) is None
    assert needed(100, 0, alpha=ALPHA, power=POWER, factor=FACTOR, tolerance=TOLERANCE) is None


@given(st.floats(1.6, 4.0), st.floats(1.6, 4.0), st.integers(100, 2000))
def test_smaller_changes_need_more(one, other, k_before):
    small, large = sorted((one, other))
    few, many = (
        needed(20_000, k_before, alpha=ALPHA, power=POWER, factor=f, tolerance=TOLERANCE) for f in (large, small)
    )
    assert many is None or (few is not None and few <= many)


def test_the_ratio_of_odds_is_that_within_boxes_however_they_are_mixed():
    """One box flags often, one rarely; now the first sees most patients. Pooled, that would look like a change."""
    boxes = [Stratum(100, 50, 1000, 500), Stratum(1000, 10, 100, 1)]
    assert odds_ratio(boxes) == pytest.approx(1.0, abs=0.01)
    assert min(tails(boxes, 1.0)) > 0.3
    assert odds_ratio([]) is None
