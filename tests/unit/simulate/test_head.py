import numpy as np
import pytest

from appliance.simulate.bleed import PLACES, Bleed
from appliance.simulate.head import HeadScan, head_ct, random_head_ct
from appliance.simulate.phantom import parameters

SMALL = HeadScan(matrix=128, slices=32, noise_hu=0, beam_hardening=False)


def voxel_volume_ml(phantom):
    """From what a receiver knows: pixel spacing, and the distance of slice planes along their normal."""
    row, column = np.array(phantom.orientation).reshape(2, 3)
    steps = np.diff(np.array(phantom.positions_mm), axis=0) @ np.cross(row, column)
    assert np.ptp(steps) < 1e-3
    return np.prod(phantom.spacing_mm) * steps[0] / 1000


@pytest.mark.req("R-SIM-01")
def test_the_same_seed_gives_the_same_head_and_another_seed_another():
    bleed = [Bleed(kind="IPH", volume_ml=10)]
    one, again, other = (head_ct(seed, bleeds=bleed, scan=HeadScan(matrix=128)) for seed in (1, 1, 2))
    assert np.array_equal(one.pixels, again.pixels)
    assert one.truth == again.truth
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.req("R-SIM-01")
@pytest.mark.parametrize("kind", PLACES)
def test_the_volume_in_the_truth_is_the_volume_of_the_marked_voxels(kind):
    phantom = head_ct(3, bleeds=[Bleed(kind=kind, volume_ml=6)], scan=SMALL)
    counted = phantom.mask.sum() * voxel_volume_ml(phantom)
    assert phantom.truth["volume_ml"] == pytest.approx(counted, rel=1e-4)
    assert counted == pytest.approx(6, abs=voxel_volume_ml(phantom) * 1.01)
    assert set(np.nonzero(phantom.mask.any(axis=(1, 2)))[0]) == set(phantom.truth["bleeds"][0]["slices"])


def test_the_volume_holds_at_full_matrix_and_under_tilt():
    phantom = head_ct(
        3, bleeds=[Bleed(kind="IPH", volume_ml=20)], scan=HeadScan(matrix=512, slices=24, tilt_deg=15, noise_hu=0)
    )
    assert phantom.pixels.shape == (24, 512, 512)
    assert phantom.mask.sum() * voxel_volume_ml(phantom) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind, places in PLACES.items() for place in places])
def test_every_named_place_takes_a_bleed_that_is_brighter_than_the_brain(kind, place):
    without = head_ct(5, scan=SMALL)
    phantom = head_ct(5, bleeds=[Bleed(kind=kind, place=place, volume_ml=5)], scan=SMALL)
    inside = phantom.pixels[phantom.mask].astype(float)
    # Under the skull, and in thin sulci, voxels are mixed with what lies beside them.
    low, high = (0, 500) if kind in {"EDH", "SDH"} else (25, 90)
    assert low < np.median(inside) < high
    assert np.median(inside) > np.median(without.pixels[phantom.mask]) + 10


def test_brain_fluid_and_bone_lie_in_the_ranges_of_the_file():
    phantom = head_ct(8, bleeds=[Bleed(kind="IPH", volume_ml=12)], scan=SMALL)
    section = parameters("head_ct")
    middle = phantom.pixels[20][40:88, 40:88]
    low, high = section["brain_mean_hu"]
    assert low - 4 < np.median(middle) < high + 4
    blood = phantom.truth["bleeds"][0]["hu"]
    assert section["bleed_hu"][0] <= blood <= section["bleed_hu"][1]
    assert phantom.pixels.max() > 1000
    assert phantom.pixels.min() < -980


def test_noise_has_the_deviation_that_was_asked_for():
    quiet, noisy = (head_ct(4, scan=HeadScan(matrix=256, slices=32, noise_hu=n, beam_hardening=False)) for n in (0, 6))
    difference = noisy.pixels[26].astype(float) - quiet.pixels[26]
    assert 5.4 < difference[100:160, 100:160].std() < 6.6


def test_gantry_tilt_leans_the_slices_but_not_the_table():
    phantom = head_ct(1, scan=HeadScan(matrix=128, slices=8, tilt_deg=18, noise_hu=0))
    row, column = np.array(phantom.orientation).reshape(2, 3)
    steps = np.diff(np.array(phantom.positions_mm), axis=0)
    assert np.allclose(steps, (0, 0, 5))
    angle = np.degrees(np.arccos(np.cross(row, column) @ steps[0] / 5))
    assert angle == pytest.approx(18, abs=0.01)


@pytest.mark.parametrize("tilt_deg", [0, 18, -18])
def test_the_centre_in_the_truth_is_where_the_geometry_puts_the_marked_voxels(tilt_deg):
    scan = HeadScan(matrix=128, slices=32, tilt_deg=tilt_deg, noise_hu=0)
    phantom = head_ct(1, bleeds=[Bleed(kind="IPH", volume_ml=8, place="right frontal lobe")], scan=scan)
    row, column = np.array(phantom.orientation).reshape(2, 3)
    k, i, j = np.nonzero(phantom.mask)
    places = np.array(phantom.positions_mm)[k]
    places = places + np.outer(j * phantom.spacing_mm[1], row) + np.outer(i * phantom.spacing_mm[0], column)
    assert np.allclose(places.mean(axis=0), phantom.truth["bleeds"][0]["centre_mm"], atol=0.05)
    assert np.allclose(places.mean(axis=0), PLACES["IPH"]["right frontal lobe"], atol=6)


def test_missing_slices_leave_a_hole_in_positions_and_in_instance_numbers():
    phantom = head_ct(1, scan=HeadScan(matrix=128, slices=12, missing=(5, 6, 7), noise_hu=0))
    whole = head_ct(1, scan=HeadScan(matrix=128, slices=12, noise_hu=0))
    assert phantom.instance_numbers == (1, 2, 3, 4, 5, 9, 10, 11, 12)
    assert phantom.positions_mm == whole.positions_mm[:5] + whole.positions_mm[8:]
    assert np.array_equal(phantom.pixels, np.delete(whole.pixels, (5, 6, 7), axis=0))


def test_uneven_heights_are_kept_and_count_with_their_own_extent():
    heights = (*np.arange(0, 50, 2.5), *np.arange(50, 150, 5.0))
    scan = HeadScan(matrix=128, heights_mm=tuple(map(float, heights)), noise_hu=0)
    phantom = head_ct(1, bleeds=[Bleed(kind="IPH", volume_ml=15, place="right frontal lobe")], scan=scan)
    found = np.array([position[2] for position in phantom.positions_mm])
    assert np.allclose(found - found[0], heights)
    extents = np.gradient(np.array(heights))
    counted = (phantom.mask.sum(axis=(1, 2)) * extents).sum() * np.prod(phantom.spacing_mm) / 1000
    assert phantom.truth["volume_ml"] == pytest.approx(counted, rel=1e-4)
    assert counted == pytest.approx(15, rel=0.02)


def test_calcium_is_denser_than_any_bleed_and_no_part_of_the_truth():
    plain, calcified = (
        head_ct(2, scan=HeadScan(matrix=256, slices=32, noise_hu=0, calcified_plexus=c)) for c in (False, True)
    )
    changed = calcified.pixels.astype(int) - plain.pixels > 40
    assert changed.any()
    assert calcified.pixels[changed].max() > 100
    assert not calcified.mask.any()


def test_a_drawn_head_has_one_bleed_within_the_range_of_its_kind():
    low, high = parameters("head_ct")["volume_ml"]["SDH"]
    phantom = random_head_ct(7, kind="SDH", scan=SMALL)
    assert low <= phantom.truth["volume_ml"] <= high + 0.1
    assert random_head_ct(7, scan=SMALL).truth["bleeds"] == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Bleed(kind="XYZ", volume_ml=1), "there are IPH, IVH"),
        (lambda: Bleed(kind="IVH", volume_ml=1, place="nose"), "there are both lateral ventricles"),
        (lambda: head_ct(1, bleeds=[Bleed(kind="IVH", volume_ml=500)], scan=SMALL), "the room holds"),
        (lambda: head_ct(1, scan=HeadScan(matrix=100)), "128, 256 or 512"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_bleed_begins_where_it_is_told_and_stays_on_its_side_of_the_falx():
    centre = (-8.0, -20.0, 55.0)
    bleed = Bleed(kind="IPH", volume_ml=15, centre_mm=centre)
    phantom = head_ct(3, bleeds=[bleed], scan=SMALL)
    (fact,) = phantom.truth["bleeds"]
    assert fact["volume_ml"] == pytest.approx(15, rel=0.02)
    assert np.linalg.norm(np.array(fact["centre_mm"]) - centre) < 10
    columns = np.nonzero(phantom.mask.any(axis=(0, 1)))[0]
    assert columns.max() <= phantom.mask.shape[2] / 2


def test_brain_has_the_mean_density_that_is_asked_for():
    dark, bright = (head_ct(5, scan=SMALL, brain_hu=hu).pixels.astype(int) for hu in (30, 38))
    drawn = head_ct(5, scan=SMALL).pixels
    brain = (drawn > 26) & (drawn < 42)
    middle = slice(20, 24)
    assert np.median((bright - dark)[middle][brain[middle]]) == pytest.approx(8, abs=0.5)
    bone = drawn > 600
    assert np.median(np.abs(bright - dark)[bone]) == 0
