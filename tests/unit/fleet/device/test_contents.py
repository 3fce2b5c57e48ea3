"""What a box says of itself: its health from what it knows, and nothing that names anybody."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance import __version__
from appliance.config import Config
from appliance.fleet.device.contents import Contents, machine_of, source_numbers
from appliance.fleet.device.gate import ref_of
from appliance.fleet.wire import pack, unpack
from appliance.fleet.wire_records import Health
from appliance.records import Actor, ActorKind, AnalysisResult, FindingResult, Outcome, Severity
from appliance.store.facts import Kind
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.box import DaemonStarted
from appliance.store.facts.packages import PackageLive
from appliance.store.health_samples import Sample

pytestmark = pytest.mark.req("R-FLEET-38")
LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="administrator")
SAID = FindingResult(id="bleed", score=0.9, operating_point="d", threshold=0.5, flagged=True, category=1)


@pytest.fixture
def make(store, clock, tmp_path):
    """``make(...)``: contents of a box whose configuration says so."""

    def build(mode="evaluation", *, quality=lambda _: "ntp", cert_days=lambda: 41.5, **fleet):
        sources = [{"name": name, "ae_title": name} for name in ("CT-1", "DX-1")]
        document = {"state_path": tmp_path, "site": {"mode": mode}, "sources": sources, "fleet": fleet}
        config = Config.model_validate(document)
        return Contents(store, config, clock, quality=quality, cert_days=cert_days)

    return build


def test_health_says_what_the_box_knows_of_itself(store, clock, scenes, make):
    clock.advance(40 * 86_400)
    with store.db.write() as tx:
        for _ in range(3):
            tx.journal(DaemonStarted(version="0", mode="evaluation"))
    clock.advance(3600)
    result = AnalysisResult(
        outcome=Outcome.FINDING, findings=(SAID,), hops_ms={"total": 812.0}, backend="onnxruntime", precision="fp32"
    )
    with store.db.write() as tx:
        study = scenes.add_study(tx, outcome=Outcome.FINDING)
        analysis = scenes.add_analysis(tx, study, result)
        other = scenes.add_study(tx, source="DX-1", is_open=True, ago_s=7200.0)
        scenes.add_analysis(tx, other, None)
        scenes.add_delivery(tx, study, analysis_id=analysis, state="owed", sent_at=None)
        tx.execute(
            "INSERT INTO package (name, version, digest, origin, manifest, state, state_at, installed_at)"
            " VALUES (?, '0.1.0', ?, 'config', '', 'live', ?, ?)",
            (scenes.HEAD, "ab" * 32, tx.at, tx.at),
        )
        tx.execute(
            "INSERT INTO operating_point VALUES (?, '0.1.0', 'bleed', 'sensitive', ?, 'Li', 'why')",
            (scenes.HEAD, tx.at),
        )
    store.issues.raise_("DISK_FAULT", "/media/doe", Severity.FAULT)
    store.issues.raise_("SOURCE_SILENT", "CT-1", Severity.WARNING)
    store.issues.shelve("SOURCE_SILENT", "CT-1", clock.now() + timedelta(days=1), LI)
    store.fleet.set_state("skew_ms", "-1500")
    clock.advance(90)
    store.health.add(clock.now(), Sample(cpu_percent=12.34, disk_percent=100.4, throttled=1.0, disk_wear_percent=20.0))
    contents = make(mode="clinical")
    health = contents.health(7)
    assert (health.sess, health.agent, health.mode, health.clk, health.cert_days) == (
        7,
        __version__,
        "clinical",
        "ntp",
        41.5,
    )
    assert (health.skew_ms, health.restarts_24h, health.studies_24h) == (-1500, 2, 1)
    assert (health.receiving, health.waiting, health.ai, health.ms.p50) == (1, 1, "ready", 812.0)
    assert health.oldest_owed_s >= 90.0
    assert (health.machine.cpu, health.machine.disk, health.machine.throttled) == (12.3, 100.0, True)
    (package,) = health.packages
    assert (package.package, package.role, package.backend, package.precision) == (
        scenes.HEAD, "live", "onnxruntime", "fp32",
    )  # fmt: skip
    assert package.points == {"bleed": "sensitive"}
    assert [(one.code, one.severity, one.acknowledged) for one in health.issues] == [
        ("DISK_FAULT", "fault", False), ("SOURCE_SILENT", "warning", True),
    ]  # fmt: skip
    assert [(one.source, round(one.last_image_s)) for one in health.sources] == [(1, 98), (2, 7290)]
    # The rows of issues and starts that wait for the server.
    assert (health.backlog, health.backlog_s) == (7, 3690.0)
    text = health.model_dump_json()
    assert not any(word in text for word in ("doe", "CT-1", "DX-1", "Li", "WANG"))
    data, packed = pack(health)
    assert unpack(Health, data, packed=packed) == health


def test_a_box_that_knows_nothing_yet_has_health_all_the_same(make):
    health = make(cert_days=lambda: None).health(1)
    assert (health.ai, health.packages, health.sources, health.machine.cpu, health.ms.p50) == (
        "no_package",
        (),
        (),
        None,
        None,
    )


def test_the_ai_that_does_not_work_is_told_as_such(store, make):
    store.issues.raise_("AI_UNAVAILABLE", "worker", Severity.FAULT)
    assert make().health(1).ai == "unavailable"


def test_a_silent_source_is_told_by_its_number(store, clock, scenes, make):
    clock.advance(40 * 86_400)
    begin = clock.now() - timedelta(days=28)
    with store.db.write() as tx:
        for n in range(28 * 24):
            for source in ("CT-1", "DX-1")[: 1 if n > 27 * 24 else 2]:
                scenes.add_study(tx, source=source, ago_s=(tx.now - begin).total_seconds() - n * 3600)
    found = {one.source: one.silent_too_long for one in make().health(1).sources}
    assert found == {1: False, 2: True}


def test_a_source_keeps_its_number_whatever_comes_and_goes(store):
    assert source_numbers(store, ["DX-1", "CT-1"]) == {"CT-1": 1, "DX-1": 2}
    assert source_numbers(store, ["A", "CT-1"]) == {"CT-1": 1, "DX-1": 2, "A": 3}


def test_how_well_the_clock_is_kept_is_asked_once_a_minute(clock, make):
    asked = []
    contents = make(quality=lambda now: asked.append(now) or "rtc")
    assert [contents.clk(), contents.clk()] == ["rtc", "rtc"]
    clock.advance(60)
    contents.clk()
    assert len(asked) == 2


def test_rows_leave_through_the_gate_with_what_this_box_alone_knows(store, make):
    store.issues.raise_("DISK_FAULT", "spool", Severity.FAULT)
    with store.db.write() as tx:
        tx.journal(PackageLive(package="head-ct", version="0.2.0"), subject="head-ct")
    contents = make()
    rows = [contents.record(fact) for fact in store.journal.after(0, 100)]
    issue, package = (row for row in rows if row is not None)
    assert (issue.d.code, issue.boot, issue.clk) == ("DISK_FAULT", store.db.boot, "ntp")
    assert package.d.state == "live"
    key = bytes.fromhex(store.fleet.state("ref_key"))
    assert issue.d.ref == ref_of(key, "DISK_FAULT", "spool") == contents.health(1).issues[0].ref
    assert make().record(store.journal.after(0, 100)[1]).d.ref == issue.d.ref, "over a restart"


def test_single_results_leave_where_the_site_says_so_and_name_no_study(store, scenes, make):
    with store.db.write() as tx:
        for source in ("CT-1", "self test"):
            study = scenes.add_study(tx, source=source)
            analysis = scenes.add_analysis(tx, study, AnalysisResult(outcome=Outcome.FINDING, findings=(SAID,)))
            tx.journal(
                AnalysisDone(
                    analysis=analysis, package="head-ct", version="0.1.0", role="live", outcome="FINDING",
                    hops_ms={"total": 5.0},
                ),
                study_id=study,
            )  # fmt: skip
    done = store.journal.after(0, 100, (Kind.ANALYSIS_DONE,))
    assert [make().record(fact) for fact in done] == [None, None]
    said, self_test = (make(detail="study").record(fact) for fact in done)
    assert (said.d.outcome, said.d.flagged, said.d.ms) == ("finding", ("bleed",), 5.0)
    assert self_test is None
    assert Kind.ANALYSIS_DONE in make(detail="study").kinds
    assert Kind.ANALYSIS_DONE not in make().kinds


def test_a_sensor_that_is_out_of_range_does_not_keep_health_from_leaving():
    made = machine_of(Sample(cpu_percent=100.4, memory_percent=-0.2))
    assert (made.cpu, made.memory, made.throttled) == (100.0, 0.0, None)
