from __future__ import annotations

import numpy as np
import pytest

from engines.errors import ContentError
from engines.heads.brain_guard import BrainGuard
from engines.preprocess.base import Assembled
from engines.types import Prepared, Stack

SLABS = 20
RADIUS = 60


@pytest.fixture
def head():
    """``head()``: HU, inside and sizes of a round head that every bound of the guard accepts."""
    y, x = np.ogrid[-100:100, -100:100]
    radius = np.broadcast_to(np.hypot(x, y), (SLABS, 200, 200))
    rng = np.random.default_rng(0)
    hu = np.where(radius < RADIUS, 34, np.where(radius < RADIUS + 6, 900, -1000)) + rng.normal(0, 3, radius.shape)
    hu[:, 95:105, 90:110] = 5 + rng.normal(0, 3, (SLABS, 10, 20))
    inside = radius < RADIUS
    picture = Prepared(id="a", array=np.zeros((200, 200), np.int16), shape=(200, 200), spacing_mm=(1.0, 1.0))
    assembled = Assembled(tensors={}, stack=Stack(slices=(picture,)), thickness_mm=(5.0,) * SLABS)
    return hu.astype(np.float32), inside.copy(), assembled


def _refused(hu, inside, assembled):
    with pytest.raises(ContentError) as caught:
        BrainGuard().check(hu, inside, assembled)
    assert caught.value.reason == "out_of_envelope"
    return str(caught.value)


def test_head_is_measured(head):
    numbers = BrainGuard().check(*head)
    assert numbers["brain_mm"] == 100
    assert numbers["brain_ml"] == pytest.approx(np.pi * 6**2 * 10, rel=0.02)
    assert numbers["brain_hu"] == pytest.approx(34, abs=0.5)
    assert numbers["ring_share"] == 1
    assert numbers["flat_share"] == 0


@pytest.mark.req("R-MODEL-06")
def test_skull_that_does_not_close_around_is_refused(head):
    hu, inside, assembled = head
    hu[:, :, 140:] = np.minimum(hu[:, :, 140:], 60)
    assert "of the directions meet bone" in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
def test_fat_and_air_inside_are_refused(head):
    hu, inside, assembled = head
    hu[:, 50:80, 60:140] = -100
    assert "neither fat nor air" in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize(("factor", "shift", "complaint"), [(1, 20, "median"), (1, -15, "median"), (9, -270, "spread")])
def test_densities_that_no_brain_has_are_refused(head, factor, shift, complaint):
    hu, inside, assembled = head
    hu[inside] = hu[inside] * factor + shift
    assert complaint in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
def test_filling_without_fluid_is_refused(head):
    hu, inside, assembled = head
    hu[inside & (hu < 20)] = 30.5
    assert "is fluid" in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
def test_pixels_without_grain_are_refused(head):
    hu, inside, assembled = head
    hu[:, ::2] = hu[:, 1::2]
    hu[:, :, ::2] = hu[:, :, 1::2]
    hu[1::2] = hu[::2]
    hu[2::4] = hu[::4]
    hu[3::4] = hu[::4]
    assert "neighbouring pixels are equal" in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize(("slabs", "complaint"), [(11, "show the inside of a skull"), (0, "show the inside")])
def test_too_little_brain_is_refused(head, slabs, complaint):
    hu, inside, assembled = head
    inside[slabs:] = False
    assert complaint in _refused(hu, inside, assembled)


@pytest.mark.req("R-MODEL-06")
def test_room_larger_than_any_skull_is_refused(head):
    hu, inside, assembled = head
    wide = Assembled(tensors={}, stack=assembled.stack, thickness_mm=(12.0,) * SLABS)
    assert "ml inside the skull" in _refused(hu, inside, wide)
