from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from engines.errors import ContentError
from engines.preprocess.ct_slabs import CtSlabs
from engines.preprocess.xray import Xray
from engines.types import Image, Prepared, Stack

SLABS = CtSlabs(min_slices=2)


def _slice(name="a", size=256, mm=1.0, fill=40):
    array = np.full((size, size), fill, np.int16)
    array[size // 4 : size // 4 + 4, size // 4 : size * 3 // 4] = 1000
    array[size * 3 // 4 : size * 3 // 4 + 4, size // 4 : size * 3 // 4] = 1000
    return Image(id=name, array=array, spacing_mm=(mm, mm))


def _stack(preprocessor, images, positions, **more):
    return Stack(slices=tuple(preprocessor.prepare(i) for i in images), positions_mm=tuple(positions), **more)


def test_slice_shrinks_to_the_grids_pixel_size_and_stays_small():
    made = SLABS.prepare(_slice(size=512, mm=0.46875))
    assert made.array.shape == (240, 240)
    assert made.array.dtype == np.int16
    assert made.array.nbytes < 120_000
    assert made.shape == (512, 512)


def test_area_average_keeps_densities():
    rng = np.random.default_rng(0)
    array = rng.normal(50, 20, (512, 512)).astype(np.float32)
    made = SLABS.prepare(Image(id="a", array=array, spacing_mm=(0.5, 0.5)))
    assert made.array.mean() == pytest.approx(50, abs=0.6)
    assert made.array.std() == pytest.approx(10, rel=0.1)  # four pixels in one


def test_padding_outside_the_scan_circle_becomes_air():
    image = _slice()
    image.array[:50] = -3024
    assert SLABS.prepare(image).array.min() == -1024


@pytest.mark.parametrize("spacing", [None, (0.0, 1.0)])
def test_slice_that_cannot_be_measured_is_out_of_envelope(spacing):
    with pytest.raises(ContentError, match="pixel spacing") as caught:
        SLABS.prepare(Image(id="a", array=np.zeros((256, 256), np.int16), spacing_mm=spacing))
    assert caught.value.reason == "out_of_envelope"


@pytest.mark.parametrize("mm", [0.2, 9.0])
def test_field_of_view_of_a_finger_or_a_room_is_out_of_envelope(mm):
    with pytest.raises(ContentError, match="field of view"):
        SLABS.prepare(_slice(mm=mm))


def test_thin_slices_become_slabs_and_no_millimetre_is_lost():
    stack = _stack(SLABS, [_slice(str(k)) for k in range(40)], np.arange(40) * 1.0)
    made = SLABS.assemble(stack)
    assert made.tensors["hu"].shape == (10, 1, 256, 256)
    assert made.tensors["hu"].dtype == np.float32
    assert made.members[0] == (0, 1, 2, 3)
    assert sum(made.thickness_mm) == pytest.approx(40)


def test_300_slices_stay_within_the_bound_of_slabs():
    one = SLABS.prepare(_slice())
    stack = Stack(slices=(one,) * 300, positions_mm=tuple(k * 0.5 for k in range(300)))
    made = SLABS.assemble(stack)
    assert len(made.members) <= 48
    assert sum(made.thickness_mm) == pytest.approx(150)
    assert sorted(i for group in made.members for i in group) == list(range(300))


def test_slab_is_the_mean_of_its_slices():
    stack = _stack(SLABS, [_slice(str(k), fill=10 * k) for k in range(8)], np.arange(8) * 2.0)
    made = SLABS.assemble(stack)
    assert made.members[1] == (2, 3)
    assert made.tensors["hu"][1, 0, 128, 128] == 25


def test_uneven_spacing_gives_each_slice_what_it_stands_for():
    positions = [0, 2.5, 5, 7.5, 12.5, 17.5]
    made = CtSlabs(min_slices=2, slab_mm=1).assemble(_stack(SLABS, [_slice(str(k)) for k in range(6)], positions))
    assert made.thickness_mm == (2.5, 2.5, 2.5, 3.75, 5.0, 5.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_only_so_much_below_the_vertex_is_taken_whichever_way_the_normal_points(sign):
    boneless = Image(id="air", array=np.full((256, 256), -1000, np.int16), spacing_mm=(1.0, 1.0))
    above, head, below = [boneless] * 3, [_slice(f"head {k}") for k in range(10)], [_slice("neck")] * 10
    images = (below + head + above)[::sign]
    cut = CtSlabs(min_slices=2, slab_mm=1, below_vertex_mm=50)
    made = cut.assemble(_stack(cut, images, np.arange(23) * 5.0, normal=(0, 0, float(sign))))
    taken = {made.stack.slices[i].id for group in made.members for i in group}
    assert "head 0" in taken
    assert len([i for g in made.members for i in g]) == 3 + 10 + 1
    assert made.stack.slices[made.members[0][0]].id == ("neck" if sign > 0 else "air")


def test_grid_lies_around_the_bone_and_the_way_back_is_right():
    wide = np.full((512, 512), -1000, np.int16)
    wide[300:305, 100:300] = wide[460:465, 100:300] = 1000
    wide[378:384, 198:204] = 3000
    made = SLABS.assemble(_stack(SLABS, [Image(id=n, array=wide, spacing_mm=(0.9, 0.9)) for n in "ab"], [0, 5]))
    picture = made.tensors["hu"][0, 0]
    assert (picture > 300).sum() > 1000
    row, column = np.unravel_index(np.argmax(picture), picture.shape)
    x, y = made.to_picture(0, float(row), float(column))
    assert wide[round(y), round(x)] == 3000


def test_way_back_hits_pixel_centres():
    made = SLABS.assemble(_stack(SLABS, [_slice("a", size=512, mm=0.5), _slice("b", size=512, mm=0.5)], [0, 5]))
    # Grid pixel (r, c) covers 2 x 2 original pixels: its centre lies between them.
    x, y = made.to_picture(0, 10 - made.origin[0], 20 - made.origin[1])
    assert (x, y) == (40.5, 20.5)


@pytest.mark.parametrize(
    ("images", "positions", "complaint"),
    [
        ([_slice()], [0.0], "1 slices"),
        ([_slice("a"), _slice("b", size=200)], [0, 5], "differ in size"),
        ([_slice("a"), _slice("b", mm=1.002)], [0, 5], "differ in size"),
        ([Image(id=n, array=np.zeros((256, 256), np.int16), spacing_mm=(1, 1)) for n in "ab"], [0, 5], "no bone"),
    ],
)
def test_stack_that_is_no_examination_is_out_of_envelope(images, positions, complaint):
    with pytest.raises(ContentError, match=complaint) as caught:
        SLABS.assemble(_stack(SLABS, images, positions))
    assert caught.value.reason == "out_of_envelope"


@pytest.mark.parametrize("positions", [(0.0, 0.0), (5.0, 0.0), (0.0,)])
def test_stack_out_of_order_cannot_exist(positions):
    made = SLABS.prepare(_slice())
    with pytest.raises(ValueError, match="position"):
        Stack(slices=(made, made), positions_mm=positions)


def test_xray_is_scaled_between_its_percentiles():
    rng = np.random.default_rng(1)
    made = Xray(size=64).prepare(Image(id="x", array=rng.normal(2000, 300, (500, 400)).astype(np.float32)))
    assert made.array.shape == (64, 64)
    assert made.array.min() == 0
    assert made.array.max() == 1
    assert Xray(size=64).assemble(Stack(slices=(made,))).tensors["image"].shape == (1, 1, 64, 64)


def test_scale_and_offset_of_an_xray_do_not_matter():
    rng = np.random.default_rng(2)
    array = rng.normal(0, 1, (300, 300)).astype(np.float32)
    one = Xray().prepare(Image(id="x", array=array)).array
    other = Xray().prepare(Image(id="x", array=array * 700 + 9000)).array
    np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((300, 300), 7.0), "quality"),
        (np.zeros((3, 300)), "out_of_envelope"),
        (np.zeros((2, 99, 99)), "out_of_envelope"),
    ],
)
def test_blank_picture_and_strip_are_no_xray(array, reason):
    with pytest.raises(ContentError) as caught:
        Xray().prepare(Image(id="x", array=array))
    assert caught.value.reason == reason


def test_xray_takes_one_picture_only():
    made = Prepared(id="x", array=np.zeros((256, 256), np.float32), shape=(256, 256), spacing_mm=None)
    with pytest.raises(ContentError, match="2 pictures"):
        Xray().assemble(Stack(slices=(made, made), positions_mm=(0.0, 1.0)))


@pytest.mark.req("R-BRING-03")
@pytest.mark.parametrize(("mean", "sd"), [((0.0,), (1.0,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_xray_is_normalised_as_the_graph_was_trained_and_in_as_many_channels(mean, sd):
    rows, columns = np.mgrid[0:64, 0:64]
    image = Image(id="a", array=(rows + columns).astype(np.float32), spacing_mm=None)
    plain, normalised = (Xray(size=32), Xray(size=32, mean=mean, sd=sd))
    bare = plain.assemble(Stack(slices=(plain.prepare(image),))).tensors["image"]
    tensor = normalised.assemble(Stack(slices=(normalised.prepare(image),))).tensors["image"]
    assert tensor.shape == (1, len(mean), 32, 32)
    assert tensor.dtype == np.float32
    for channel, (m, s) in enumerate(zip(mean, sd, strict=True)):
        np.testing.assert_allclose(tensor[0, channel], (bare[0, 0] - m) / s, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "sd"), [((0.0, 0.0), (1.0, 1.0)), ((0.0,), (1.0,) * 3), ((0.0,), (0.0,)), ((0.0,), (-1.0,))]
)
def test_a_normalisation_that_no_graph_has_is_refused(mean, sd):
    with pytest.raises(ValidationError, match="mean and sd"):
        Xray(mean=mean, sd=sd)
