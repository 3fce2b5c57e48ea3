"""``tools/train/cxr``: figures are counted by patient and out of fold, and attention points where it should."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.package import bundled_packages

ROOT = Path(__file__).resolve().parents[3]
PATIENTS = ["7", "7", "7", "12", "30", "30", "41", "58"]


@pytest.fixture(scope="module")
def cxr():
    """``cxr("figures")``: a module of the tool; those that need PyTorch skip without it."""
    sys.path.insert(0, str(ROOT / "tools/train"))
    yield lambda name: importlib.import_module(f"cxr.{name}")
    sys.path.remove(str(ROOT / "tools/train"))


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, which only training needs, is not installed")


def row(cxr, patient, *boxes):
    fields = {"file": "", "age": 50.0, "sex": "F", "view": "PA", "labels": frozenset({"Pneumonia"})}
    return cxr("data").Row(patient=patient, boxes=boxes, **fields)


# -- without PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-CXR-02")
def test_all_images_of_a_patient_lie_in_one_fold_by_the_hash_of_the_number(cxr):
    folds = cxr("data").folds_of([row(cxr, patient) for patient in PATIENTS])
    # printf 7 | sha256sum, as a number, modulo 5
    assert folds.tolist() == [4, 4, 4, 1, 4, 4, 0, 3]


@pytest.mark.req("R-CXR-02")
def test_area_is_the_share_of_pairs_in_the_right_order_and_ties_count_half(cxr):
    rng = np.random.default_rng(1)
    scores, wanted = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.3
    above = scores[wanted][:, None] - scores[~wanted][None]
    assert cxr("figures").area(scores, wanted) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())


@pytest.mark.req("R-CXR-02")
def test_a_bootstrap_sample_draws_patients_with_all_their_images(cxr):
    samples = cxr("figures").resampled(PATIENTS)
    assert len(samples) == 2000
    times = np.array([np.bincount(rows, minlength=len(PATIENTS)) for rows in samples])
    assert (times[:, 0] == times[:, 1]).all()
    assert (times[:, 1] == times[:, 2]).all()
    assert (times[:, 4] == times[:, 5]).all()
    drawn = times[:, [0, 3, 4, 6, 7]].sum(1)
    assert (drawn == len(set(PATIENTS))).all(), "as many patients as there are, some of them more than once"


@pytest.mark.req("R-MODEL-02")
@pytest.mark.parametrize("name", ["cxr-triage", "cxr-quality"])
def test_metrics_name_the_very_films_and_labels_that_are_at_hand(cxr, test_data, name):
    folder = test_data / "cxr_nih"
    if not (folder / "labels.csv").is_file():
        pytest.skip(f"{folder} holds no labels.csv")
    data, held = (
        cxr("data"),
        json.loads((bundled_packages()[name] / "metrics.json").read_text(encoding="utf-8"))["data"],
    )
    rows = data.read_rows(folder)
    assert held["sha256"] == data.digest_of(folder, rows)
    assert (held["images"], held["patients"]) == (len(rows), len({one.patient for one in rows}))


# -- with it -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-CXR-02")
def test_every_score_is_of_a_network_that_saw_no_image_of_the_patient(cxr, torch, monkeypatch):
    fit, data = cxr("fit"), cxr("data")
    number = torch.arange(float(len(PATIENTS)))[:, None]
    monkeypatch.setattr(fit, "fitted", lambda pair, targets, recipe: {PATIENTS[int(k)] for k in pair[0][:, 0]})

    def raw_scores(learned, pair):
        assert not learned & {PATIENTS[int(k)] for k in pair[0][:, 0]}
        return pair[0]

    monkeypatch.setattr(fit, "raw_scores", raw_scores)
    folds = torch.from_numpy(data.folds_of([row(cxr, patient) for patient in PATIENTS]))
    scores, _ = fit.out_of_fold((number, number), torch.zeros(len(PATIENTS), 1), folds, fit.Recipe())
    assert scores[:, 0].tolist() == number[:, 0].tolist(), "each in its own place"


@pytest.mark.req("R-CXR-06")
def test_attention_is_greatest_where_the_score_comes_from_and_hits_are_counted_against_the_boxes(cxr, torch):
    attention, network = cxr("attention"), cxr("network")
    down, along, cell = 5, 11, 512 / network.GRID
    net = network.Network(1, 1, 2)
    net.scale.fill_(1)
    net.projection[down * network.GRID + along] = 1  # the brightness of one cell
    net.units.fill_(1)
    net.narrowness.fill_(1)
    net.readout.fill_(1)
    features = torch.full_like(net.mean, 0.5)
    seen = attention.attention(net, features, 1)
    rows, columns = torch.nonzero(seen > 0, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (down - 1, down + 1, along - 1, along + 1)

    around = ("Pneumonia", (along - 1) * cell, (down - 1) * cell, 3 * cell, 3 * cell)
    elsewhere = ("Pneumonia", 0.0, 401.0, 3 * cell, 3 * cell)
    other = ("Pneumothorax", *around[1:])
    given = [row(cxr, "1", around), row(cxr, "2", elsewhere), row(cxr, "3", other), row(cxr, "4")]
    told = attention.pointing([net], features.repeat(4, 1), given, np.zeros(4, int), "opacity")
    assert (told["images"], told["hits"], told["rate"]) == (2, 1, 0.5)
    assert told["chance"] == pytest.approx(9 / 256, abs=0.001)
    assert told["interval"][0] < 0.5 < told["interval"][1]
