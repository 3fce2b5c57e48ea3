import numpy as np
import pytest

from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from appliance.simulate.chest_xray import Effusion, Opacity, chest_xray
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.localizer import localizer

SMALL = ChestScan(matrix=128, slices=60, noise_hu=0)
#: Of the grey values of the first plain films, 64 x 64; other libraries may round otherwise.
PLAIN_SUMS = (7983503, 8048720, 7802661, 7831557)


@pytest.mark.req("R-SIM-01")
def test_the_same_seed_gives_the_same_chest_film_and_knee():
    for make in (
        lambda s: chest_ct(s, scan=SMALL),
        lambda s: chest_xray(s, matrix=256),
        lambda s: knee_xray(s, matrix=256),
    ):
        one, again, other = make(1), make(1), make(2)
        assert np.array_equal(one.pixels, again.pixels)
        assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.req("R-SIM-01")
def test_a_nodule_lies_where_the_truth_says_and_has_its_size():
    phantom = chest_ct(4, nodules=[Nodule(diameter_mm=18), Nodule(diameter_mm=15, pleural=True)], scan=SMALL)
    without = chest_ct(4, scan=SMALL)
    for nodule in phantom.truth["nodules"]:
        x, y, z = nodule["centre_mm"]
        first = phantom.positions_mm[0]
        index = (
            round((z - first[2]) / 5),
            round((y - first[1]) / phantom.spacing_mm[0]),
            round((x - first[0]) / phantom.spacing_mm[1]),
        )
        assert phantom.mask[index]
        assert phantom.pixels[index] > without.pixels[index] + 300
        assert nodule["slice"] == index[0]
    solid = phantom.truth["nodules"][0]
    assert solid["volume_ml"] == pytest.approx(np.pi / 6 * 1.8**3, rel=0.25)


def test_lungs_are_air_and_ribs_are_bone():
    phantom = chest_ct(2, scan=SMALL)
    assert -900 < np.median(phantom.pixels[34][50:80, 25:45]) < -780
    assert phantom.pixels[34].max() > 400


def test_a_nodule_without_room_is_refused():
    with pytest.raises(ValueError, match="finds no room"):
        chest_ct(1, nodules=[Nodule(diameter_mm=150)], scan=SMALL)


def test_an_effusion_is_bright_at_its_side_and_nowhere_else():
    plain, film = chest_xray(3, matrix=512), chest_xray(3, effusion=Effusion(side="left", height_mm=90), matrix=512)
    assert film.pixels[film.mask].mean() > plain.pixels[film.mask].mean() + 300
    assert film.mask[:, 256:].any()
    assert not film.mask[:, :250].any()
    x0, y0, x1, y1 = film.truth["effusion"]["box"]
    assert film.mask[y0 : y1 + 1, x0 : x1 + 1].sum() == film.mask.sum()
    assert film.truth["effusion"]["area_cm2"] == pytest.approx(film.mask.sum() * np.prod(film.spacing_mm) / 100)


def test_an_opacity_is_bright_at_its_side():
    plain, film = chest_xray(5, matrix=512), chest_xray(5, opacity=Opacity(side="right", radius_mm=35), matrix=512)
    assert film.mask[:, :256].sum() > 1000
    assert not film.mask[:, 262:].any()
    assert film.pixels[film.mask].mean() > plain.pixels[film.mask].mean() + 200


@pytest.mark.req("R-SIM-01")
def test_a_lifelike_chest_is_another_film_of_the_same_seed_with_a_body_that_fills_it():
    plain, film = chest_xray(3, matrix=256), chest_xray(3, matrix=256, lifelike=True)
    assert np.array_equal(film.pixels, chest_xray(3, matrix=256, lifelike=True).pixels)
    outside = (slice(100, 200), slice(0, 24))
    assert film.pixels[outside].mean() > plain.pixels[outside].mean() + 300
    fluid = chest_xray(3, effusion=Effusion(side="right", height_mm=150), matrix=256, lifelike=True)
    assert fluid.pixels[fluid.mask].mean() > film.pixels[fluid.mask].mean() + 300
    assert not fluid.mask[:, 130:].any()


def test_plain_films_are_those_that_packages_were_trained_and_measured_on():
    """Of these ``cxr-triage`` knows what is a chest, and its golden cases are some of them: they may not change."""
    films = [chest_xray(k, matrix=64, **kw).pixels for k in range(2) for kw in ({}, {"effusion": Effusion()})]
    sums = [int(film.sum(dtype=np.int64)) for film in films]
    assert sums == pytest.approx(PLAIN_SUMS, rel=1e-4)


def test_a_film_uses_twelve_bits_with_bone_bright_and_air_dark():
    for film in (chest_xray(1, matrix=256), knee_xray(1, matrix=256)):
        assert film.pixels.dtype == np.uint16
        assert 2500 < film.pixels.max() <= 4095
        assert film.pixels[:, :4].mean() < 1500


def test_a_localizer_shows_the_head_from_the_side():
    volume = head_ct(1, scan=HeadScan(matrix=128, slices=32))
    scout = localizer(volume, matrix=256)
    assert scout.pixels.shape == (256, 256)
    assert scout.orientation == (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    assert scout.pixels[100:160, 100:160].mean() > scout.pixels[:10].mean() + 300
    with pytest.raises(ValueError, match="CT volume"):
        localizer(chest_xray(1, matrix=128))
