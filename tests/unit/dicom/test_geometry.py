from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dicom.geometry import Gap, SlicePlace, regular, sort_slices
from appliance.errors import NotAnalysable
from appliance.records import Reason

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

pytestmark = [pytest.mark.req("R-TRIAGE-07"), pytest.mark.fault("T32")]


def axial(*heights, thickness=5.0, tilt_deg=0.0):
    """Slices at these heights; a tilted gantry shifts each in plane as it goes up."""
    angle = math.radians(tilt_deg)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle))
    return [SlicePlace((-100.0, -100.0, float(z)), orientation, thickness) for z in heights]


@given(st.permutations(range(12)))
def test_slices_are_put_in_order_by_position_however_they_came(order):
    slices = axial(*[5.0 * n for n in order])
    geometry = sort_slices(slices)
    assert [slices[index].position[2] for index in geometry.order] == [5.0 * n for n in range(12)]
    assert geometry.spacing_mm == pytest.approx(5)
    assert geometry.regular
    assert geometry.plane == "axial"
    assert geometry.tilt_deg == 0
    assert regular(slices)


def test_spacing_comes_from_positions_and_not_from_thickness():
    assert sort_slices(axial(0, 2.5, 5, 7.5, thickness=5.0)).spacing_mm == pytest.approx(2.5)


def test_a_block_of_missing_slices_is_named_by_number_and_position():
    slices = axial(*(5 * n for n in range(20) if n not in {7, 8, 9}))
    geometry = sort_slices(slices)
    assert geometry.gaps == (Gap(first_number=8, count=3, after_mm=30.0, before_mm=50.0),)
    assert geometry.gaps[0].last_number == 10
    assert geometry.missing == 3
    assert not geometry.uneven
    assert not regular(slices)


def test_two_holes_are_numbered_in_the_series_as_it_was():
    geometry = sort_slices(axial(*(2.5 * n for n in range(30) if n not in {3, 20, 21})))
    assert [(gap.first_number, gap.count) for gap in geometry.gaps] == [(4, 1), (21, 2)]


def test_every_second_slice_thick_is_uneven_and_not_missing():
    thin = axial(*(2.5 * n for n in range(12)), thickness=2.5)
    thick = axial(*(27.5 + 3.75 + 5 * n for n in range(6)), thickness=5.0)
    geometry = sort_slices(thin + thick)
    assert geometry.uneven
    assert geometry.missing == 0
    assert not regular(thin + thick)


def test_a_protocol_that_doubles_step_and_thickness_misses_nothing():
    geometry = sort_slices(axial(0, 5, 10, 15, 20, thickness=5.0) + axial(30, 40, thickness=10.0))
    assert geometry.missing == 0
    assert geometry.uneven


def test_slices_at_one_position_are_named_and_only_one_of_them_is_kept():
    slices = [*axial(0, 5, 10, 15), *axial(5, 5, 15)]
    geometry = sort_slices(slices)
    assert geometry.duplicates == ((1, 4, 5), (3, 6))
    assert geometry.order == (0, 1, 2, 3)
    assert geometry.spacing_mm == pytest.approx(5)
    assert not regular(slices)


@pytest.mark.parametrize("degrees", [1.0, 12.5, 20.0, -15.0])
def test_a_tilted_gantry_is_told_by_its_angle(degrees):
    geometry = sort_slices(axial(*(5 * n for n in range(10)), tilt_deg=degrees))
    assert geometry.tilt_deg == pytest.approx(abs(degrees), abs=0.01)
    # The distance that a volume needs is the one along the normal.
    assert geometry.spacing_mm == pytest.approx(5 * math.cos(math.radians(degrees)))
    assert geometry.plane == "axial"
    assert geometry.regular


def test_an_oblique_reformat_along_its_own_normal_is_no_tilt():
    angle = math.radians(30)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle))
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [SlicePlace(tuple(3.0 * n * normal), orientation) for n in range(8)]
    assert sort_slices(slices).tilt_deg == 0


def test_half_a_degree_of_scatter_is_no_tilt():
    assert sort_slices(axial(0, 5, 10, tilt_deg=0.4)).tilt_deg == 0


@pytest.mark.parametrize(
    ("orientation", "step", "plane"),
    [
        (AXIAL, (0, 0, 3), "axial"),
        (CORONAL, (0, 3, 0), "coronal"),
        (SAGITTAL, (-3, 0, 0), "sagittal"),
        ((1.0, 0.0, 0.0, 0.0, math.sqrt(0.5), -math.sqrt(0.5)), (0, 3, 3), "oblique"),
    ],
)
def test_the_plane_is_read_from_the_orientation(orientation, step, plane):
    slices = [SlicePlace(tuple(float(n * x) for x in step), orientation) for n in range(5)]
    geometry = sort_slices(slices)
    assert geometry.plane == plane
    assert geometry.spacing_mm > 0


def test_one_slice_has_no_spacing_and_cannot_show_that_a_series_is_whole():
    geometry = sort_slices(axial(12.5))
    assert (geometry.order, geometry.spacing_mm, geometry.gaps) == ((0,), None, ())
    assert not regular(axial(12.5))
    assert not regular([])


def test_rounded_positions_are_even():
    slices = axial(*(round(0.625 * n, 1) for n in range(60)), thickness=0.625)
    assert sort_slices(slices).missing == 0
    assert regular(axial(*(round(0.625 * n, 2) for n in range(60))))


@pytest.mark.parametrize(
    "slices",
    [
        [],
        [*axial(0, 5), SlicePlace((0.0, 0.0, 10.0), CORONAL)],
        [*axial(0, 5), SlicePlace((0.0, 0.0, 10.0), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))],
        [SlicePlace((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0))],
        [SlicePlace((0.0, 0.0, 0.0), (2.0, 0.0, 0.0, 0.0, 1.0, 0.0))],
        [SlicePlace((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.7, 0.7, 0.0))],
    ],
)
def test_slices_that_make_no_volume_are_not_analysable(slices):
    with pytest.raises(NotAnalysable) as refused:
        sort_slices(slices)
    assert refused.value.reason is Reason.OUT_OF_ENVELOPE
    assert not regular(slices)


@given(st.sets(st.integers(1, 38), max_size=6), st.integers(0, 1000), st.sampled_from([0.5, 0.625, 1.25, 5.0, 10.0]))
def test_whatever_is_missing_is_counted(missing, seed, spacing):
    chance = random.Random(seed)
    heights = [spacing * n + chance.uniform(-0.004, 0.004) for n in range(40) if n not in missing]
    chance.shuffle(heights)
    geometry = sort_slices(axial(*heights, thickness=spacing))
    assert geometry.missing == len(missing)
    named = {n - 1 for gap in geometry.gaps for n in range(gap.first_number, gap.last_number + 1)}
    assert named == missing
