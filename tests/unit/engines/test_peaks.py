from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.peaks import find_peaks, keep_apart, keep_by_iou

places = st.lists(st.tuples(*[st.floats(0, 60)] * 3, st.floats(0.01, 1), st.floats(2, 30)), min_size=0, max_size=25)


def split(found):
    rows = np.asarray(found, float).reshape(-1, 5)
    return rows[:, :3], rows[:, 3], rows[:, 4]


@given(places, st.floats(0.5, 40))
@pytest.mark.req("R-PIPE-04")
def test_what_is_kept_lies_apart_and_everything_else_is_close_to_something_better(found, apart):
    positions, scores, _ = split(found)
    kept = keep_apart(positions, scores, apart)
    away = np.linalg.norm(positions[kept][:, None] - positions[kept][None], axis=2)
    assert np.all(away[~np.eye(len(kept), dtype=bool)] >= apart)
    assert np.all(np.diff(scores[kept]) <= 0)
    for lost in set(range(len(scores))) - set(kept.tolist()):
        near = kept[np.linalg.norm(positions[kept] - positions[lost], axis=1) < apart]
        assert scores[near].max(initial=-1) >= scores[lost]


def overlap(a, b, da, db):
    sides = np.minimum(a + da / 2, b + db / 2) - np.maximum(a - da / 2, b - db / 2)
    shared = np.prod(np.clip(sides, 0, None))
    return shared / (da**3 + db**3 - shared)


@given(places, st.floats(0, 0.9))
@pytest.mark.req("R-PIPE-04")
def test_boxes_that_are_kept_overlap_no_more_than_allowed_and_every_lost_one_does(found, iou):
    positions, scores, sizes = split(found)
    kept = keep_by_iou(positions, sizes, scores, iou)
    for i in kept:
        for j in kept:
            assert i == j or overlap(positions[i], positions[j], sizes[i], sizes[j]) <= iou + 1e-9
    for lost in set(range(len(scores))) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[lost]]
        assert any(overlap(positions[k], positions[lost], sizes[k], sizes[lost]) > iou for k in better)


def test_suppression_twice_changes_nothing_and_the_order_of_equals_is_kept():
    positions, scores = np.zeros((4, 3)), np.array([0.5, 0.9, 0.9, 0.1])
    positions[3] = 50
    assert keep_apart(positions, scores, 10).tolist() == [1, 3]


def test_peaks_are_local_maxima_best_first_at_the_edge_too():
    values = np.zeros((6, 10, 10), np.float32)
    values[0, 0, 0], values[3, 5, 5], values[3, 5, 6], values[5, 9, 9] = 0.6, 0.9, 0.8, 0.2
    voxels, scores = find_peaks(values, 0.3)
    assert voxels.tolist() == [[3, 5, 5], [0, 0, 0]]
    assert scores == pytest.approx([0.9, 0.6])
    assert len(find_peaks(values, 0.95)[0]) == 0
