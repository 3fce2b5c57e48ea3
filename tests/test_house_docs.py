"""The documents that must agree with one another and with the code."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appliance.records import Outcome, Reason

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ADRS = sorted((DOCS / "adr").glob("[0-9]*.md"))


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trace():
    return load_tool("trace")


@pytest.fixture(scope="module")
def requirements(trace):
    return trace.requirements()


@pytest.fixture(scope="module")
def tested(trace):
    found = {}
    for requirement, test in trace.marks():
        found.setdefault(requirement, []).append(test)
    return found


@pytest.mark.req("R-HOUSE-14")
def test_every_id_in_a_test_is_a_promise(requirements, tested):
    assert {i: tests for i, tests in tested.items() if i not in requirements} == {}


@pytest.mark.req("R-HOUSE-14")
def test_a_promise_has_an_id_of_the_house_and_a_sentence(requirements):
    for requirement, promise in requirements.items():
        assert re.fullmatch(r"R-(FAULT-T\d\d|[A-Z]+-\d\d)", requirement), requirement
        assert len(promise) > 20, requirement


@pytest.mark.req("R-HOUSE-14")
def test_trace_sees_the_markers_that_pytest_sees(trace, tmp_path):
    """Functions, classes, module marks, several ids, faults: read from source as pytest would collect them."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_sample.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.req('R-A-01')]\n"
        "@pytest.mark.req('R-A-02', 'R-A-03')\n"
        "def test_one(): ...\n"
        "@pytest.mark.fault('T12')\n"
        "class TestTwo:\n"
        "    @pytest.mark.parametrize('x', [1])\n"
        "    def test_three(self, x): ...\n"
        "def helper(): ...\n",
        "utf-8",
    )
    assert sorted(trace.marks(tests)) == [
        ("R-A-01", "tests/test_sample.py::TestTwo::test_three"),
        ("R-A-01", "tests/test_sample.py::test_one"),
        ("R-A-02", "tests/test_sample.py::test_one"),
        ("R-A-03", "tests/test_sample.py::test_one"),
        ("R-FAULT-T12", "tests/test_sample.py::TestTwo::test_three"),
    ]


@pytest.mark.req("R-HOUSE-14")
def test_trace_prints_every_promise(requirements):
    shown = subprocess.run(
        [sys.executable, ROOT / "tools" / "trace.py", "--json"], capture_output=True, text=True, check=True
    )
    assert set(json.loads(shown.stdout)["requirements"]) >= set(requirements)


RISKS = yaml.safe_load((DOCS / "risks.yaml").read_text("utf-8"))


@pytest.mark.req("R-HOUSE-15")
@pytest.mark.parametrize("risk", RISKS, ids=lambda risk: risk["id"])
def test_every_hazard_has_a_control_that_is_tested(risk, requirements, tested):
    assert set(risk) - {"open"} == {"id", "hazard", "harm", "control", "requirements"}
    assert set(risk["requirements"]) <= set(requirements)
    assert any(requirement in tested for requirement in risk["requirements"]), "no test carries any of its requirements"


@pytest.mark.req("R-HOUSE-15")
def test_hazards_have_ids_of_their_own():
    ids = [risk["id"] for risk in RISKS]
    assert len(ids) == len(set(ids))


@pytest.mark.req("R-HOUSE-13")
@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_a_decision_is_one_page_of_four_parts(path):
    text = path.read_text("utf-8")
    assert re.match(rf"# {path.stem[:4]} \S", text)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Context", "Options", "Decision", "Consequences"]
    assert len(text.splitlines()) <= 60


@pytest.mark.req("R-HOUSE-13")
def test_decisions_are_numbered_without_gaps_and_listed():
    assert [path.name[:4] for path in ADRS] == [f"{n:04d}" for n in range(1, len(ADRS) + 1)]
    listed = (DOCS / "adr" / "README.md").read_text("utf-8")
    assert [path.name for path in ADRS if f"({path.name})" not in listed] == []


@pytest.mark.req("R-HOUSE-13")
def test_contributing_fits_a_screen():
    lines = (ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 130


@pytest.mark.req("R-HOUSE-13")
def test_the_glossary_has_every_outcome_and_every_reason_in_order():
    text = (DOCS / "glossary.md").read_text("utf-8")
    assert [outcome for outcome in Outcome if f"| {outcome}" not in text] == []
    assert ", ".join(Reason) in " ".join(text.split())


@pytest.mark.req("R-HOUSE-13")
def test_links_between_documents_lead_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "engines" / "models").rglob("*.md")]:
        targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
        broken += [f"{page.relative_to(ROOT)} -> {to}" for to in targets if not (page.parent / to).exists()]
    assert broken == []


@pytest.mark.req("R-HOUSE-09")
def test_the_page_of_testing_keeps_the_place_of_the_full_run(tmp_path):
    tool = load_tool("test_long")
    text = (DOCS / "testing.md").read_text("utf-8")
    assert text.count(tool.BEGIN) == text.count(tool.END) == 1
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2" time="600.0">'
        '<testcase><skipped message="no GPU"/></testcase><testcase><skipped message="no GPU"/></testcase>'
        "</testsuite></testsuites>",
        "utf-8",
    )
    shown = tool.summary(report, "abc123")
    assert "commit abc123" in shown
    assert "5 passed, 2 failed, 2 skipped in 10 minutes." in shown
    assert "- 2 x no GPU" in shown
