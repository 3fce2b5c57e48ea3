"""Figures for Prometheus: right, bounded, and without anything that names a box."""

from __future__ import annotations

import re

import pytest
from fleet_kit import HOSPITAL, NOW, PaperBox
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, select

from appliance.clock import FakeClock
from appliance.fleet.server import db, metrics, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.ingest import Ingest
from appliance.fleet.server.metrics import FleetCollector, IngestMetrics
from appliance.fleet.wire_records import IssueChange, PackageState


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def page(engine, clock):
    """``page()``: what Prometheus reads, as text."""
    told = CollectorRegistry()
    told.register(FleetCollector(engine, clock))
    return lambda: metrics.text(told).decode()


def value(text, line):
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else None


@pytest.mark.req("R-FLEET-19")
def test_the_fleet_is_counted_by_tenant_version_and_code(engine, box, page, clock):
    runs = PackageState(package="chest", version="1.0", digest="ab" * 16, role="live")
    raised = IssueChange(code="DISK_FULL", severity="fault", state="raised", ref="ab" * 8)
    with db.write(engine) as connection:
        messages = (box.birth(), box.health(packages=(runs,), backlog_s=42), box.batch(box.record(raised))[0])
        Ingest().apply(connection, messages, NOW)
    text = page()
    assert value(text, f'scanside_fleet_devices{{presence="online",tenant="{HOSPITAL}"}}') == 1
    assert value(text, 'scanside_fleet_packages{package="chest",role="live",version="1.0"}') == 1
    assert value(text, 'scanside_fleet_issues{code="DISK_FULL",severity="fault"}') == 1
    assert value(text, "scanside_fleet_oldest_backlog_seconds") == 42
    assert box.device not in text
    clock.advance(600)
    assert value(page(), f'scanside_fleet_devices{{presence="stale",tenant="{HOSPITAL}"}}') == 1


@pytest.mark.req("R-FLEET-19")
def test_labels_stay_few_though_a_fleet_reports_anything(engine, box, page):
    with db.write(engine) as connection:
        connection.execute(
            insert(t.issue_state),
            [
                {
                    "device": box.device,
                    "ref": f"{n:016x}",
                    "code": f"CODE_{n}",
                    "severity": "fault",
                    "box_state": "raised",
                    "raised_at": NOW,
                    "stream": 1,
                    "seq": n,
                }
                for n in range(1, 251)
            ],
        )
    text = page()
    assert len(re.findall(r"^scanside_fleet_issues\{", text, re.MULTILINE)) == 101
    assert value(text, 'scanside_fleet_issues{code="other",severity="other"}') == 150


def test_certificates_that_end_soon_are_counted(engine, box, page, clock):
    with db.write(engine) as connection:
        registry.see_certificate(connection, connection.scalar(select(t.certificate.c.fingerprint)), now=NOW)
        connection.execute(t.certificate.update().values(not_after=clock.now().replace(day=12)))
    text = page()
    assert [value(text, f'scanside_fleet_certificates_ending{{days="{n}"}}') for n in (7, 14, 30)] == [0, 1, 1]


def test_scrapes_in_a_row_ask_the_database_once_and_a_dead_one_says_nothing(engine, box, clock):
    told = CollectorRegistry()
    collector = FleetCollector(engine, clock)
    told.register(collector)
    first = metrics.text(told)
    with db.write(engine) as connection:
        connection.execute(t.certificate.delete())
        connection.execute(t.device.delete())
    assert metrics.text(told) == first
    clock.advance(20)
    assert metrics.text(told) != first
    engine.dispose()
    with db.write(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE status RENAME TO gone")
    clock.advance(20)
    assert metrics.text(told) == b""


def test_what_an_ingest_takes_in_and_refuses_is_counted(engine, box):
    told = CollectorRegistry()
    counts = IngestMetrics(told)
    uplink, _ = box.batch(box.record(), box.record())
    with db.write(engine) as connection:
        counts.count(Ingest().apply(connection, [uplink, uplink, PaperBox("box-9999999").birth()], NOW))
    text = metrics.text(told).decode()
    assert value(text, 'scanside_fleet_messages_total{topic="up/rec"}') == 2
    assert value(text, "scanside_fleet_records_total") == 2
    assert value(text, 'scanside_fleet_refused_total{reason="unknown_device"}') == 1
