"""``bone-age`` on a whole box: trained on phantoms it measures and reports; as it ships it refuses to run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from box_kit import Box, box_config, box_with_pacs
from click.testing import CliRunner

from appliance.cli import main
from appliance.dicom.pixels import xray_image
from appliance.records import Outcome, Reason
from appliance.simulate.dicomize import code, save, xray
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.study import Study
from engines.gate import gate_package
from engines.package import load_package
from engines.pipeline import Pipeline
from engines.types import Image, Stack

ROOT = Path(__file__).resolve().parents[2]
NAME = "bone-age"
REFUSED = "its weights are not trained"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A package made by the one command, on phantoms."""
    folder = tmp_path_factory.mktemp("trained") / NAME
    command = [sys.executable, "tools/train/bone_age", "--phantom", "--out", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def hand():
    """``hand(seed, months)``: a phantom of a hand."""
    sys.path.insert(0, str(ROOT / "tools/train"))
    try:
        from bone_age.phantom import hand
    finally:
        sys.path.pop(0)
    return hand


def film(phantom, seed, **values):
    """A phantom as the DX image of a hand, with these values in its header."""
    ds = xray(dataclasses.replace(phantom, kind="knee_xray"), Study(seed=seed), view_position="PA", **values)
    ds.BodyPartExamined, ds.PatientAge = "HAND", "010Y"
    ds.SeriesDescription = ds.ProtocolName = "Hand PA"
    ds.AnatomicRegionSequence = [code("85562004", "SCT", "Hand")]
    return ds


# -- trained on phantoms -----------------------------------------------------------------------------------------------


@pytest.mark.req("R-BONE-04")
def test_training_on_phantoms_gives_a_package_that_passes_the_gate_and_may_run(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    figures = metrics["figures"]
    assert figures["held_out"] >= 30
    assert figures["mae_months"] <= 6.0
    assert figures["refused"] == 0
    shipped = json.loads((ROOT / "engines/models/bone-age/metrics.json").read_text())
    assert figures["mae_months"] == pytest.approx(shipped["figures"]["mae_months"], abs=0.5)
    package = load_package(trained, trusted=True)
    assert package.manifest.template is None
    assert package.manifest.status == "demonstrator"
    assert package.manifest.head.params["sd"] == figures["rmse_months"]
    assert "on simulated hands alone" in (trained / "CARD.md").read_text()
    assert gate_package(trained, [], trusted=True).version == "1.0.0"


@pytest.mark.req("R-BONE-04")
def test_monochrome1_gives_what_its_monochrome2_equal_gives(trained, hand, tmp_path):
    phantom = hand(7, 120.0)
    with Pipeline(load_package(trained, trusted=True)) as pipeline:
        ((role, taken),) = pipeline.inputs.items()
        found = []
        for photometric in ("MONOCHROME2", "MONOCHROME1"):
            (path,) = save([film(phantom, "mono", photometric=photometric)], tmp_path / photometric)
            prepared = taken.preprocessor.prepare(Image(id="picture", array=xray_image(path)))
            found.append(pipeline.finish({role: Stack(slices=(prepared,))}).output.scores[NAME])
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0] == pytest.approx(120, abs=15)


@pytest.mark.req("R-BONE-04")
def test_hand_xray_becomes_a_passive_finding_and_a_report_with_months_and_sd(trained, hand, tmp_path):
    sd = load_package(trained, trusted=True).manifest.head.params["sd"]
    with box_with_pacs(tmp_path, [trained], packages=(NAME,)) as (box, pacs):
        image = film(hand(3, 84.0, matrix=512), "hand")
        knee = film(knee_xray(1, matrix=512), "knee that says hand")
        foot = film(hand(4, 84.0), "hand that says foot")
        foot.BodyPartExamined = "FOOT"
        box.send([image, knee, foot], "DX-1")
        view = box.ended(image.StudyInstanceUID)
        assert view.outcome is Outcome.FINDING
        assert not view.alert.chime, "it is passive"
        (analysis,) = view.live
        (finding,) = analysis.findings
        (measured,) = finding.measurements
        assert (measured.unit, measured.sd) == ("mo", sd)
        assert measured.value == pytest.approx(84, abs=15)

        refused = box.ended(knee.StudyInstanceUID)
        assert (refused.outcome, refused.reason) == (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)
        assert refused.live[0].findings == ()
        assert box.ended(foot.StudyInstanceUID).outcome is Outcome.NOT_APPLICABLE

        reports = [pydicom.dcmread(arrival.path) for arrival in pacs.wait_for(2, 90)]
        (report,) = [ds for ds in reports if ds.StudyInstanceUID == image.StudyInstanceUID]
        numbers = _numbers(report)
        # The second is its standard deviation (CID 7464).
        assert [(n["concept"], n["unit"], n["derivation"]) for n in numbers] == [
            ("BONE-AGE", "mo", None),
            ("BONE-AGE", "mo", "386136009"),
        ]
        assert numbers[0]["value"] == pytest.approx(measured.value, abs=0.01)
        assert numbers[1]["value"] == pytest.approx(sd, abs=0.01)


def _numbers(item):
    """Every NUM of a report, in its order."""
    found = []
    for child in item.get("ContentSequence", ()):
        if child.ValueType == "NUM":
            (value,) = child.MeasuredValueSequence
            modifiers = [m for m in child.get("ContentSequence", ()) if m.ValueType == "CODE"]
            derived = [m.ConceptCodeSequence[0].CodeValue for m in modifiers]
            found.append(
                {
                    "concept": child.ConceptNameCodeSequence[0].CodeValue,
                    "value": float(value.NumericValue),
                    "unit": value.MeasurementUnitsCodeSequence[0].CodeValue,
                    "derivation": derived[0] if derived else None,
                }
            )
        found += [] if child.ValueType == "NUM" else _numbers(child)
    return found


# -- as it ships -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-BONE-05")
def test_box_that_names_the_template_starts_says_why_it_does_not_run_and_refuses_to_activate_it(hand, tmp_path):
    config = box_config(tmp_path / "state", packages=(NAME,))
    file = tmp_path / "box.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_none=True))))

    def scanside(*arguments):
        done = CliRunner().invoke(main, [*arguments, "--config", str(file)])
        return done.exit_code, done.output + done.stderr

    code_, said = scanside("config", "validate")
    assert code_ == 0
    assert f"{NAME} is a template and will not run: {REFUSED}" in said
    with Box(config) as box:
        assert len(box.daemon.packages) == 0
        (issue,) = [one for one in box.store.issues.open() if one.code == "PACKAGE_TEMPLATE"]
        assert issue.subject == NAME
        assert REFUSED in issue.detail["why"]
        for terms in (["--days", "0", "--studies", "0"], [], ["--shadow"]):
            code_, said = scanside("model", "activate", NAME, *terms)
            assert code_ != 0
            assert REFUSED in said
        assert "installed" in scanside("model", "list")[1]
        assert REFUSED in " ".join(scanside("model", "show", NAME)[1].split())
        image = film(hand(5, 60.0), "hand for nobody")
        box.send([image], "DX-1")
        assert box.ended(image.StudyInstanceUID).outcome is Outcome.NOT_APPLICABLE
        assert [one for one in box.store.issues.open() if one.code == "PACKAGE_TEMPLATE"], "the issue stays"
        assert np.all([row.state == "installed" for row in box.store.packages.all(NAME)])
