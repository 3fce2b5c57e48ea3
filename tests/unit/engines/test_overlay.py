"""Masks beside a result: kept whole, and a damaged file is said to be one, whatever the damage."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.overlay import Laying, Overlay, pack, unpack


def laying(slice_id, index, **changes):
    fields = {"shape": (20, 30), "row": (0.0, 1.0), "column": (0.0, 1.0), **changes}
    return Laying(slice_id=slice_id, index=index, **fields)


@pytest.fixture(scope="module")
def overlays():
    rng = np.random.default_rng(1)
    mask = rng.random((3, 10, 15)) > 0.5
    slices = (
        laying("1.2.3", 0, row=(-0.25, 0.5), column=(-0.25, 0.5)),
        laying("1.2.3#2", 1, row=(4.0, 0.5), column=(-3.0, 1.5)),
        laying("1.2.4", 2),
    )
    empty = Overlay(mask=np.zeros((1, 2, 2), bool), slices=(laying("1.2.5", 0),))
    return {"bleed": Overlay(mask=mask, slices=slices), "nothing": empty}


@pytest.fixture(scope="module")
def packed(overlays):
    return pack(overlays)


@pytest.mark.req("R-REPORT-02")
def test_masks_come_back_as_they_were_with_their_way_to_the_slices(overlays, packed):
    back = unpack(packed)
    assert list(back) == ["bleed", "nothing"]
    for name, overlay in overlays.items():
        assert np.array_equal(back[name].mask, overlay.mask)
        assert back[name].slices == overlay.slices
        assert dict(back[name].on_slices()).keys() == dict(overlay.on_slices()).keys()


def test_each_pixel_takes_the_voxel_that_its_centre_lies_in(overlays):
    laid = dict(overlays["bleed"].on_slices())["1.2.3"]
    # Two pixels a voxel in both directions, from the outer edge of the first one.
    assert np.array_equal(laid, overlays["bleed"].mask[0].repeat(2, axis=0).repeat(2, axis=1))
    assert not dict(overlays["nothing"].on_slices())


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_a_value_error_and_nothing_else(packed, data):
    damaged = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for content in (bytes(damaged), bytes(damaged[:cut]), bytes(damaged[cut:])):
        try:
            unpack(content)
        except ValueError:
            continue
        # What the archive's own check sums do not cover (times, comments) may differ.


def with_table(packed, change):
    with np.load(io.BytesIO(packed)) as arrays:
        held = dict(arrays)
    table = json.loads(bytes(held["table"]))
    held["table"] = np.frombuffer(json.dumps(change(table)).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **held)
    return stream.getvalue()


def edited(name, **changes):
    """A table whose first slice of the first mask (or the mask itself) says something else."""

    def change(table):
        entry = table["bleed"]
        (entry["slices"][0] if name == "slice" else entry).update(changes)
        return table

    return change


@pytest.mark.parametrize(
    "change",
    [
        edited("slice", index=3),
        edited("slice", index=-1),
        edited("slice", shape=[1 << 40, 1 << 40]),
        edited("slice", shape=[0, 5]),
        edited("slice", row=[float("nan"), 1.0]),
        edited("slice", column=[0.0, float("inf")]),
        edited("slice", row=5),
        edited("mask", shape=[1 << 20, 1 << 20, 1 << 20]),
        edited("mask", shape=[-3, -10, 15]),
        edited("mask", shape=[4, 10, 15]),
        edited("mask", slices={"a": 1}),
        lambda table: [1, 2],
        lambda table: {"bleed": None},
    ],
)
def test_a_file_that_lies_about_itself_is_refused(packed, change):
    with pytest.raises(ValueError, match=r"."):
        unpack(with_table(packed, change))
