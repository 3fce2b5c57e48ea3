"""Heads not received as they are: cut off, slices out of order, densities shifted. None may pass in silence."""

from __future__ import annotations

import dataclasses

import ball_head
import numpy as np
import pytest

from engines.errors import ContentError
from engines.heads.head_cover import HeadCover
from engines.preprocess.base import Assembled
from engines.types import Prepared, Stack

FINDING = "hyperdensity"

pytestmark = pytest.mark.req("R-MODEL-07")


def _taken(head, keep):
    """The slices ``keep`` at their own positions."""
    keep = list(keep)
    return dataclasses.replace(
        head,
        array=head.array[keep],
        slice_ids=tuple(head.slice_ids[k] for k in keep),
        positions_mm=tuple(head.positions_mm[k] for k in keep),
    )


def _moved(head, order):
    """All slices, in another order at the same positions."""
    return dataclasses.replace(head, array=head.array[np.asarray(order)])


def _feet_first(head):
    return dataclasses.replace(
        head,
        array=head.array[::-1],
        slice_ids=head.slice_ids[::-1],
        positions_mm=tuple(-p for p in reversed(head.positions_mm)),
        normal=(0.0, 0.0, -1.0),
    )


def _refusal(pipeline, head):
    with pytest.raises(ContentError) as caught:
        pipeline.run_volume(head)
    return caught.value


# -- cut off ---------------------------------------------------------------------------------------------------------

#: What is lost of 30 slices of 5 mm, and the words that say where.
CUTS = {
    "top": (range(24), "at the top:"),
    "base": (range(6, 30), "at the base:"),
    "both": (range(5, 25), "at the top and at the base:"),
}


@pytest.mark.parametrize("turned", [False, True], ids=["rising to the vertex", "falling from the vertex"])
@pytest.mark.parametrize("end", CUTS)
def test_head_that_is_cut_off_and_shows_nothing_is_incomplete(head_pipeline, end, turned):
    keep, told = CUTS[end]
    head = _taken(ball_head.head(30), keep)
    refused = _refusal(head_pipeline, _feet_first(head) if turned else head)
    assert refused.reason == "incomplete"
    assert told in str(refused)
    assert "has 0 ml" in str(refused)


@pytest.mark.parametrize("end", CUTS)
def test_bleed_in_a_head_that_is_cut_off_is_found_with_a_warning(head_pipeline, end):
    keep, told = CUTS[end]
    whole = ball_head.head(31, balls=[ball_head.ball(12)])
    output = head_pipeline.run_volume(_taken(whole, keep)).output
    assert output.scores[FINDING] == pytest.approx(12, rel=0.15)
    (warning,) = output.warnings
    assert told.rstrip(":") in str(warning)
    assert "there may be more" in str(warning)


def test_whole_head_has_no_warning(head_pipeline):
    output = head_pipeline.run_volume(ball_head.head(31, balls=[ball_head.ball(12)])).output
    assert output.warnings == ()
    assert max(output.numbers["top_cm2"], output.numbers["base_cm2"]) < HeadCover().end_cm2 / 2


def test_small_region_in_a_head_that_is_cut_off_is_not_scored_but_named(head_pipeline):
    """A site may flag from 3 ml only: 2 ml must not become "nothing flagged" in half of a head."""
    head = ball_head.head(32, balls=[ball_head.ball(2)])
    refused = _refusal(head_pipeline, _taken(head, range(24)))
    assert refused.reason == "incomplete"
    assert 1.3 < refused.message.values["volume"] < 2.7


def test_region_that_lifts_the_refusal_is_flagged_at_every_operating_point(head_pipeline, head_package):
    points = head_package.manifest.finding(FINDING).operating_points
    assert head_pipeline.head.cover.flagged_ml == max(point.threshold for point in points)


@pytest.fixture
def jaws():
    """``jaws(hu=..., narrow=...)``: HU, inside and sizes of a head with a room of 80 cm2 in its lowest slabs."""

    def make(*, hu=34.0, narrow=False, slabs=20, slab_mm=7.5, normal=(0.0, 0.0, 1.0)):
        y, x = np.ogrid[-100:100, -100:100]
        area = np.concatenate([np.full(4, 80.0), np.linspace(90, 160, slabs // 2), np.linspace(150, 10, slabs // 2)])
        if narrow:
            area[4] = 20
        inside = np.stack([np.hypot(x, y) < np.sqrt(a * 100 / np.pi) for a in area])
        density = np.full(inside.shape, 34.0, np.float32)
        density[:4] = hu
        picture = Prepared(id="a", array=np.zeros((200, 200), np.int16), shape=(200, 200), spacing_mm=(1.0, 1.0))
        stack = Stack(slices=(picture,), normal=normal)
        return density, inside, Assembled(tensors={}, stack=stack, thickness_mm=(slab_mm,) * len(area))

    return make


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("jaws enclose muscle", {"hu": 58.0}),
        ("jaws enclose air", {"hu": -700.0}),
        ("the base of the skull was seen to close", {"narrow": True}),
        ("so far below the vertex there is no brain", {"slab_mm": 9.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_jaws_enclose_is_not_taken_for_brain(jaws, why, change):
    given = {"slab_mm": 6.0} | change
    warnings, numbers = HeadCover().check(*jaws(**given), 34.0, 0.0)
    assert warnings == (), why
    assert numbers["base_cm2"] == pytest.approx(80, abs=1)


def test_brain_in_the_lowest_slab_is_a_head_that_is_cut_off(jaws):
    with pytest.raises(ContentError, match="cut off at the base"):
        HeadCover().check(*jaws(slab_mm=6.0), 34.0, 0.0)


# -- out of order ----------------------------------------------------------------------------------------------------

ORDERS = {
    "no order": lambda n: np.random.default_rng(3).permutation(n),
    "odd slices after even ones": lambda n: np.r_[0:n:2, 1:n:2],
    "halves exchanged": lambda n: np.r_[n // 2 : n, 0 : n // 2],
}


@pytest.mark.parametrize("thickness", [1.25, 5.0, 7.0])
@pytest.mark.parametrize("order", ORDERS)
def test_slices_that_do_not_follow_one_another_are_not_scored(head_pipeline, order, thickness):
    head = ball_head.head(33, balls=[ball_head.ball(12)], thickness_mm=thickness)
    refused = _refusal(head_pipeline, _moved(head, ORDERS[order](len(head.array))))
    # Thin slices in no order blur to slabs that are no head at all.
    assert refused.reason == "quality" or (thickness, order) == (1.25, "no order")
    assert "do not follow one another" in str(refused) or refused.reason == "out_of_envelope"


@pytest.mark.parametrize("thickness", [5.0, 7.0])
def test_each_pair_of_thick_slices_swapped_is_not_scored(head_pipeline, thickness):
    head = ball_head.head(34, thickness_mm=thickness)
    order = np.arange(len(head.array))
    order[: len(order) // 2 * 2] = order[: len(order) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    refused = _refusal(head_pipeline, _moved(head, order))
    assert refused.reason == "quality"
    assert "neighbours differ" in str(refused)


# -- densities shifted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-12, 12])
@pytest.mark.parametrize("brain", [30.0, 34.0, 38.0])
@pytest.mark.parametrize("noise", [3.0, 8.0])
def test_scanner_that_is_12_hu_off_is_not_scored(head_pipeline, brain, noise, shift):
    head = ball_head.head(35, brain_hu=brain, noise_hu=noise)
    refused = _refusal(head_pipeline, dataclasses.replace(head, array=head.array + np.int16(shift)))
    assert refused.reason in {"quality", "out_of_envelope"}
    assert "densities are shifted" in str(refused) or "the median of the inside" in str(refused)


@pytest.mark.parametrize("brain", [30.0, 34.0, 38.0])
@pytest.mark.parametrize("shift", [-3, 0, 3])
def test_scanner_within_its_tolerance_is_scored(head_pipeline, brain, shift):
    head = ball_head.head(36, balls=[ball_head.ball(12)], brain_hu=brain)
    moved = dataclasses.replace(head, array=head.array + np.int16(shift))
    assert head_pipeline.run_volume(moved).output.scores[FINDING] == pytest.approx(12, rel=0.15)


# -- what is bright and no bleed, and a bleed beside fluid -----------------------------------------------------------


def test_bleed_surrounded_by_fluid_is_measured_as_one_in_the_brain(head_pipeline):
    """A voxel half of blood and half of fluid is as dark as brain, and half of it is blood all the same."""
    within = ball_head.ball(3, 62, centre=(13.0, -8.0, 10.0))
    head = ball_head.head(37, balls=[within], thickness_mm=2.5)
    assert head_pipeline.run_volume(head).output.scores[FINDING] == pytest.approx(3, rel=0.12)
