"""Which boxes are canaries, and which box is in which wave."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.server.rollout.choose import Candidate, choose, kinds_of
from appliance.fleet.server.rollout.plan import Chosen

pytestmark = pytest.mark.req("R-FLEET-74")

SHARES = (0.01, 0.1, 0.5, 1.0)
MODELS = [("CT", "Acme", "One"), ("CT", "Acme", "Two"), ("CT", "Other", "X"), ("DX", "Third", "Y")]


def box(number, *, site=None, **more):
    given = {"device": f"box-{number:07}", "site": site or f"site-{number:04}", "tenant": "hospital-01", "studies": 100}
    return Candidate(**{**given, **more})


boxes = st.lists(
    st.builds(
        dict,
        site=st.sampled_from(["site-0001", "site-0002", "site-0003"]),
        hardware=st.sampled_from(["", "orin", "l4"]),
        is_enrolled=st.booleans(),
        is_online=st.booleans(),
        held=st.booleans(),
        has_it=st.booleans(),
        studies=st.sampled_from([0, 40, 200]),
        sources=st.frozensets(st.sampled_from(MODELS), max_size=2),
    ),
    max_size=30,
).map(lambda found: [box(number, **one) for number, one in enumerate(found)])


@given(boxes, st.sets(st.integers(0, 29), max_size=2), st.integers(1, 6))
def test_every_box_is_in_one_wave_or_left_out_with_a_reason(found, lab, canaries):
    chosen = Chosen(lab=tuple(f"box-{number:07}" for number in lab), canaries=canaries, modalities=("CT",))
    choice = choose(found, chosen, SHARES, "seed", least_studies=50)
    waved = [device for _, names in choice.waves for device in names]
    assert len(waved) == len(set(waved))
    assert set(waved) | set(choice.left_out) == {one.device for one in found}
    assert not set(waved) & set(choice.left_out)
    assert all(names for _, names in choice.waves)
    by = {one.device: one for one in found}
    for device in waved:
        assert by[device].is_enrolled
        assert not by[device].has_it
        assert any(modality == "CT" for modality, _, _ in by[device].sources)


@given(boxes, st.integers(1, 6))
def test_canaries_have_every_kind_that_any_able_box_has_and_the_rest_is_named(found, canaries):
    choice = choose(found, Chosen(canaries=canaries), SHARES, "seed", least_studies=50)
    by = {one.device: one for one in found}
    fit = [one for one in found if one.device not in choice.left_out]
    free = [one for one in fit if not one.held]
    there = [one for one in free if one.is_online]
    able = [one for one in there if one.studies >= 50] or there or free
    wave = dict(choice.waves).get("canaries", [])
    assert bool(wave) is bool(free)
    assert set(wave) <= {one.device for one in able}
    covered = set().union(*(kinds_of(by[device]) for device in wave))
    assert covered == set().union(*(kinds_of(one) for one in able))
    assert set(choice.not_covered) == set().union(*(kinds_of(one) for one in fit)) - covered


def test_a_site_gives_one_canary_where_it_can_be():
    found = [box(n, site=f"site-{n % 5:04}", sources=frozenset([MODELS[n % 4]])) for n in range(40)]
    wave = dict(choose(found, Chosen(canaries=5), SHARES, "seed").waves)["canaries"]
    assert len(wave) == 5
    assert len({one.site for one in found if one.device in wave}) == 5


def test_a_site_gives_two_where_only_it_has_both_kinds():
    found = [box(n, site="site-0001", sources=frozenset([MODELS[n]])) for n in range(2)] + [box(5), box(6)]
    for least in (1, 2):
        wave = dict(choose(found, Chosen(canaries=least), SHARES, "seed").waves)["canaries"]
        assert {"box-0000000", "box-0000001"} <= set(wave)


def test_what_no_canary_can_cover_is_said_by_name():
    found = [box(1, sources=frozenset([MODELS[0]])), box(2, is_online=False, sources=frozenset([MODELS[2]]))]
    assert choose(found, Chosen(), SHARES, "seed").not_covered == ["Other X"]


def test_waves_grow_by_shares_of_all_boxes():
    choice = choose([box(n) for n in range(1000)], Chosen(lab=("box-0000003",), canaries=5), SHARES, "seed")
    assert [(name, len(names)) for name, names in choice.waves] == [
        ("lab", 1),
        ("canaries", 5),
        ("1%", 4),
        ("10%", 90),
        ("50%", 400),
        ("100%", 500),
    ]


def test_the_same_roll_out_chooses_the_same_and_another_one_other_boxes():
    found = [box(n) for n in range(200)]
    assert choose(found, Chosen(), SHARES, "a") == choose(list(reversed(found)), Chosen(), SHARES, "a")
    assert choose(found, Chosen(), SHARES, "a") != choose(found, Chosen(), SHARES, "b")


def test_held_boxes_are_never_canaries_and_come_last():
    found = [dataclasses.replace(box(n), held=n < 10) for n in range(30)]
    choice = choose(found, Chosen(canaries=3), SHARES, "seed")
    order = [device for _, names in choice.waves for device in names]
    assert set(order[-10:]) == {one.device for one in found if one.held}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"is_enrolled": False}, "NOT_ENROLLED"),
        ({"has_it": True}, "HAS_IT"),
        ({"country": "FR"}, "COUNTRY"),
        ({"sources": frozenset([MODELS[3]])}, "NO_SOURCE"),
        ({"sources": frozenset()}, "NO_SOURCE"),
    ],
)
def test_who_gets_nothing_is_told_why(change, why):
    fit = {"country": "CN", "sources": frozenset([MODELS[0]])}
    chosen = Chosen(modalities=("CT",), countries=("CN",))
    choice = choose([box(1, **{**fit, **change}), box(2, **fit)], chosen, SHARES, "seed")
    assert choice.left_out == {"box-0000001": why}
