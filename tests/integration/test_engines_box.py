"""The life of an engine on a running box: built, taken over under load, altered, replaced, built again.

Real daemon and worker; the engine is the lowered FP16 graph in ONNX Runtime, so that no GPU is needed.
"""

from __future__ import annotations

import json
import os
import signal

import pytest
import toy_packages
import yaml
from box_kit import Box, box_config
from click.testing import CliRunner

from appliance.cli import main
from appliance.records import Outcome, Severity
from appliance.simulate.scenarios import SCENARIOS
from appliance.store.facts import Kind
from engines.store import EngineStore

NAME = "toy-bright-blob"


class Ward:
    """A box with one toy package that wishes for FP16, and X-rays that keep coming."""

    def __init__(self, folder):
        self.package = toy_packages.add_golden(
            toy_packages.make_toy_xray_package(folder / "toy", precisions=["fp32", "fp16"])
        )
        config = box_config(folder / "state", packages=(NAME,), engines={"precision": "fp16"})
        self.box = Box(config, (self.package,))
        self.file = folder / "box.yaml"
        self.file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_none=True))))
        self.engines = EngineStore(config.engines_path)
        self.results = []

    def study(self):
        """Send one X-ray and wait for its end; the result that it came to."""
        (ds,) = next(one for one in SCENARIOS if one.name == "chest_xray").build(f"seed {len(self.results)}")
        self.box.send([ds], "DX-1")
        view = self.box.ended(ds.StudyInstanceUID)
        result = self.box.store.analyses.of_study(view.id)[NAME]
        assert result.outcome in (Outcome.FINDING, Outcome.NOTHING_FLAGGED), result
        self.results.append(result)
        return result

    def issue(self, code):
        found = [one for one in self.box.store.issues.open() if one.code == code]
        return found[0] if found else None

    def facts(self, kind):
        return self.box.store.journal.after(0, limit=100_000, kinds=(kind,))

    def scanside(self, *arguments):
        done = CliRunner().invoke(main, [*arguments, "--config", str(self.file), "--json"])
        return done.exit_code, json.loads(done.stdout) if done.exit_code == 0 else done.stderr


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    ward = Ward(tmp_path_factory.mktemp("ward"))
    with ward.box:
        yield ward


@pytest.mark.req("R-SERVE-03", "R-SERVE-04")
def test_an_engine_takes_over_while_studies_flow_and_every_result_names_what_made_it(ward):
    ward.box.wait(lambda: ward.facts(Kind.ENGINE_FALLBACK), "the fallback while there is no engine")
    ward.study()
    while not ward.facts(Kind.ENGINE_SERVES):
        ward.study()
    last = ward.study()
    (ready,) = ward.facts(Kind.ENGINE_READY)
    (entry,) = ward.engines.entries()
    assert ready.body["engine_digest"] == entry.digest == last.engine_digest
    assert (last.backend, last.precision) == ("onnxruntime", "fp16")
    assert {(r.precision, r.engine_digest == entry.digest) for r in ward.results} <= {("fp32", False), ("fp16", True)}
    assert all(result.package_digest == last.package_digest for result in ward.results)
    assert ward.issue("ENGINE_FALLBACK") is None
    assert [fact.body["step"] for fact in ward.facts(Kind.ENGINE_BUILDING)][:2] == ["lower", "build"]
    assert entry.report["passed"], "the report lies beside the engine"


@pytest.mark.req("R-SERVE-06")
def test_an_altered_engine_is_replaced_by_the_reference_with_an_issue_and_built_again(ward):
    (entry,) = ward.engines.entries()
    plan = ward.engines.root / "entries" / entry.digest / "stage-0.plan"
    data = bytearray(plan.read_bytes())
    data[-1] ^= 0xFF
    plan.write_bytes(data)
    before = len(ward.facts(Kind.ENGINE_FALLBACK))
    os.kill(ward.box.daemon.link._worker.pid, signal.SIGKILL)
    ward.box.wait(lambda: len(ward.facts(Kind.ENGINE_FALLBACK)) > before, "the fallback")
    fallback = ward.facts(Kind.ENGINE_FALLBACK)[-1]
    assert "MAC does not match" in fallback.body["why"]
    assert fallback.body["precision"] == "fp32"
    raised = [fact for fact in ward.facts(Kind.ISSUE_RAISED) if fact.body["code"] == "ENGINE_FALLBACK"][-1]
    assert raised.body["severity"] == Severity.WARNING
    ward.study()
    ward.box.wait(lambda: len(ward.facts(Kind.ENGINE_READY)) == 2, "the engine that is built again")
    ward.box.wait(lambda: ward.issue("ENGINE_FALLBACK") is None, "the end of the issue")
    rebuilt = ward.study()
    assert rebuilt.precision == "fp16"
    assert rebuilt.engine_digest != entry.digest


@pytest.mark.req("R-SERVE-07")
def test_a_person_orders_a_build_on_the_running_box_and_sees_how_it_ends(ward):
    status, answer = ward.scanside("engine", "build", NAME)
    assert (status, answer["state"]) == (0, "ready")
    ward.box.wait(lambda: ward.study().engine_digest == answer["engine_digest"], "a result of the new engine")
    (asked,) = ward.facts(Kind.ENGINE_BUILD_ASKED)
    assert asked.actor["kind"] == "person"
    status, refused = ward.scanside("engine", "build", NAME, "--precision", "int8")
    assert status == 1
    assert "has no precision int8" in refused
    assert ward.facts(Kind.ENGINE_REJECTED)[-1].body["cause"] == "unsupported"
    assert ward.study().precision == "fp16", "the old one keeps running"


@pytest.mark.req("R-SERVE-07")
def test_engines_are_listed_shown_and_looked_into(ward):
    _, listed = ward.scanside("engine", "list")
    newest = listed["engines"][0]
    assert (newest["package"], newest["state"], newest["precision"]) == (NAME, "ready", "fp16")
    assert any("MAC" in one["why"] for one in listed["set_aside"])
    _, shown = ward.scanside("engine", "show", newest["digest"][:10])
    assert shown["report"]["passed"]
    assert shown["key"]["flavour"] == "onnxruntime"
    _, inside = ward.scanside("engine", "inspect", newest["digest"][:10])
    assert inside["stages"][0]["operators"]["Conv"] == 2
    _, removed = ward.scanside("engine", "gc", "--keep", "1")
    assert newest["digest"] not in removed["removed"]
    status, unknown = ward.scanside("engine", "show", "ffffffffffffff")
    assert (status, "0 engines begin with" in unknown) == (4, True)
