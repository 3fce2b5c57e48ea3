"""Lines in the coordinates of SCOORD and of presentation states: half a pixel from ours, and around the whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import Region
from appliance.report.places import contours, outline


def test_a_box_runs_around_the_outer_edges_of_its_pixels_and_closes():
    box = Region(sop_instance_uid="1", kind="box", points=((10.0, 20.0), (30.0, 45.0)))
    assert outline(box).tolist() == [[10, 20], [31, 20], [31, 46], [10, 46], [10, 20]]


def test_a_point_lies_in_the_middle_of_its_pixel():
    assert outline(Region(sop_instance_uid="1", kind="point", points=((4.0, 5.0),))).tolist() == [[4.5, 5.5]]


def filled(lines, shape):
    inside = np.zeros(shape, np.uint8)
    cv2.fillPoly(inside, [np.rint((line - 0.5) * 16).astype(np.int32) for line in lines], 1, shift=4)
    return inside.astype(bool)


@given(centre=st.tuples(st.floats(0, 60), st.floats(0, 80)), radii=st.tuples(st.floats(0.6, 30), st.floats(0.6, 30)))
def test_contours_follow_a_mask_within_a_pixel_with_few_points(centre, radii):
    y, x = np.mgrid[:60, :80]
    mask = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    lines = contours(mask)
    assert bool(lines) == bool(mask.any())
    assert all(np.array_equal(line[0], line[-1]) for line in lines), "a line must close"
    assert sum(map(len, lines)) <= 120
    near = np.ones((3, 3), np.uint8)
    drawn = filled(lines, mask.shape)
    assert np.all(cv2.dilate(mask.astype(np.uint8), near)[drawn])
    assert np.all(cv2.dilate(drawn.astype(np.uint8), near)[mask])


@pytest.mark.parametrize("mask", [[(5, 5)], [(5, 5), (5, 6)]])
def test_a_speck_has_a_box_around_it(mask):
    speck = np.zeros((10, 10), bool)
    for row, column in mask:
        speck[row, column] = True
    (line,) = contours(speck)
    assert line.tolist() == [[5, 5], [5 + len(mask), 5], [5 + len(mask), 6], [5, 6], [5, 5]]


def test_a_hole_has_a_line_of_its_own():
    ring = np.zeros((40, 40), bool)
    ring[5:35, 5:35] = True
    ring[15:25, 15:25] = False
    assert len(contours(ring)) == 2
