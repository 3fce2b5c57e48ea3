"""``scanside model evaluate`` on simulated studies, whole and broken."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import toy_packages
from click.testing import CliRunner

from appliance.cli.model_evaluate import evaluate
from appliance.config import Triage
from appliance.simulate.chest_xray import chest_xray
from appliance.simulate.dicomize import save, xray
from appliance.simulate.scenarios import SCENARIOS
from appliance.simulate.study import Study
from appliance.triage import evaluation_run
from engines.archive import pack
from engines.package import bundled_packages, load_package

pytestmark = pytest.mark.req("R-KSERVE-10")
KNOWN = {"head_ct_bleed": 1, "head_ct_no_bleed": 0, "cut": 1, "dose_report": 0}
HEAD_CT = bundled_packages()["head-ct-hyperdensity"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """One folder a study, and one of whose slices was cut short on the disk."""
    folder = tmp_path_factory.mktemp("studies")
    for scenario in SCENARIOS:
        if scenario.name in KNOWN:
            save(scenario.build("1"), folder / scenario.name)
        if scenario.name == "head_ct_bleed":
            paths = save(scenario.build("2"), folder / "cut")
            middle = paths[len(paths) // 2]
            os.truncate(middle, middle.stat().st_size // 2)
    (folder / "notes.txt").write_text("not DICOM")
    return folder


@pytest.fixture(scope="module")
def truth(studies):
    path = studies.parent / "truth.csv"
    rows = [f"{name},hyperdensity,{present}" for name, present in KNOWN.items()]
    path.write_text("\n".join(["study,finding,present", *rows, "elsewhere,hyperdensity,1", ""]))
    return path


def run(*arguments):
    return CliRunner().invoke(evaluate, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def told(studies, truth):
    before = {path: path.stat().st_mtime_ns for path in studies.rglob("*")}
    done = run("head-ct-hyperdensity", "--studies", studies, "--truth", truth, "--studies-a-day", 10, "--json")
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in studies.rglob("*")} == before
    return json.loads(done.output)


def test_every_study_is_counted_once_and_broken_ones_end_nothing(told):
    assert (told["studies"], told["analysed"], told["not_applicable"]) == (4, 2, 1)
    assert told["not_analysed"] == {"incomplete": 1}
    assert told["engine"]["backend"] == "onnxruntime"
    assert {study["reason"] for study in told["studies_not_analysed"]} == {"incomplete", "not_applicable"}


def test_the_figures_are_those_of_the_simulated_truth(told):
    (finding,) = told["findings"]
    point = next(point for point in finding["groups"][0]["points"] if point["default"])
    assert [point[name] for name in ("true_positive", "false_positive", "true_negative", "false_negative")] == [
        1,
        0,
        1,
        0,
    ]
    assert point["sensitivity"]["low"] == pytest.approx(0.2065, abs=1e-4)
    # The study with a damaged slice has a bleed too, and was not analysed.
    assert (point["sensitivity_owed"]["numerator"], point["sensitivity_owed"]["denominator"]) == (1, 2)
    assert finding["groups"][0]["not_analysed"]["incomplete"] == {"positive": 1, "negative": 0}
    # One of four studies flagged, ten a day.
    assert told["alerts_a_day"] == pytest.approx(2.5)


def test_what_did_not_match_is_named(told):
    assert [row["study"] for row in told["truth"]["unmatched"]] == ["elsewhere"]
    assert told["studies_without_truth"] == []
    assert max(path.rpartition("/")[2] for path in told["other_files"]) == "notes.txt"
    assert len(told["other_files"]) == 2


def test_for_a_person_numbers_are_told_and_how_to_see_names(studies, tmp_path):
    (tmp_path / "truth.csv").write_text("study,finding,present\ndose_report,hyperdensity,0\nelsewhere,hyperdensity,1\n")
    only = studies / "dose_report"
    shown = run("head-ct-hyperdensity", "--studies", only, "--truth", tmp_path / "truth.csv").output
    assert "1 not applicable" in shown
    assert "2 of 2 rows of truth were not used (--list names them)" in shown
    listed = run("head-ct-hyperdensity", "--studies", only, "--truth", tmp_path / "truth.csv", "--list").output
    assert "line 3: elsewhere: names no study" in listed
    assert "elsewhere" not in shown


def test_a_package_from_elsewhere_needs_its_makers_key_or_a_word(tmp_path, studies, truth):
    folder = shutil.copytree(HEAD_CT, tmp_path / HEAD_CT.name)
    asked = run(folder, "--studies", studies, "--truth", truth)
    assert asked.exit_code == 2
    assert "--unsigned" in asked.output
    truth = tmp_path / "truth.csv"
    truth.write_text("study,finding,present\ncut,stroke,1\n")
    wrong = run(folder, "--studies", studies, "--truth", truth, "--unsigned")
    assert "line 2: no finding 'stroke'; the package has hyperdensity" in str(wrong.exception)
    (folder / "model.onnx").write_bytes(b"no graph")
    broken = run(folder, "--studies", studies, "--truth", truth, "--unsigned")
    assert broken.exit_code == 7
    assert "model.onnx" in broken.output
    archive = pack(folder, tmp_path / "broken.scanside")
    packed = run(archive, "--studies", studies, "--truth", truth, "--unsigned")
    assert packed.exit_code == 7
    assert packed.output.replace(str(archive), str(folder)) == broken.output, "the person's file, not our scratch"


def test_a_study_that_kills_or_stops_the_child_ends_that_study_alone(tmp_path, monkeypatch):
    package = load_package(toy_packages.make_toy_xray_package(tmp_path / "toy"), trusted=True)
    for n in range(6):
        save([xray(chest_xray(n, matrix=256), Study(seed=str(n)))], tmp_path / "studies" / str(n))
    found, others = evaluation_run.find_studies(tmp_path / "studies")
    found.sort(key=lambda study: next(name for name in study.names if len(name) == 1))
    assert (len(found), others) == (6, [])
    monkeypatch.setattr(evaluation_run, "_MODULE", "evaluation_deeds")
    monkeypatch.setattr(evaluation_run, "Triage", lambda: Triage(xray_deadline_s=5.0))
    seen = []
    ran = evaluation_run.run_studies(package, [], found, trusted=True, threads=1, on_done=seen.append)
    assert [(study.reason, study.scores.get("bright-blob")) for study in ran.studies] == [
        ("", 0.0),
        ("failed", None),
        ("timed_out", None),
        ("", 0.75),
        ("failed", None),
        ("", 1.25),
    ]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert "ValueError: a bug" in ran.studies[4].detail
