"""What leaves the box: every kind of row is decided, each by a model, and whatever does not fit stays."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from appliance.fleet.device import gate
from appliance.fleet.device.gate import LEAVES, Terms, record, ref_of
from appliance.fleet.wire_records import Anchor, HealthRollup, IssueChange, Machine
from appliance.store.facts import Kind
from appliance.store.journal import Fact

pytestmark = pytest.mark.req("R-FLEET-30")

#: Rows about people, patients' studies, files, addresses and the box's own housekeeping. A new kind must be decided.
STAYS = {
    *(Kind.DATABASE_CREATED, Kind.DATABASE_REBUILT, Kind.JOURNAL_PRUNED, Kind.CLOCK_JUMPED, Kind.LEFTOVERS_REMOVED),
    *(Kind.ASSOCIATION_OPENED, Kind.ASSOCIATION_CLOSED, Kind.REFUSED, Kind.INSTANCE_STORED, Kind.INSTANCE_REPEATED),
    *(Kind.VERSION_STORED, Kind.VERSION_COMPARED, Kind.VERSION_CHOSEN, Kind.IDENTITY_CORRECTED, Kind.IMAGES_REJECTED),
    *(Kind.PERFORMED_STEP, Kind.ORDER_ASKED, Kind.SERIES_READY, Kind.SERIES_LEFT_OUT, Kind.ANALYSIS_QUEUED),
    *(Kind.ANALYSIS_STARTED, Kind.ANALYSIS_RETURNED, Kind.ANALYSIS_SUPERSEDED, Kind.STUDY_OUTCOME),
    *(Kind.STUDY_REPROCESSED, Kind.BACKLOG_DONE, Kind.ALERT_RAISED, Kind.ALERT_UPDATED, Kind.ALERT_PRESENTED),
    *(Kind.ALERT_ACKNOWLEDGED, Kind.ALERT_WITHDRAWN, Kind.ALERT_COMMUNICATED, Kind.ALERT_DECIDED),
    *(Kind.ALERT_ESCALATED, Kind.ALERT_SINK_TOLD, Kind.ALERT_SINK_FAILED, Kind.TEST_ALERT_RAISED),
    *(Kind.TEST_ALERT_PRESENTED, Kind.TEST_ALERT_ACKNOWLEDGED, Kind.TEST_ALERT_ENDED, Kind.QUALITY_DECIDED),
    *(Kind.REVIEW_ASKED, Kind.REVIEW_SAMPLED, Kind.REVIEW_SIGNED, Kind.LABELS_EXPORTED, Kind.DELIVERY_OWED),
    *(Kind.RESULT_REISSUED, Kind.DELIVERY_BUILT, Kind.DELIVERY_SENT, Kind.DELIVERY_FAILED, Kind.DELIVERY_PARKED),
    *(Kind.DELIVERY_RETRIED, Kind.DELIVERY_REPLACED, Kind.DESTINATION_FORGOTTEN, Kind.DESTINATION_PAUSED),
    *(Kind.DESTINATION_TESTED, Kind.COMMITMENT_ASKED, Kind.COMMITMENT_NOT_ASKED, Kind.COMMITMENT_ANSWERED),
    *(Kind.COMMITMENT_FAILED, Kind.COMMITMENT_REQUESTED, Kind.COMMITMENT_REPORTED, Kind.COMMITMENT_NOT_REPORTED),
    *(Kind.IMAGES_REMOVED, Kind.IMAGE_RESTORED, Kind.RESULTS_REMOVED, Kind.OPERATING_POINT_CHANGED),
    *(Kind.SHADOW_AGREEMENT, Kind.SIGNED_IN, Kind.SIGN_IN_FAILED, Kind.SIGNED_OUT, Kind.ACCESS_DENIED, Kind.ACCESSED),
    *(Kind.ACCOUNT_CHANGED, Kind.SCREEN_CHANGED, Kind.TOKEN_CHANGED, Kind.SETTINGS_CHANGED, Kind.RESTART_ASKED),
    *(Kind.SETUP_STEP_DONE, Kind.SETUP_CODE_MADE, Kind.WORKER_STARTED, Kind.WORKER_ENDED, Kind.ENGINE_BUILD_ASKED),
    *(Kind.ENGINE_CANCEL_ASKED, Kind.FLEET_TWIN, Kind.FLEET_LINK, Kind.FLEET_TRUST),
}

#: A row of each kind that leaves, with a mark wherever its body has room for words.
MARK = "MARKER^DOE 1.2.840.99"
BODIES = {
    Kind.ISSUE_RAISED: {"code": "DISK_FAULT", "severity": "fault", "detail": {"why": MARK, "path": MARK}},
    Kind.ISSUE_CLEARED: {"code": "DISK_FAULT"},
    Kind.ISSUE_ACKNOWLEDGED: {"code": "DISK_FAULT"},
    Kind.ISSUE_SHELVED: {"code": "DISK_FAULT", "until": "2026-01-02T00:00:00.000000Z"},
    Kind.DAEMON_STARTED: {"version": "0.1.0", "mode": "clinical", "recovered": {"parts_removed": 1}},
    Kind.DAEMON_STOPPED: {"why": MARK},
    Kind.PACKAGE_CONFIGURED: {"package": "head-ct", "version": "0.1.0", "digest": "ab" * 32, "state": "silent"},
    Kind.PACKAGE_INSTALLED: {
        "package": "head-ct", "version": "0.2.0", "digest": "ab" * 32, "signed_by": [MARK], "p95_ms": 1.0,
    },
    Kind.PACKAGE_ACTIVATED: {"package": "head-ct", "version": "0.2.0", "state": "silent", "why": MARK},
    Kind.PACKAGE_LIVE: {"package": "head-ct", "version": "0.2.0"},
    Kind.PACKAGE_WITHDRAWN: {"package": "head-ct", "version": "0.2.0", "was": "live", "why": MARK, "analyses": 3},
    Kind.PACKAGE_ROLLED_BACK: {"package": "head-ct", "from_version": "0.2.0", "version": "0.1.0", "why": MARK},
    Kind.ENGINE_BUILDING: {"package": "head-ct", "flavour": "tensorrt", "precision": "fp16", "step": MARK},
    Kind.ENGINE_READY: {
        "package": "head-ct", "engine_digest": "e", "flavour": "tensorrt", "precision": "fp16", "ms": 9.0,
    },
    Kind.ENGINE_REJECTED: {
        "package": "head-ct", "flavour": "tensorrt", "precision": "fp16", "cause": "gate", "why": MARK,
    },
    Kind.ENGINE_SERVES: {"package": "head-ct", "engine_digest": "e", "backend": "tensorrt", "precision": "fp16"},
    Kind.ENGINE_FALLBACK: {
        "package": "head-ct", "engine_digest": "", "backend": "onnxruntime", "precision": "fp32", "why": MARK,
    },
    Kind.ENGINE_CHECKED: {"package": "head-ct", "engine_digest": "e", "ok": True, "why": MARK},
    Kind.FLEET_JOB_STEP: {"job": "0" * 26, "ctr": 4, "op": "ping", "state": "SUCCEEDED", "version": 2},
    Kind.FLEET_TOLD: {"record": {"k": "anchor", "seq": 3, "hash": "0" * 64}},
    Kind.ANALYSIS_DONE: {
        "analysis": 7, "package": "head-ct", "version": "0.1.0", "role": "live", "outcome": "NOT_ANALYSED",
        "reason": "quality", "hops_ms": {"total": 812.5, MARK: 1.0},
    },
}  # fmt: skip
TERMS = Terms(key=b"k" * 32, clk="ntp", boot="b1", detail="study", flagged=lambda _: ("bleed",))


def fact(kind, body=None, **more):
    values = {"seq": 5, "at": "2026-01-01T00:00:01.500000Z", "mono_ms": 9, "boot": "b1", "study_id": 8}
    values |= {"subject": MARK, "actor": {"kind": "person", "name": MARK, "role": "x"}}
    return Fact(kind=kind, body=BODIES.get(kind, {}) if body is None else body, **(values | more))


def test_every_kind_of_row_either_leaves_by_a_model_or_is_named_as_staying():
    assert set(LEAVES) | STAYS == set(Kind)
    assert not set(LEAVES) & STAYS
    assert set(BODIES) == set(LEAVES)


@pytest.mark.parametrize("kind", sorted(LEAVES))
def test_what_leaves_of_a_row_holds_neither_its_words_nor_its_subject_nor_who_did_it(kind):
    told = record(fact(kind), TERMS)
    text = told.model_dump_json()
    assert "MARKER" not in text
    assert "1.2.840" not in text
    assert "study_id" not in json.loads(text)
    assert (told.seq, told.ts, told.mono, told.boot, told.clk) == (5, 1_767_225_601_500, 9, "b1", "ntp")


@pytest.mark.parametrize("kind", sorted(STAYS))
def test_a_row_that_is_not_named_stays_on_the_box(kind):
    assert record(fact(kind, {}), TERMS) is None


def test_a_single_result_leaves_only_where_the_contract_says_so():
    done = fact(Kind.ANALYSIS_DONE)
    told = record(done, TERMS).d
    assert (told.outcome, told.reason, told.flagged, told.ms) == ("not_analysed", "quality", ("bleed",), 812.5)
    assert record(done, Terms(key=b"k", clk="ntp", boot="b1", flagged=lambda _: ("bleed",))) is None
    assert record(done, Terms(key=b"k", clk="ntp", boot="b1", detail="study")) is None, "a test study"
    assert Kind.ANALYSIS_DONE not in gate.kinds_that_leave("hourly")
    assert Kind.ANALYSIS_DONE in gate.kinds_that_leave("study")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Kind.ISSUE_RAISED, {"code": "disk fault of Mr Doe"}),
        (Kind.ISSUE_RAISED, {"severity": "DOE^JANE"}),
        (Kind.PACKAGE_LIVE, {"package": "DOE^JANE"}),
        (Kind.PACKAGE_LIVE, {"version": "1.0 of Doe"}),
        (Kind.ENGINE_SERVES, {"backend": "Doe"}),
        (Kind.FLEET_JOB_STEP, {"code": "why not"}),
        (Kind.FLEET_TOLD, {"record": {"k": "anchor", "seq": 3, "hash": "0" * 64, "name": "DOE"}}),
        (Kind.FLEET_TOLD, {"record": {"k": "patient", "name": "DOE"}}),
        (Kind.FLEET_TOLD, {"record": {"k": "study", "package": "p", "version": "1", "role": "live", "outcome": "x"}}),
        (Kind.FLEET_TOLD, {}),
        (Kind.ANALYSIS_DONE, {"reason": "Because of Doe"}),
    ],
)
def test_a_row_that_does_not_fit_its_model_does_not_leave(kind, change):
    body = change if kind is Kind.FLEET_TOLD else BODIES[kind] | change
    with pytest.raises(ValueError, match=r".*"):
        record(fact(kind, body), TERMS)


def test_what_the_link_drew_together_is_checked_again():
    told = HealthRollup(minutes=5, machine=Machine(cpu=12.0)).model_dump(mode="json", exclude_none=True)
    assert record(fact(Kind.FLEET_TOLD, {"record": told}), TERMS).d.machine.cpu == 12.0
    assert isinstance(record(fact(Kind.FLEET_TOLD), TERMS).d, Anchor)
    with pytest.raises(ValidationError):
        record(fact(Kind.FLEET_TOLD, {"record": {**told, "machine": {"cpu": 101}}}), TERMS)


def test_an_issue_is_told_apart_from_its_neighbours_and_nobody_can_tell_what_it_is_about():
    raised, cleared = (record(fact(kind), TERMS).d for kind in (Kind.ISSUE_RAISED, Kind.ISSUE_CLEARED))
    assert isinstance(raised, IssueChange)
    assert raised.ref == cleared.ref == ref_of(TERMS.key, "DISK_FAULT", MARK)
    others = {
        ref_of(TERMS.key, "DISK_FAULT", "another"),
        ref_of(TERMS.key, "DISK_RESERVE", MARK),
        ref_of(b"of another box", "DISK_FAULT", MARK),
        raised.ref,
    }
    assert len(others) == 4


def test_rows_of_an_earlier_boot_claim_no_better_clock_than_anybody_knows():
    assert record(fact(Kind.DAEMON_STOPPED, boot="b0"), TERMS).clk == "rtc"
    assert record(fact(Kind.DAEMON_STOPPED, boot="b0"), Terms(key=b"k", clk="none", boot="b1")).clk == "none"
    assert record(fact(Kind.DAEMON_STOPPED, boot="unknown"), TERMS).boot == ""


def test_of_a_build_its_steps_leave_and_not_each_tenth_of_one():
    assert record(fact(Kind.ENGINE_BUILDING), TERMS).d.state == "building"
    assert record(fact(Kind.ENGINE_BUILDING, BODIES[Kind.ENGINE_BUILDING] | {"share": 0.3}), TERMS) is None
