"""The fleet's part of a daemon: there where it is configured and enrolled, and never in the way of anything else."""

from __future__ import annotations

import logging

import pytest
from box_kit import box_config
from fleet_link_kit import enrol

from appliance.box_acts import BoxActs
from appliance.daemon import Daemon
from appliance.fleet.device.parts import FleetParts, fleet_parts
from appliance.records import Severity


def settings(state, **fleet):
    return box_config(state, packages=(), fleet=fleet, triage={"spawn_worker": False})


def codes(store):
    return {issue.code for issue in store.issues.open()}


@pytest.mark.req("R-FLEET-09")
def test_a_box_that_is_not_enrolled_says_so_and_goes_on(tmp_path, store, clock):
    config = settings(tmp_path / "state", backlog_rows=100)
    assert fleet_parts(config, store, clock, None, lambda _: None) == FleetParts()
    assert codes(store) == {"FLEET_NOT_ENROLLED"}


def test_a_damaged_identity_is_another_issue_and_both_end_when_it_is_whole(
    tmp_path, store, clock, authority, server_key
):
    config, rung = settings(tmp_path / "state", backlog_rows=100), []
    folder = tmp_path / "state" / "fleet"
    enrol(folder, authority, server_key)
    whole = (folder / "trust.json").read_bytes()
    (folder / "trust.json").write_bytes(b"{")
    acts = BoxActs(config, store, None, None)
    assert fleet_parts(config, store, clock, acts, rung.append) == FleetParts()
    assert codes(store) == {"FLEET_IDENTITY_BROKEN"}
    (folder / "trust.json").write_bytes(whole)
    store.issues.raise_("FLEET_ROW_UNFIT", "package.live", Severity.WARNING)  # met by software before this start
    before = list(logging.getLogger("appliance").handlers)
    parts = fleet_parts(config, store, clock, acts, rung.append)
    assert codes(store) == set()
    assert {stage.name for stage in parts.stages} == {
        *("fleet", "fleet-rollups", "fleet-renew", "fleet-jobs", "fleet-work"),
    }
    parts.close()
    assert logging.getLogger("appliance").handlers == before


@pytest.mark.req("R-FLEET-08")
def test_a_daemon_with_a_fleet_starts_and_stops_without_a_network(tmp_path, authority, server_key):
    enrol(tmp_path / "state" / "fleet", authority, server_key)
    daemon = Daemon(settings(tmp_path / "state", backlog_rows=100), fleet_within_s=0)
    try:
        assert "fleet" in daemon.runners
        daemon.start()
    finally:
        daemon.stop()


def test_a_box_that_left_its_fleet_has_no_issue_of_it_and_keeps_no_journal_for_it(tmp_path):
    daemon = Daemon(settings(tmp_path / "state", backlog_rows=100))
    assert "fleet" not in daemon.runners
    assert "FLEET_NOT_ENROLLED" in codes(daemon.store)
    daemon.store.fleet.pass_over(0, 1)
    assert daemon.store.journal.cursor("fleet") == 1
    daemon.start()
    daemon.stop()
    daemon = Daemon(box_config(tmp_path / "state", packages=(), triage={"spawn_worker": False}))
    assert codes(daemon.store) & {"FLEET_NOT_ENROLLED"} == set()
    assert daemon.store.db.one("SELECT 1 FROM cursor WHERE reader = 'fleet'") is None
    daemon.start()
    daemon.stop()
