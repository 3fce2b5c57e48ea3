"""Overlapping patches: every voxel is covered, and a graph that changes nothing changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import SessionError
from engines.manifest import Tile
from engines.tiles import mean_of, run_in_tiles, tile_starts, tile_weights


class Graph:
    """Does ``does`` to the tensor ``x`` and remembers how often."""

    def __init__(self, does=lambda x: x):
        self._does = does
        self.shapes = []

    def run(self, tensors):
        self.shapes.append(tensors["x"].shape)
        return {"y": self._does(tensors["x"])}


def volume(*shape):
    return np.random.default_rng(0).normal(0, 1, (1, 1, *shape)).astype(np.float32)


@given(length=st.integers(1, 400), patch=st.integers(1, 128), overlap=st.sampled_from([0, 0.25, 0.5, 0.75, 0.9]))
@pytest.mark.req("R-PIPE-02")
def test_patches_cover_every_voxel_stay_inside_and_overlap_as_asked(length, patch, overlap):
    length = max(length, patch)
    starts = tile_starts(length, patch, overlap)
    covered = np.zeros(length, int)
    for start in starts:
        assert 0 <= start <= length - patch
        covered[start : start + patch] += 1
    assert covered.min() >= 1
    steps = np.diff(starts)
    assert steps.max(initial=0) <= np.ceil(patch * (1 - overlap)) or len(starts) == 1
    assert (steps > 0).all(), "no patch is run twice"


def test_patches_lie_where_nnunet_lays_them():
    # compute_steps_for_sliding_window((30, 224, 224), (28, 192, 192), 0.5) of nnU-Net.
    assert [tile_starts(n, p, 0.5) for n, p in ((30, 28), (224, 192), (224, 192))] == [(0, 2), (0, 32), (0, 32)]
    assert tile_starts(300, 128, 0.5) == (0, 57, 115, 172)


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 21)] * 3),
    patch=st.tuples(*[st.integers(1, 9)] * 3),
    overlap=st.sampled_from([0, 0.5, 0.7]),
    weights=st.sampled_from(["gaussian", "uniform"]),
    mirrored=st.sets(st.integers(0, 2)),
)
@pytest.mark.req("R-PIPE-02")
def test_a_graph_that_changes_nothing_gives_the_volume_back_mirrored_and_padded_too(
    shape, patch, overlap, weights, mirrored
):
    tile = Tile(patch=patch, overlap=overlap, weights=weights, mirror_axes=tuple(sorted(mirrored)))
    x = volume(*shape)
    out = run_in_tiles([Graph(), Graph()], {"x": x}, tile)["y"]
    assert out.shape == x.shape
    assert np.allclose(out, x, atol=1e-5)


def test_a_mirrored_patch_is_turned_back_before_it_counts():
    x = volume(8, 8, 8)
    ramp = np.arange(8, dtype=np.float32)  # depends on the place within the patch, so mirroring shows
    graph = Graph(lambda t: t + ramp)
    out = run_in_tiles([graph], {"x": x}, Tile(patch=(8, 8, 8), mirror_axes=(2,)))["y"]
    assert np.allclose(out, x + 3.5, atol=1e-5)
    assert len(graph.shapes) == 2


def test_a_volume_smaller_than_a_patch_lies_in_the_middle_of_it():
    places = np.arange(8, dtype=np.float32)
    out = run_in_tiles(
        [Graph(lambda t: t + places)], {"x": np.zeros((1, 1, 8, 8, 4), np.float32)}, Tile(patch=(8, 8, 8))
    )
    assert np.allclose(out["y"][0, 0, 0, 0], [2, 3, 4, 5], atol=1e-5)


def test_all_mirror_axes_together_are_eight_runs_a_patch():
    graph = Graph()
    run_in_tiles([graph], {"x": volume(4, 4, 4)}, Tile(patch=(4, 4, 4), mirror_axes=(0, 1, 2)))
    assert len(graph.shapes) == 8


def test_the_middle_of_a_patch_counts_more_than_its_edge():
    line = tile_weights(32, "gaussian")
    assert line.argmax() in {15, 16}
    assert line[0] == pytest.approx(np.exp(-0.5 * (15.5 / 4) ** 2), rel=1e-5)
    assert np.array_equal(line, line[::-1])
    # A graph that is wrong at its edges: overlap and weights hide it.
    bad = np.zeros((8, 8, 8), np.float32)
    bad[:1] = 9
    x = volume(24, 8, 8)
    soft = run_in_tiles([Graph(lambda t: t + bad)], {"x": x}, Tile(patch=(8, 8, 8)))["y"] - x
    hard = run_in_tiles([Graph(lambda t: t + bad)], {"x": x}, Tile(patch=(8, 8, 8), weights="uniform"))["y"] - x
    assert soft[0, 0, 4:].max() < 0.1
    assert hard[0, 0, 4:].max() > 2


def test_outputs_of_several_graphs_are_averaged():
    x = volume(6, 6, 6)
    graphs = [Graph(lambda t: t + 1), Graph(lambda t: t + 3)]
    assert np.allclose(run_in_tiles(graphs, {"x": x}, Tile(patch=(4, 4, 4)))["y"], x + 2, atol=1e-5)
    assert np.allclose(mean_of([graph.run({"x": x}) for graph in graphs])["y"], x + 2)


def test_several_channels_and_two_axes_are_cut_alike():
    x = np.random.default_rng(1).normal(size=(1, 2, 9, 11)).astype(np.float32)
    out = run_in_tiles([Graph(lambda t: np.concatenate([t, -t], axis=1))], {"x": x}, Tile(patch=(4, 4)))["y"]
    assert np.allclose(out, np.concatenate([x, -x], axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("graph", "tensors", "complaint"),
    [
        (Graph(lambda t: t[..., ::2]), {"x": volume(8, 8, 8)}, "does not end in"),
        (Graph(lambda t: t.mean(axis=(2, 3, 4))), {"x": volume(8, 8, 8)}, "does not end in"),
        (Graph(), {"x": volume(8, 8, 8), "z": volume(8, 8, 9)}, "'z' of shape"),
    ],
)
def test_what_cannot_be_laid_together_again_is_refused(graph, tensors, complaint):
    with pytest.raises(SessionError, match=complaint):
        run_in_tiles([graph], tensors, Tile(patch=(4, 4, 4)))


@pytest.mark.req("R-PIPE-02")
def test_memory_does_not_grow_with_the_number_of_patches_and_mirrored_runs():
    import tracemalloc

    x = volume(64, 128, 128)  # so large that what Python keeps of thousands of runs does not count
    peaks = []
    for tile in (Tile(patch=(64, 128, 128)), Tile(patch=(16, 32, 32), overlap=0.5, mirror_axes=(0, 1, 2))):
        tracemalloc.start()
        run_in_tiles([Graph()], {"x": x}, tile)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * x.nbytes, "one volume for the sum, and one small patch"
    assert peaks[1] < peaks[0]
