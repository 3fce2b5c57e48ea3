"""docs/bring-your-own-model.md followed to the letter: its commands in one shell, from a file to a flagged study."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import maker_graphs
import pytest
import segmenter
from box_kit import Box, box_config
from click.testing import CliRunner
from forked_cli import scanside_program

from appliance.cli import main
from appliance.records import Outcome
from appliance.simulate.phantom_studies import phantom_study

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bring-your-own-model.md"
#: Says what the package was made for, as a maker does in an editor: each answer by its key.
FILL = """#!{python} -IS
import re, sys
answers = {answers}
for path in sys.argv[1:]:
    text = open(path, encoding="utf-8").read()
    text = re.sub(r'(\\w+): "fill in:[^"]*"', lambda m: m[1] + ": " + answers[m[1]], text)
    open(path, "w", encoding="utf-8").write(re.sub(r"^fill in:.*$", "Nothing, in a test.", text, flags=re.M))
"""
SAID = {"en": "A test.", "zh_Hans": "测试", "licence": "Apache-2.0", "age_years": "{min: 18}"}
XRAY = {**SAID, "view_positions": "[PA, AP]", "mean": "[0.0]", "sd": "[1.0]"}


@dataclass(frozen=True)
class Brought:
    """A file of a maker, and what the maker knows of it."""

    kind: str
    graph: bytes
    findings: str
    answers: dict
    phantom: str
    other: str = ""


def densenet(size):
    colours = {"mean": "[0.485, 0.456, 0.406]", "sd": "[0.229, 0.224, 0.225]"}
    answers = {**XRAY, **colours, "body_parts": "[CHEST]", "activation": "sigmoid", "threshold": "0.5"}
    graph = maker_graphs.densenet121(size)
    return Brought("classifier", graph, ",".join(maker_graphs.FOURTEEN), answers, "chest-xray-effusion", "chest-xray")


def unet():
    prepared = {"spacing_mm": "[8, 8, 8]", "clip_hu": "[300, 700]", "mean": "300", "sd": "400"}
    answers = {**SAID, **prepared, "body_parts": "[HEAD]", "slice_thickness_mm": "{max: 6}"}
    answers |= {"activation": "softmax", "threshold": "50"}
    return Brought("segmenter", segmenter.fold(1), "-,dense-bone", answers, "head-ct-bleed", "head-ct")


def edited(folder, answers):
    """An editor that knows the answers."""
    path = folder / "editor"
    path.write_text(FILL.format(python=sys.executable, answers=json.dumps(answers, ensure_ascii=False)), "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def blocks():
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def follow(folder, brought, ports, program):
    """Run the page's commands; its first block, which says what differs, with what differs here."""
    first, *rest = blocks()
    mine = {
        "NAME": "mine",
        "KIND": brought.kind,
        "FINDINGS": brought.findings,
        "PHANTOM": brought.phantom,
        "OTHER": brought.other,
        "SCANNER": "CT-1" if "-ct" in brought.phantom else "DX-1",
        "PORT": str(ports[0]),
        "SCREEN": str(ports[1]),
        "EDITOR": str(edited(folder, brought.answers)),
    }
    assert set(re.findall(r"(?:^| )([A-Z]+)=", first, flags=re.MULTILINE)) == set(mine)
    work = folder / "work"
    work.mkdir()
    (work / "my.onnx").write_bytes(brought.graph)
    script = "\n".join(["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *rest])
    path = os.pathsep.join((str(program), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=work,
        env={**os.environ, **mine, "PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    log = work / "box.log"
    said = log.read_text()[-3000:] if log.exists() else ""
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{said}"
    return work


def told(work, *words):
    """What a command says of the box that the page left behind."""
    done = CliRunner().invoke(main, [*words, "--config", str(work / "box.yaml"), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with scanside_program(tmp_path_factory.mktemp("cli")) as folder:
        yield folder


@pytest.mark.long  # the whole page; every run brings ``small`` through the same commands
@pytest.mark.req("R-BRING-01")
@pytest.mark.parametrize("kind", ["densenet", "unet"])
def test_the_page_leads_from_a_file_to_a_flagged_study_without_python(tmp_path, free_port, program, scale, kind):
    brought = unet() if kind == "unet" else densenet(224 if scale == 1 else 64)
    work = follow(tmp_path, brought, (free_port(), free_port()), program)

    silent, live = (told(work, "study", "show", accession) for accession in ("PHANTOM2", "PHANTOM3"))
    assert [one["role"] for one in silent["study"]["analyses"]] == ["silent"]
    assert silent["study"]["outcome"] == Outcome.NOT_APPLICABLE
    assert [one["role"] for one in live["study"]["analyses"]] == ["live"]
    assert live["study"]["outcome"] == Outcome.FINDING
    (alert,) = told(work, "alert", "list")["alerts"]
    assert alert["study_id"] == live["study"]["id"]
    assert [one["finding"] for one in alert["findings"]] == ["dense-bone" if kind == "unet" else "effusion"]
    assert told(work, "model", "list")["packages"][0]["state"] == "withdrawn"
    assert {path.name for path in (work / "mine/golden").iterdir()} == {"flagged.npz", "plain.npz", "golden.json"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A box on which a detector and a regressor of the same maker are live, each begun by ``scanside model new``."""
    root = tmp_path_factory.mktemp("small")
    brought = {
        "detector": Brought(
            "detector",
            maker_graphs.heat_map(),
            "bright-spot",
            {
                **SAID,
                "body_parts": "[CHEST]",
                "slice_thickness_mm": "{max: 6}",
                "spacing_mm": "[8, 8, 8]",
                "clip_hu": "[-1000, 200]",
                "mean": "-1000",
                "sd": "1200",
                "threshold": "0.6",
            },
            "chest-ct-nodule",
        ),
        "regressor": Brought(
            "regressor",
            maker_graphs.regressor(),
            "age,-",
            {**XRAY, "body_parts": "[KNEE]", "unit": "mo", "score_unit": "mo", "possible": "{min: 0, max: 228}"},
            "knee-xray",
        ),
    }

    def call(*words):
        done = CliRunner().invoke(main, [*map(str, words)])
        assert done.exit_code == 0, done.output

    key = ["--new-key", root / "maker.pem"]
    for name, one in brought.items():
        (root / f"{name}.onnx").write_bytes(one.graph)
        folder = root / name
        call("model", "new", folder, "--from", f"{folder}.onnx", "--kind", one.kind, "--findings", one.findings)
        editor = edited(root, one.answers)
        subprocess.run([editor, folder / "model.yaml", folder / "CARD.md"], check=True, timeout=60)
        call("phantom", one.phantom, root / f"{name}-phantom")
        call("model", "golden", folder, "--dicom", root / f"{name}-phantom", "--origin", "phantom")
        call("model", "sign", folder, *key)
        key = ["--key", root / "maker.pem"]
    (root / "box.yaml").write_text(f"state_path: {root / 'state'}\ntrusted_keys: [{root / 'maker.pem.pub'}]\n")
    config = box_config(root / "state", packages=(), trusted_keys=[str(root / "maker.pem.pub")])
    with Box(config) as box:
        for name in brought:
            call("model", "install", root / name, "--config", root / "box.yaml")
            call("model", "activate", name, "--days", "0", "--studies", "0", "--config", root / "box.yaml")
        box.wait(lambda: {"detector", "regressor"} <= set(box.daemon.link.loaded), "both packages in the worker")
        yield box


def analysed(box, phantom):
    study = phantom_study(phantom, 2)
    box.send(study, "CT-1" if len(study) > 1 else "DX-1")
    ended = box.ended(study[0].StudyInstanceUID)
    assert ended.outcome is Outcome.FINDING, ended
    (analysis,) = ended.live
    (finding,) = analysis.findings
    return finding


@pytest.mark.req("R-BRING-01")
def test_a_detector_becomes_marks_with_position_and_diameter(small):
    finding = analysed(small, "chest-ct-nodule")
    assert finding.id == "bright-spot"
    assert finding.score >= 0.6
    assert [one.name for one in finding.measurements] == ["diameter"]
    assert finding.key_slices


@pytest.mark.req("R-BRING-01")
def test_a_regressor_becomes_a_number_with_its_unit(small):
    finding = analysed(small, "knee-xray")
    (value,) = finding.measurements
    assert (value.name, value.unit) == ("age", "mo")
    assert 0 < value.value < 100
