"""Packages and engines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from admin_kit import FakeTools, engine, hidden, served

from appliance.config import Config
from appliance.records import SYSTEM, AnalysisResult, FindingResult, Outcome
from appliance.store.database import iso
from appliance.store.facts import Kind
from appliance.store.jsonable import dump
from appliance.store.package_rows import PackageState
from engines.package import bundled_packages, parse_manifest

pytestmark = pytest.mark.req("R-ADMIN-04")
NAME = "head-ct-hyperdensity"
TEXT = (bundled_packages()[NAME] / "model.yaml").read_text(encoding="utf-8")
MANIFEST = parse_manifest(TEXT.encode(), NAME)
FINDING = MANIFEST.findings[0]
ONE = f"/models/{NAME}/{MANIFEST.version}"


@pytest.fixture
def version(write):
    """``version(state)``: a version of the head package in a state."""

    def add(state, **columns):
        def insert(tx):
            return tx.insert(
                "package",
                name=NAME,
                version=MANIFEST.version,
                digest="d" * 64,
                origin="config",
                manifest=TEXT,
                state=state,
                state_at=tx.at,
                installed_at=tx.at,
                **columns,
            )

        return write(insert)

    return add


@pytest.fixture
def scored(write, scenes):
    """``scored(scores, days)``: analyses of as many studies, evenly over so many days back."""

    def add(scores, days):
        def insert(tx):
            for number, score in enumerate(scores):
                result = AnalysisResult(
                    outcome=Outcome.NOTHING_FLAGGED,
                    findings=(
                        FindingResult(
                            id=FINDING.id, score=score, operating_point="standard", threshold=1, flagged=False
                        ),
                    ),
                    hops_ms={"total": 1000.0 + number},
                    backend="onnxruntime",
                    precision="fp32",
                )
                tx.insert(
                    "analysis",
                    study_id=scenes.add_study(tx),
                    package=NAME,
                    package_version=MANIFEST.version,
                    role="live",
                    state="done",
                    category=1,
                    notify="active",
                    intended_use="detection",
                    ready_at=tx.at,
                    ready_mono=0.0,
                    boot="b",
                    deadline_s=1.0,
                    done_at=iso(tx.now - timedelta(days=days) * (1 - number / len(scores))),
                    outcome="NOTHING_FLAGGED",
                    result=dump(result),
                )

        write(insert)

    return add


def rows(store):
    return {row.version: row for row in store.packages.all(NAME)}


@pytest.mark.parametrize("state", ["missing", "rejected", "building", "verifying"])
def test_nothing_goes_live_without_a_proven_engine(store, clock, scenes, version, state):
    """M2."""
    version("silent", live_after_days=7.0, live_after_studies=50)
    tools = FakeTools(engines=[engine(NAME, MANIFEST.version, state)])
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        ada = somebody("administrator")
        page = ada.get("/models").text
        assert 'data-testid="live" disabled' in page
        answer = ada.post(f"{ONE}/live", typed=NAME, reason="now")
    assert answer.status_code == 409
    assert "Build it first" in answer.text
    assert rows(store)[MANIFEST.version].state is PackageState.SILENT


def test_live_at_once_needs_the_typed_name_and_a_reason(store, clock, scenes, version):
    version("silent", live_after_days=7.0, live_after_studies=50)
    tools = FakeTools(engines=[engine(NAME, MANIFEST.version, "ready")])
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        ada = somebody("administrator")
        assert "Type the package" in ada.post(f"{ONE}/live", typed="head", reason="x").text
        assert "Say why" in ada.post(f"{ONE}/live", typed=NAME, reason="").text
        assert rows(store)[MANIFEST.version].state is PackageState.SILENT
        ada.post(f"{ONE}/live", typed=NAME, reason="shown to the department")
    assert rows(store)[MANIFEST.version].state is PackageState.LIVE
    (fact,) = store.journal.after(0, 20, (Kind.PACKAGE_LIVE,))
    assert fact.actor["name"] == "Ada Administrator"


def test_a_version_is_withdrawn_with_a_reason_and_begins_again_silent(store, clock, scenes, version):
    version("live")
    with served(store, clock, scenes.packages(), tools=FakeTools()) as somebody:
        ada = somebody("administrator")
        assert ada.post(f"{ONE}/withdraw", reason=" ").status_code == 422
        page = ada.post(f"{ONE}/withdraw", reason="flags every calcified plexus").text
        assert "OUT OF SERVICE" in page
        assert "flags every calcified plexus" in page
        ada.post(f"{ONE}/activate", **{"as": "silent"}, days="3", studies="20", reason="new windows")
        assert ada.post(f"{ONE}/activate", **{"as": "silent"}, days="x", studies="1", reason="r").status_code == 400
        # Nothing was live before.
        assert "no previous version" in ada.post(f"{ONE}/rollback", reason="back").text
    row = rows(store)[MANIFEST.version]
    assert (row.state, row.live_after_days, row.live_after_studies) == (PackageState.SILENT, 3.0, 20)


def test_what_somebody_else_did_meanwhile_is_not_undone_by_a_page_that_is_old(store, clock, scenes, version):
    version("live")
    tools = FakeTools(engines=[engine(NAME, MANIFEST.version, "ready")])
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        ada = somebody("administrator")
        seen = hidden(ada.get("/models").text, "seen")
        used = hidden(ada.get(f"{ONE}/points/{FINDING.id}").text, "seen")
        other = next(one.name for one in FINDING.operating_points if one.name != used)
        # Another administrator picks a point and then takes it out of service.
        store.packages.choose_point(NAME, FINDING.id, other, "fewer", clinical=False, actor=SYSTEM)
        answer = ada.post(f"{ONE}/points/{FINDING.id}", point=used, reason="back", seen=used)
        assert (answer.status_code, f"has chosen {other} since you looked" in answer.text) == (409, True)
        assert rows(store)[MANIFEST.version].operating_points[FINDING.id] == other
        clock.advance(60)
        store.packages.withdraw(NAME, "wrong side", owed=lambda *_: (), actor=SYSTEM)
        for act, more in (("live", {"typed": NAME}), ("activate", {"days": "1", "studies": "1"}), ("withdraw", {})):
            answer = ada.post(f"{ONE}/{act}", reason="as planned", seen=seen, **more)
            assert answer.status_code == 409, act
        assert "has changed since you looked" in ada.post(f"{ONE}/live", typed=NAME, reason="x", seen=seen).text
        assert rows(store)[MANIFEST.version].state is PackageState.WITHDRAWN
        now = hidden(ada.get("/models").text, "seen")
        assert ada.post(f"{ONE}/live", typed=NAME, reason="mended", seen=now).status_code == 200
    assert rows(store)[MANIFEST.version].state is PackageState.LIVE


def test_a_build_is_asked_for_and_cancelled_in_the_persons_name(store, clock, scenes, version):
    version("live")
    tools = FakeTools(engines=[engine(NAME, MANIFEST.version, "missing")])
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        ada = somebody("administrator")
        ada.post(f"{ONE}/build")
        ada.post("/models/cancel-build")
        assert "Missing: not built yet" in ada.get("/models").text
    asked, cancelled = store.journal.after(0, 20, (Kind.ENGINE_BUILD_ASKED, Kind.ENGINE_CANCEL_ASKED))
    assert asked.body == {"package": f"{NAME}@{MANIFEST.version}", "flavour": "tensorrt", "precision": "fp16"}
    assert cancelled.actor["name"] == "Ada Administrator"


def test_another_operating_point_shows_first_how_often_it_would_have_flagged_here(
    store, clock, scenes, version, scored
):
    """M5: twenty studies in ten days, scored 1 to 20; no study of the last 30 days is left out or counted twice."""
    version("live")
    scored([float(score) for score in range(1, 21)], days=10)
    address = f"{ONE}/points/{FINDING.id}"
    with served(store, clock, scenes.packages(), tools=FakeTools()) as somebody:
        page = somebody("administrator").get(address).text
        for point in FINDING.operating_points:
            flagged = sum(score >= point.threshold for score in range(1, 21))
            row = page.split(f'data-testid="point-{point.name}"')[1].split("</tr>")[0]
            assert f"<strong>{flagged / 10:.1f}</strong>" in row
            assert f"{flagged} / 20" in row
        other = next(point for point in FINDING.operating_points if not point.default)
        ada = somebody("administrator")
        assert ada.post(address, point=other.name, reason="").status_code == 422
        assert ada.post(address, point="invented", reason="x").status_code == 409
        ada.post(address, point=other.name, reason="too many films of old strokes")
    assert rows(store)[MANIFEST.version].operating_points == {FINDING.id: other.name}
    (fact,) = store.journal.after(0, 50, (Kind.OPERATING_POINT_CHANGED,))
    assert fact.body["reason"] == "too many films of old strokes"


def test_with_no_scores_nobody_can_say_how_often_and_clinical_mode_changes_nothing(store, clock, scenes, version):
    version("live")
    clinical = Config.model_validate({"site": {"mode": "clinical"}})
    with served(store, clock, scenes.packages(), config=clinical, tools=FakeTools()) as somebody:
        ada = somebody("administrator")
        page = ada.get(f"{ONE}/points/{FINDING.id}").text
        assert "nobody can say" in page
        assert 'data-testid="choose"' not in page
        assert ada.post(f"{ONE}/points/{FINDING.id}", point="sensitive", reason="x").status_code == 409


def test_the_card_tells_what_ran_how_much_and_how_fast(store, clock, scenes, version, scored):
    version("live")
    scored([1.0] * 20, days=5)
    with served(store, clock, scenes.packages(), tools=FakeTools()) as somebody:
        page = somebody("service").get("/models").text
    assert "<strong>20</strong>" in page
    assert "1.01 <small>/ 1.02 s" in page
    assert "onnxruntime fp32" in page
    assert "Demonstrator, not for patient care" in page
    assert '<svg class="spark"' in page


def test_service_sees_models_and_changes_none(store, clock, scenes, version):
    version("live")
    with served(store, clock, scenes.packages(), tools=FakeTools()) as somebody:
        service = somebody("service")
        assert "Withdraw" not in service.get("/models").text
        for act in ("activate", "live", "withdraw", "rollback", "build", f"points/{FINDING.id}"):
            assert service.post(f"{ONE}/{act}", reason="x").status_code == 403
        assert somebody("radiologist").get("/models").status_code == 403
    assert rows(store)[MANIFEST.version].state is PackageState.LIVE


def test_the_course_of_the_days_has_its_place_from_the_second_day_on(store, clock, scenes, version, scored):
    version("live")
    with served(store, clock, scenes.packages()) as somebody:
        ada = somebody("administrator")
        assert "seven days" not in ada.get("/models").text, "no analysis yet"
        scored([0.1], days=0)
        assert "seven days" not in ada.get("/models").text, "a line of one day is none"
        scored([0.1, 0.2], days=2)
        page = ada.get("/models").text
    assert page.count("<span>p50 and p95 of seven days</span>") == 1
    assert "scanside model" not in page
