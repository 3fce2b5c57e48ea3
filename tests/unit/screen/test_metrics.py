"""What Prometheus reads of a box: in its format, with few labels, and nothing of a patient."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from admin_kit import FakeTools, engine
from prometheus_client.parser import text_string_to_metric_families

from appliance.config import Config
from appliance.records import SYSTEM, AnalysisResult, Outcome, Reason, Severity, UserRole
from appliance.screen import screen_app
from appliance.screen.metrics import _MACHINE, MOST
from appliance.screen.tools import FleetLink
from appliance.store.facts.box import DaemonStarted
from appliance.store.health_samples import METRICS, Sample
from appliance.web.server import WebServer

pytestmark = pytest.mark.req("R-FLEET-89")
PACKAGE = "head-ct-hyperdensity"
LABELS = {"package", "version", "role", "outcome", "reason", "quantile", "state", "check", "queue", "code", "severity"}


class Linked(FakeTools):
    link = FleetLink()

    def fleet_link(self):
        return self.link


@pytest.fixture
def tools():
    return Linked(engines=[engine(PACKAGE, "0.1.0", "ready")])


@pytest.fixture
def scrape(store, clock, scenes, tools):
    """``scrape()``: the page by a token of the role service; another role's answer where told."""
    config = Config.model_validate({"fleet": {}})
    server = WebServer(screen_app(store, config, scenes.packages(), clock, tools), port=0)
    address = f"http://127.0.0.1:{server.start()}/api/v1/metrics"

    def ask(role=UserRole.SERVICE):
        clock.advance(20)
        headers = {"Authorization": f"Bearer {store.tokens.add(f't{store.journal.last_seq()}', role, (), SYSTEM)}"}
        return httpx.get(address, headers=headers if role else {}, timeout=60)

    ask.address = address
    yield ask
    server.stop()


def parsed(answer):
    """{(name, labels as pairs): value}."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.name.startswith("scanside_") and family.documentation for family in families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(found, name, **labels):
    return found[(f"scanside_{name}", tuple(sorted(labels.items())))]


@pytest.fixture
def ended(write, scenes):
    """``ended(outcome, ms, ...)``: one analysis of a study of its own."""

    def add(outcome, ms, *, package=PACKAGE, reason=None):
        def insert(tx):
            study = scenes.add_study(tx, outcome=outcome, reason=reason)
            result = AnalysisResult(outcome=outcome, reason=reason, hops_ms={"total": ms})
            return scenes.add_analysis(tx, study, result, package=package)

        return write(insert)

    return add


def test_every_figure_of_health_is_there_in_prometheus_units(store, clock, scrape, tools, ended, write):
    assert set(_MACHINE) == {name for name in METRICS if name not in
        {"studies", "end_to_end_p50_ms", "end_to_end_p95_ms", "queue_age_s", "analyses_waiting"}}  # fmt: skip
    sample = Sample(**{name: 50.0 + n for n, name in enumerate(_MACHINE)} | {"throttled": 1.0})
    store.health.add(clock.now() - timedelta(minutes=1), sample)
    for number in range(100):
        ended(Outcome.FINDING if number < 4 else Outcome.NOTHING_FLAGGED, 1000.0 * (number + 1))
    ended(Outcome.NOT_ANALYSED, 10.0, reason=Reason.TIMED_OUT)
    store.issues.raise_("SOURCE_SILENT", "CT-1", Severity.WARNING)
    for _ in range(3):
        write(lambda tx: tx.journal(DaemonStarted(version="1", mode="evaluation")))
    now = clock.now()
    tools.link = FleetLink(is_enrolled=True, connected_at=now, told_at=now, waiting=17, ends_at=now + timedelta(days=9))
    found = parsed(scrape())
    assert value(found, "cpu_busy_ratio") == pytest.approx(0.5)
    for name, (metric, _, scale) in _MACHINE.items():
        assert value(found, metric) == pytest.approx(getattr(sample, name) * scale), name
    of = {"package": PACKAGE, "version": "0.1.0"}
    assert value(found, "analyses_24h", **of, role="live", outcome="finding", reason="") == 4
    assert value(found, "analyses_24h", **of, role="live", outcome="not_analysed", reason="timed_out") == 1
    assert value(found, "flagged_24h", **of, role="live") == 4
    assert [value(found, "result_seconds_24h", **of, quantile=q) for q in ("0.5", "0.95", "0.99")] == [50, 95, 99]
    assert value(found, "issues", code="SOURCE_SILENT", severity="warning") == 1
    assert (value(found, "sources_silent"), value(found, "restarts_24h")) == (1, 2)
    assert value(found, "engine", **of, state="ready") == 1
    assert [value(found, f"fleet_{name}") for name in ("connected", "backlog_rows")] == [1, 17]
    assert value(found, "fleet_acknowledged_seconds") == pytest.approx(20, abs=1)
    assert value(found, "fleet_certificate_seconds") == pytest.approx(9 * 86_400 - 20, abs=1)
    assert sum(value(found, "clock", state=state) for state in ("ntp", "rtc", "none")) == 1
    assert value(found, "queue", queue="deliveries") == value(found, "queue_oldest_seconds") == 0


def test_labels_stay_few_and_closed_whatever_lies_in_the_store(scrape, store, ended):
    for number in range(MOST + 20):
        ended(Outcome.NOTHING_FLAGGED, 10.0, package=f"package-{number}")
        store.issues.raise_(f"MADE_UP_{number}", "x", Severity.FAULT)
    found = parsed(scrape())
    assert {label for _, labels in found for label, _ in labels} <= LABELS | {"mode"}
    each = [name for name, _ in found]
    assert max(each.count(name) for name in set(each)) <= MOST + 1
    other = value(
        found, "analyses_24h", package="other", version="other", role="other", outcome="other", reason="other"
    )
    assert other == 20
    assert value(found, "issues", code="other", severity="fault") == MOST + 20


def test_nothing_of_a_patient_a_source_or_a_machine_is_in_it(scrape, store, scenes, write):
    scenes.fill(store, "several")
    identity = replace(scenes.WANG, patient_name="MARKER^NAME", patient_id="MARKERID", accession_number="MARKERACC")
    write(scenes.urgent, identity)
    store.issues.raise_("SOURCE_SILENT", "MARKERSOURCE", Severity.WARNING, {"why": "MARKERWHY"})
    text = scrape().text
    parsed(scrape())
    assert "MARKER" not in text
    for table, column in (("study", "study_instance_uid"), ("study", "source"), ("series", "series_instance_uid")):
        for (told,) in store.db.all(f"SELECT DISTINCT {column} FROM {table}"):  # noqa: S608 - names above
            assert f'"{told}"' not in text, (table, column)


def test_nobody_reads_it_without_a_token_or_session_of_those_who_keep_the_box(scrape):
    assert httpx.get(scrape.address, timeout=60).status_code == 401
    assert scrape(UserRole.SCREEN).status_code == 403
    assert scrape(UserRole.VIEWER).status_code == 403
    assert scrape(UserRole.SERVICE).status_code == 200


def test_scrapes_in_a_row_read_a_day_of_results_once(scrape, store, clock, ended, monkeypatch):
    ended(Outcome.NOTHING_FLAGGED, 10.0)
    first = scrape()
    ended(Outcome.NOTHING_FLAGGED, 10.0)
    monkeypatch.setattr(clock, "advance", lambda _: None)
    assert parsed(scrape()) == parsed(first)
