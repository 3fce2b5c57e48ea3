"""An engine serves only if it says what the reference says: each head by its own rule, and no flipped decision."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import toy_packages

from engines.accept import accept, spot_check
from engines.acceptance import Seen, compare, compare_edges, overlap
from engines.errors import SessionError
from engines.manifest import Manifest
from engines.package import load_package
from engines.pipeline import Pipeline

FINDING = toy_packages.FINDING
CLASSIFY = {"output": "scores", "findings": [FINDING]}
#: What the toy scores where a picture is the same everywhere.
EVEN = 1 / (1 + np.exp(5))


def manifest(head, *, unit="", thresholds=(0.5,), tolerance=None, band=0.01, params=None):
    data = toy_packages.manifest()
    data["stages"][0]["head"] = {"name": head, "params": params or {}}
    data["findings"][0]["score_unit"] = unit
    data["findings"][0]["operating_points"] = [
        {"name": f"p{k}", "threshold": t, "default": k == 0} for k, t in enumerate(thresholds)
    ]
    data["golden"] = {"band": band, "tolerance": tolerance or {}}
    return Manifest.model_validate(data)


def seen(score=0.9, marks=(), **measured):
    return Seen(scores={FINDING: score}, measurements={FINDING: measured}, marks={FINDING: list(marks)})


def faults(head, precision, reference, candidate, dice=None, **changes):
    return compare(manifest(head, **changes), precision, reference, candidate, dice)[0]


@pytest.mark.req("R-SERVE-01")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("fp16", 1e-3), ("int8", 3e-2)])
def test_a_classifier_may_differ_by_its_precisions_bound_and_no_more(precision, bound):
    assert not faults("classify", precision, seen(0.9), seen(0.9 - 0.9 * bound))
    (fault,) = faults("classify", precision, seen(0.9), seen(0.9 - 1.1 * bound))
    assert f"at most {bound:g} apart" in fault


@pytest.mark.req("R-SERVE-01")
@pytest.mark.parametrize(
    ("precision", "dice", "share"), [("fp32", 0.995, 0.02), ("fp16", 0.995, 0.02), ("int8", 0.98, 0.05)]
)
@pytest.mark.parametrize("head", ["segment", "hyperdensity"])
def test_a_segmenter_is_held_to_dice_and_volume(head, precision, dice, share):
    one = {"unit": "ml", "thresholds": (1.0,)}
    good, reference = seen(50 * (1 - 0.9 * share), volume=50 * (1 - 0.9 * share)), seen(50, volume=50)
    assert not faults(head, precision, reference, good, {FINDING: dice}, **one)
    assert "Dice" in faults(head, precision, reference, good, {FINDING: dice - 0.001}, **one)[0]
    bad = seen(50 * (1 - 1.1 * share), volume=50 * (1 - 1.1 * share))
    assert len(faults(head, precision, reference, bad, {FINDING: 1.0}, **one)) == 2, "score and measured volume"
    assert faults(head, precision, seen(0), seen(0.1), **one), "something where the reference has nothing"


@pytest.mark.req("R-SERVE-01")
def test_a_detector_gives_the_same_marks_within_one_voxel_in_any_order():
    reference = seen(marks=[(3, 10, 10), (7, 40, 40)])
    assert not faults("detect", "fp16", reference, seen(0.7, marks=[(7, 40.9, 39.1), (4, 10, 10)]))
    assert "no mark within" in faults("detect", "fp16", reference, seen(marks=[(3, 10, 11.1), (7, 40, 40)]))[0]
    assert "1 marks, the reference gave 2" in faults("detect", "fp16", reference, seen(marks=[(3, 10, 10)]))[0]
    assert faults("detect", "fp16", reference, seen(marks=[(3, 10, 10), (3, 10, 10)])), "one mark does not count twice"


@pytest.mark.req("R-SERVE-01")
def test_a_measurement_keeps_to_the_tolerance_of_its_manifest():
    rule = {"tolerance": {"angle": 0.5}}
    assert not faults("measure", "fp16", seen(angle=12.0), seen(angle=12.4), **rule)
    assert "at most 0.5 apart" in faults("measure", "fp16", seen(angle=12.0), seen(angle=12.6), **rule)[0]
    assert faults("measure", "fp16", seen(angle=12.0), seen(angle=float("nan")), **rule)
    assert faults("measure", "fp16", seen(angle=12.0), seen(), **rule), "a measurement that is gone"


@pytest.mark.req("R-SERVE-02")
def test_a_decision_flips_only_within_the_stated_band_of_any_operating_point():
    points = {"thresholds": (0.5, 0.3)}
    assert not faults("classify", "int8", seen(0.505), seen(0.495), **points)
    (fault,) = faults("classify", "int8", seen(0.32), seen(0.295), **points)
    assert "the decision at p1 (0.3) flips" in fault
    assert not faults("classify", "int8", seen(0.32), seen(0.295), band=0.03, **points)


@pytest.mark.req("R-SERVE-02")
def test_one_that_scores_what_the_reference_refuses_is_rejected_and_the_other_way_round():
    refused = Seen(refused="unreliable_output")
    assert faults("classify", "fp16", refused, seen())
    assert faults("classify", "fp16", seen(), refused)
    assert not faults("classify", "fp16", refused, refused)


def test_masks_that_are_both_empty_agree_and_differing_shapes_never_do():
    empty, full = np.zeros((4, 4), np.bool_), np.ones((4, 4), np.bool_)
    assert overlap(empty, empty) == 1.0
    assert overlap(full, empty) == 0.0
    assert overlap(full, np.ones((4, 5), np.bool_)) == 0.0


@pytest.mark.req("R-SERVE-02")
def test_nan_on_an_edge_tensor_rejects_only_where_the_reference_is_finite():
    one, bad = {"scores": np.zeros((1, 1), np.float32)}, {"scores": np.full((1, 1), np.nan, np.float32)}
    classifier = manifest("classify", params=CLASSIFY)
    assert "NaN" in compare_edges(classifier, "fp16", one, bad)[0]
    assert not compare_edges(classifier, "fp16", bad, one)
    assert compare_edges(classifier, "fp16", one, {})


@pytest.mark.req("R-SERVE-02")
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_on_an_edge_tensor_a_classifier_is_held_to_its_scores_not_to_the_logits_behind_them(activation):
    classifier = manifest("classify", params={**CLASSIFY, "findings": [FINDING, None], "activation": activation})
    one, near, far = ({"scores": np.array([logits], np.float32)} for logits in ([9, -9], [9.02, -9.02], [4, -0.5]))
    assert not compare_edges(classifier, "fp16", one, near), "0.02 between logits, 0.000003 between scores"
    assert "from the reference's" in compare_edges(classifier, "fp16", one, far)[0]


class Bent:
    """A session whose outputs are bent: an engine that is wrong in one way."""

    def __init__(self, session, bend):
        self._session, self._bend = session, bend
        self.backend, self.precision, self.digest = "bent", "fp16", "0" * 64
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, tensors):
        return {name: self._bend(value) for name, value in self._session.run(tensors).items()}

    def warmup(self):
        pass

    def close(self):
        self._session.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = toy_packages.make_toy_xray_package(
        tmp_path_factory.mktemp("toy") / "p", precisions=["fp32", "fp16"], golden={"band": 0.01}
    )
    return load_package(toy_packages.add_golden(folder), trusted=True)


def judged(package, bend):
    with Pipeline(package) as reference, Pipeline(package) as inner:
        return accept(package, Pipeline(package, sessions=[Bent(inner.sessions[0], bend)]), reference)


@pytest.mark.req("R-SERVE-01")
def test_an_engine_like_the_reference_is_accepted_with_what_the_reference_said(package):
    done = []
    with Pipeline(package) as reference, Pipeline(package) as inner:
        candidate = Pipeline(package, sessions=[Bent(inner.sessions[0], lambda a: a)])
        report = accept(package, candidate, reference, done.append)
        assert candidate.backend == "bent", "the probes are gone"
    assert report.passed, report.reasons
    assert [case.name for case in report.cases[:2]] == ["blob.npz", "plain.npz"]
    assert {case.name for case in report.cases[2:]} == {"zeros, stage 0", "lowest, stage 0", "highest, stage 0"}
    assert done == sorted(done)
    assert json.loads(json.dumps(report.as_json()))["cases"][0]["reference"]["scores"][FINDING] > 0.5


@pytest.mark.req("R-SERVE-02")
@pytest.mark.parametrize(
    ("bend", "told"),
    [
        (lambda a: a * 0 + np.float32(0.2), "blob.npz: bright-blob"),
        (lambda a: a * np.float32(np.nan), "refused as unreliable_output"),
        (lambda a: np.where(np.isclose(a, EVEN, rtol=1e-3), np.float32(np.inf), a), "NaN or infinity"),
        (lambda a: a + np.float32(0.002), "at most 0.001 apart"),
    ],
    ids=["constant", "nan", "inf at the edge", "too far"],
)
def test_a_broken_engine_is_rejected_with_the_case_and_the_reason(package, bend, told):
    report = judged(package, bend)
    assert not report.passed
    assert any(told in reason for reason in report.reasons), report.reasons


@pytest.mark.req("R-SERVE-02")
def test_an_engine_that_fails_is_rejected_but_one_that_lost_its_device_ends_the_check(package):
    def fail(_):
        raise SessionError("execute failed")

    assert any("execute failed" in reason for reason in judged(package, fail).reasons)

    def lose(_):
        error = SessionError("the device is gone")
        error.sticky = True
        raise error

    with pytest.raises(SessionError, match="the device is gone"):
        judged(package, lose)


@pytest.mark.req("R-SERVE-02")
def test_a_package_without_golden_cases_gets_no_engine(tmp_path):
    bare = load_package(toy_packages.make_toy_xray_package(tmp_path / "p"), trusted=True)
    report = judged(bare, lambda a: a)
    assert not report.passed
    assert "no golden cases" in report.reasons[0]


@pytest.mark.req("R-SERVE-05")
def test_a_spot_check_compares_with_what_the_report_remembers(package):
    report = json.loads(json.dumps(judged(package, lambda a: a).as_json()))
    with Pipeline(package) as good, Pipeline(package) as inner:
        assert spot_check(good, report) == []
        bent = Pipeline(package, sessions=[Bent(inner.sessions[0], lambda a: a - np.float32(0.01))])
        assert "the reference gave" in spot_check(bent, report)[0]
        broken = Pipeline(package, sessions=[Bent(inner.sessions[0], lambda _: None.x)])
        with pytest.raises(AttributeError):
            spot_check(broken, report)
        assert spot_check(good, {**report, "cases": []})


def test_what_was_seen_survives_json():
    one = seen(0.4, marks=[(1.0, 2.0, 3.0)], volume=3.5)
    assert Seen.from_json(json.loads(json.dumps(asdict(one)))) == one
