"""From slices to a grid and back: uneven distances and a tilted gantry included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ContentError
from engines.grid import Grid, apply, resample, taps
from engines.preprocess.ct_volume import CtVolume
from engines.types import Image, Stack

EVEN = tuple(3.0 * k for k in range(12))
UNEVEN = (0.0, 1.0, 2.0, 3.5, 5.0, 7.5, 10.0, 12.5, 17.5, 22.5, 27.5, 32.5)


def stack(preprocessor, arrays, positions, spacing=(0.8, 0.8), tilt_deg=0.0):
    lean = np.tan(np.radians(tilt_deg))
    slices = tuple(
        preprocessor.prepare(Image(id=f"slice {k}", array=array, spacing_mm=spacing)) for k, array in enumerate(arrays)
    )
    shifts = tuple((p * lean, 0.0) for p in positions) if tilt_deg else ()
    return Stack(slices=slices, positions_mm=tuple(positions), tilt_deg=tilt_deg, shifts_mm=shifts)


def ball(centre_mm, radius_mm, positions, shape=(80, 90), spacing=(0.8, 0.8), tilt_deg=0.0, hu=1000):
    """A ball in air, as slices with a shear would show it: (z, y, x) in the stack's frame."""
    lean = np.tan(np.radians(tilt_deg))
    arrays = []
    for z in positions:
        y = np.arange(shape[0]) * spacing[0] + z * lean - centre_mm[1]
        x = np.arange(shape[1]) * spacing[1] - centre_mm[2]
        away = np.sqrt((z - centre_mm[0]) ** 2 + y[:, None] ** 2 + x[None, :] ** 2)
        arrays.append(np.where(away <= radius_mm, hu, -1000).astype(np.int16))
    return arrays


@settings(max_examples=30)
@given(
    tilt_deg=st.sampled_from([0.0, 12.0, -25.0]),
    positions=st.sampled_from([EVEN, UNEVEN]),
    spacing=st.sampled_from([(2.0, 1.0, 1.0), (1.0, 0.8, 0.8), (3.0, 2.0, 1.5)]),
    keep_mm=st.sampled_from([None, 0.5]),
    place=st.tuples(st.integers(2, 9), st.integers(10, 69), st.integers(10, 79)),
)
@pytest.mark.req("R-PIPE-03")
def test_a_place_in_a_slice_is_found_again_within_half_a_voxel(tilt_deg, positions, spacing, keep_mm, place):
    preprocessor = CtVolume(spacing_mm=spacing, keep_mm=keep_mm)
    arrays = [np.full((80, 90), -1000, np.int16) for _ in positions]
    made = preprocessor.assemble(stack(preprocessor, arrays, positions, tilt_deg=tilt_deg))
    member, row, column = place
    shift = positions[member] * np.tan(np.radians(tilt_deg))
    voxel = np.rint(made.grid.to_voxel((positions[member], row * 0.8 + shift, column * 0.8))).astype(int)
    assert (voxel >= 0).all()
    assert (voxel < made.grid.shape).all()
    (found,) = made.members[voxel[0]]
    x, y = made.to_picture(member, voxel[1], voxel[2])
    assert abs(made.grid.to_mm(voxel)[0] - positions[member]) <= spacing[0] / 2 + 1e-9
    assert abs(positions[found] - positions[member]) <= spacing[0] / 2 + np.diff(positions).max() / 2
    assert abs(y - row) * 0.8 <= spacing[1] / 2 + 1e-9
    assert abs(x - column) * 0.8 <= spacing[2] / 2 + 1e-9


@pytest.mark.req("R-PIPE-03")
@pytest.mark.parametrize("positions", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
def test_a_ball_is_a_ball_of_the_same_size_and_place_however_its_slices_lie(positions, tilt_deg):
    centre, radius = (14.0, 34.0, 30.0), 9.0
    preprocessor = CtVolume(spacing_mm=(1.0, 1.0, 1.0))
    arrays = ball(centre, radius, positions, tilt_deg=tilt_deg)
    made = preprocessor.assemble(stack(preprocessor, arrays, positions, tilt_deg=tilt_deg))
    dense = made.tensors["image"][0, 0] > 0
    volume = dense.sum() * made.grid.voxel_mm3
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)
    middle = made.grid.to_mm(np.argwhere(dense).mean(axis=0))
    assert np.allclose(middle, centre, atol=0.5)
    extent = np.ptp(np.argwhere(dense), axis=0) + 1
    assert extent[1] == pytest.approx(2 * radius, abs=1.5), "sheared slices would stretch it along the rows"


@pytest.mark.req("R-PIPE-03")
@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
def test_a_mask_in_the_grid_lies_over_the_same_pixels_of_every_slice(tilt_deg):
    arrays = ball((14.0, 34.0, 30.0), 9.0, UNEVEN, tilt_deg=tilt_deg)
    preprocessor = CtVolume(spacing_mm=(1.0, 0.8, 0.8))
    made = preprocessor.assemble(stack(preprocessor, arrays, UNEVEN, tilt_deg=tilt_deg))
    laid = dict(made.overlay(made.tensors["image"][0, 0] > 0).on_slices())
    for k, array in enumerate(arrays):
        truth = array > 0
        if truth.sum() > 50:
            both = 2 * (laid[f"slice {k}"] & truth).sum() / (laid[f"slice {k}"].sum() + truth.sum())
            assert both > 0.93, k


def test_equal_spacing_gives_the_very_pixels_of_the_slices():
    rng = np.random.default_rng(0)
    arrays = rng.integers(-900, 900, (5, 20, 30)).astype(np.int16)
    preprocessor = CtVolume(spacing_mm=(3.0, 0.8, 0.8))
    made = preprocessor.assemble(stack(preprocessor, arrays, EVEN[:5]))
    assert np.allclose(made.tensors["image"][0, 0], arrays, atol=1e-2)
    assert made.members == tuple((k,) for k in range(5))


def test_values_are_clipped_and_normalised_and_outside_there_is_air():
    preprocessor = CtVolume(spacing_mm=(1.0, 0.8, 0.8), clip_hu=(-100, 300), mean=50, sd=25)
    arrays = [np.full((20, 20), hu, np.int16) for hu in (-1000, 100, 3000)]
    prepared = stack(preprocessor, arrays, (0.0, 1.0, 2.0))
    made = preprocessor.assemble(prepared).tensors["image"]
    assert made.dtype == np.float32
    assert np.allclose(made[0, 0, :, 5, 5], [-6, 2, 10])
    beside = preprocessor.sample(prepared, Grid.around((1.0, -20.0, 5.0), (3, 5, 5), (1.0, 0.8, 0.8)))
    assert np.all(beside == -6)


def test_denser_slices_are_averaged_so_that_noise_falls():
    rng = np.random.default_rng(1)
    arrays = rng.normal(50, 40, (40, 60, 60)).astype(np.int16)
    preprocessor = CtVolume(spacing_mm=(4.0, 1.6, 1.6))
    made = preprocessor.assemble(stack(preprocessor, arrays, [1.0 * k for k in range(40)]))
    inner = made.tensors["image"][0, 0, 1:-1, 2:-2, 2:-2]
    assert inner.mean() == pytest.approx(50, abs=1)
    assert inner.std() < 15


def test_slices_are_kept_as_small_as_the_finest_look_needs():
    coarse, closer = CtVolume(spacing_mm=(2, 2, 2)), CtVolume(spacing_mm=(2, 2, 2), keep_mm=1.0)
    image = Image(id="a", array=np.zeros((512, 512), np.int16), spacing_mm=(0.5, 0.5))
    assert coarse.prepare(image).array.shape == (128, 128)
    assert closer.prepare(image).array.shape == (256, 256)
    assert closer.prepare(Image(id="b", array=image.array, spacing_mm=(2.0, 2.0))).array.shape == (512, 512)


@pytest.mark.parametrize(
    ("params", "arrays", "complaint"),
    [
        ({"min_slices": 9}, np.zeros((3, 20, 20), np.int16), "3 slices, at least 9"),
        ({"max_voxels": 100}, np.zeros((3, 20, 20), np.int16), "million voxels is not covered"),
        ({}, [np.zeros((20, 20), np.int16)] * 2 + [np.zeros((20, 21), np.int16)], "differ in size"),
    ],
)
def test_a_stack_that_cannot_be_resampled_is_out_of_envelope(params, arrays, complaint):
    preprocessor = CtVolume(spacing_mm=(1, 1, 1), **params)
    with pytest.raises(ContentError, match=complaint) as caught:
        preprocessor.assemble(stack(preprocessor, arrays, (0.0, 1.0, 2.0)))
    assert caught.value.reason == "out_of_envelope"
    with pytest.raises(ContentError, match="pixel spacing"):
        preprocessor.prepare(Image(id="a", array=np.zeros((9, 9), np.int16)))


@given(
    gaps=st.lists(st.floats(0.2, 9), min_size=1, max_size=20),
    spacing=st.floats(0.3, 12),
    first=st.floats(-1, 1),
    slope=st.floats(-3, 3),
)
def test_what_rises_evenly_rises_evenly_after_resampling(gaps, spacing, first, slope):
    nodes = np.concatenate([[0.0], np.cumsum(gaps)])
    targets = np.arange(first, nodes[-1] + 2, spacing)
    found = taps(nodes, targets, spacing)
    total = found.weights.sum(axis=1)
    assert np.all(np.isclose(total, 1, atol=1e-5) | (total == 0))
    ends = (targets >= nodes[0] - gaps[0] / 2) & (targets <= nodes[-1] + gaps[-1] / 2)
    assert np.array_equal(found.is_inside, ends)
    wide = np.all(np.asarray(gaps) >= spacing)
    inner = (targets >= nodes[0]) & (targets <= nodes[-1])
    if wide:
        out = apply(found, (slope * nodes).astype(np.float32), 0)
        assert np.allclose(out[inner], slope * targets[inner], atol=1e-2)


def test_dense_slices_beside_wide_ones_count_for_what_they_stand_for():
    nodes = np.array([0, 0.5, 1, 1.5, 2, 3, 4])
    found = taps(nodes, np.array([2.0]), 2.0)
    assert apply(found, nodes.astype(np.float32), 0)[0] == pytest.approx(2, abs=0.1)


def test_the_output_of_a_graph_with_strides_lies_over_the_same_box():
    grid = Grid(shape=(8, 16, 16), spacing_mm=(2.0, 1.0, 1.0), origin_mm=(5.0, 0.0, 0.0))
    half = grid.divided((4, 8, 8))
    assert (half.low_mm, half.high_mm) == (grid.low_mm, grid.high_mm)
    assert half.to_mm((0, 0, 0)) == (6.0, 0.5, 0.5)
    values = np.zeros((8, 16, 16), np.float32)
    values[2:4, 4:6, 8:10] = 1
    assert np.argwhere(resample(values, grid, half) > 0.3).tolist() == [[1, 2, 4]]
