"""A roll-out from its draft to its end, and what stops it."""

from __future__ import annotations

import datetime as dt

import pytest
from fleet_kit import DEALER, HOSPITAL, NOW, PLATFORM, VENDOR
from rollout_kit import (
    BARE,
    DAY,
    DIGEST,
    EVERYTHING,
    HOUR,
    MINUTE,
    NEW,
    OLD,
    PACKAGE,
    RELEASE,
    RELEASE_2,
    STRANGER,
    PaperFleet,
)
from sqlalchemy import insert, select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import expire_jobs, set_desired
from appliance.fleet.server.db import read, write
from appliance.fleet.server.post import Post
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import holds, query
from appliance.fleet.server.rollout.drive import Driver
from appliance.fleet.server.rollout.plan import Chosen, Gate, Gates
from appliance.fleet.server.server_keys import retire_key
from appliance.fleet.wire import Desired
from appliance.fleet.wire_grant import GRANT_TYPE
from engines.signing import sign

#: Gates that look at nothing but ends; what results say is accepted beforehand where a test is about another thing.
RESULTS = frozenset({"latency", "alerts"})


@pytest.fixture
def fleet(engine, tmp_path):
    return PaperFleet(engine, tmp_path)


@pytest.fixture
def blind(fleet, monkeypatch):
    """Nobody looks at results: as if a person had accepted that there are none."""
    from appliance.fleet.server.rollout import drive

    def ends(facts, gates, judge=drive.judge):
        judged = judge(facts, gates)
        return drive.Judged(tuple(one for one in judged.verdicts if one.gate not in RESULTS), judged.looks)

    monkeypatch.setattr(drive, "judge", ends)
    return fleet


# Making and approving ------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-70")
def test_a_draft_has_its_waves_and_says_what_no_canary_covers(fleet):
    with write(fleet.engine) as connection:
        gear = {"source": 2, "modality": "DX", "make": "Rare", "model": "Z", "kernels": []}
        connection.execute(insert(t.equipment).values(device="box-0000003", **gear, at=NOW, stream=1, seq=1))
        fleet.put_online(connection, "box-0000003", online=False)
        connection.execute(update(t.device).where(t.device.c.id == "box-0000004").values(state="disabled"))
    ident = fleet.make(soak_studies=0)
    page = fleet.page(ident)
    assert str(page.row.state) == "DRAFT"
    assert page.plan.not_covered == ("Rare Z",)
    assert page.plan.left_out == {"NOT_ENROLLED": 1}
    assert [(one.name, one.boxes) for one in page.plan.waves] == [("canaries", 2), ("50%", 4), ("100%", 5)]
    assert fleet.jobs() == []


@pytest.mark.req("R-FLEET-71")
def test_whoever_made_it_cannot_approve_it_with_whatever_key(fleet):
    ident = fleet.make(soak_studies=0)
    fleet.act("submit", ident)
    with pytest.raises(ConflictError, match="cannot approve"):
        fleet.act("approve", ident, who="maker", release=RELEASE)
    assert fleet.state(ident) == "WAITING_APPROVAL"
    assert fleet.act("approve", ident, who="checker", release=RELEASE) is True
    assert fleet.state(ident) == "READY"


@pytest.mark.req("R-FLEET-71")
def test_a_persons_word_without_a_key_is_not_enough_and_neither_is_a_key_without_a_person(fleet):
    ident = fleet.make(soak_studies=0)
    fleet.act("submit", ident)
    assert fleet.act("approve", ident, who="checker") is False
    assert fleet.state(ident) == "WAITING_APPROVAL"
    with read(fleet.engine) as connection:
        text = connection.execute(select(t.roll_out.c.grant_text)).scalar_one()
    assert fleet.act("put_grant", ident, given=[sign(GRANT_TYPE, text.encode(), [RELEASE])]) is True
    other = fleet.make(soak_studies=0)
    fleet.act("submit", other)
    with read(fleet.engine) as connection:
        text = connection.execute(select(t.roll_out.c.grant_text).where(t.roll_out.c.id == other)).scalar_one()
    assert fleet.act("put_grant", other, given=[sign(GRANT_TYPE, text.encode(), [RELEASE])]) is False
    assert fleet.state(other) == "WAITING_APPROVAL"
    with pytest.raises(ConflictError):
        fleet.act("start", other)


@pytest.mark.req("R-FLEET-71")
def test_where_two_keys_must_sign_one_is_not_enough(engine, tmp_path):
    fleet = PaperFleet(engine, tmp_path, threshold=2)
    ident = fleet.make(soak_studies=0)
    fleet.act("submit", ident)
    assert fleet.act("approve", ident, who="checker", release=RELEASE) is False
    assert fleet.act("approve", ident, who="checker", release=RELEASE) is False
    assert fleet.act("approve", ident, who="checker", release=RELEASE_2) is True


@pytest.mark.req("R-FLEET-71")
def test_a_strangers_key_another_grant_and_a_visitor_approve_nothing(fleet):
    ident = fleet.make(soak_studies=0)
    fleet.act("submit", ident)
    with pytest.raises(ConflictError, match="no box trusts"):
        fleet.act("approve", ident, who="checker", release=STRANGER)
    with pytest.raises(ConflictError, match="neither operator nor service"):
        fleet.act("approve", ident, who="visitor", release=RELEASE)
    with read(fleet.engine) as connection:
        text = connection.execute(select(t.roll_out.c.grant_text)).scalar_one()
    for wrong in (
        sign(GRANT_TYPE, text.replace(NEW, "9.0.0").encode(), [RELEASE]),
        sign(GRANT_TYPE, text.encode(), [STRANGER]),
        sign("application/other", text.encode(), [RELEASE]),
        b"nothing",
    ):
        with pytest.raises(ConflictError):
            fleet.act("put_grant", ident, given=[wrong])
    assert fleet.row(ident).signatures == 0


@pytest.mark.req("R-FLEET-70")
def test_every_act_is_refused_where_the_state_does_not_have_it(fleet):
    ident = fleet.make(soak_studies=0)
    for name in ("approve", "start", "pause", "resume", "revert"):
        with pytest.raises(ConflictError):
            fleet.act(name, ident, who="checker")
    fleet.act("abort", ident)
    for name in ("submit", "approve", "start", "pause", "resume", "abort", "discard"):
        with pytest.raises(ConflictError):
            fleet.act(name, ident, who="checker")


def test_a_draft_can_be_thrown_away_and_nothing_else(fleet):
    ident = fleet.make(soak_studies=0)
    fleet.act("discard", ident)
    with pytest.raises(NotFoundError):
        fleet.page(ident)


@pytest.mark.req("R-FLEET-70")
def test_two_roll_outs_of_a_package_are_never_under_way_to_the_same_boxes(fleet):
    fleet.running(soak_studies=0)
    other = fleet.ready(soak_studies=0)
    with pytest.raises(ConflictError, match="on its way to the same boxes"):
        fleet.act("start", other)


# Tenancy -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-77")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
def test_a_vendor_rolls_out_to_its_own_and_sees_nothing_of_anothers(fleet):
    with write(fleet.engine) as connection:
        kind = registry.TenantKind.VENDOR
        registry.add_tenant(connection, "vendor-002", "Other", kind, parent=PLATFORM, now=NOW)
        registry.add_tenant(
            connection, "hospital-09", "Theirs", registry.TenantKind.HOSPITAL, parent="vendor-002", now=NOW
        )
        fleet.add_box(connection, "box-other-01", "site-other", "hospital-09")
        mine, theirs = Scope.of(connection, VENDOR), Scope.of(connection, "vendor-002")
    ident = fleet.make(who="vendor", tenant=VENDOR, scope=mine, soak_studies=0)
    assert "box-other-01" not in fleet.words(ident)
    for scope_does in (
        lambda: fleet.make(who="vendor", tenant="vendor-002", scope=mine, soak_studies=0),
        lambda: fleet.make(who="vendor", scope=mine, chosen=Chosen(devices=("box-other-01",)), soak_studies=0),
        lambda: fleet.make(who="vendor", scope=mine, chosen=Chosen(sites=("site-other",)), soak_studies=0),
        lambda: fleet.make(who="vendor", scope=mine, chosen=Chosen(tenants=("hospital-09",)), soak_studies=0),
        lambda: fleet.make(who="vendor", scope=mine, chosen=Chosen(lab=("box-other-01",)), soak_studies=0),
        lambda: fleet.page(ident, theirs),
        *(
            (lambda name=name: fleet.act(name, ident, who="checker", scope=theirs))
            for name in ("submit", "approve", "start", "pause", "resume", "abort", "revert", "discard")
        ),
    ):
        with pytest.raises(NotFoundError):
            scope_does()
    with read(fleet.engine) as connection:
        assert query.list_roll_outs(connection, theirs, fleet.now) == []
        assert [one.id for one in query.list_roll_outs(connection, mine, fleet.now)] == [ident]
    with pytest.raises(ConflictError, match="neither operator nor service"):
        fleet.make(who="vendor", tenant="vendor-002", soak_studies=0)


@pytest.mark.req("R-FLEET-77")
def test_a_grant_names_the_tenants_of_its_boxes(fleet):
    ident = fleet.make(soak_studies=0)
    fleet.act("submit", ident)
    with read(fleet.engine) as connection:
        text = connection.execute(select(t.roll_out.c.grant_text)).scalar_one()
    assert f'"tenants":["{HOSPITAL}"]' in text


# Waves ---------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-72")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
def test_waves_go_one_after_the_other_to_the_end(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    assert [one.wave for one in blind.jobs()] == [1, 1]
    assert {blind.opened(one).args.version for one in blind.jobs()} == {NEW}
    blind.answer(ident)
    blind.settle()
    assert [one.wave for one in blind.jobs()] == [1, 1, 2, 2, 2, 2]
    assert [str(one.state) for one in blind.page(ident).waves] == ["DONE", "RUNNING", "WAITING"]
    blind.answer(ident)
    blind.settle()
    blind.answer(ident)
    blind.settle()
    assert blind.state(ident) == "FINISHED"
    assert set(blind.words(ident).values()) == {"succeeded"}
    assert len(blind.jobs()) == len(blind.devices)
    assert blind.audit("rollout.finish")


@pytest.mark.req("R-FLEET-73")
def test_every_job_carries_the_grant_and_goes_out_at_once(blind):
    blind.running(soak_studies=0)
    blind.settle()
    with write(blind.engine) as connection:
        connection.execute(update(t.status).values(last_seen_at=blind.now))
        sent = Post(blind.keys).due(connection, blind.now)
    assert len(sent) == 2
    assert all(blind.opened(one).grant for one in blind.jobs())


@pytest.mark.req("R-FLEET-72")
def test_no_more_boxes_a_minute_than_the_plan_says(blind):
    ident = blind.running(soak_studies=0, per_minute=3, shares=(1.0,))
    blind.settle()
    blind.answer(ident)
    blind.step()
    assert len(blind.jobs()) == 2
    counts = []
    for _ in range(8):
        blind.step(15 * dt.timedelta(seconds=1))
        counts.append(len(blind.jobs()))
    made = [one.made_at for one in blind.jobs()]
    assert all(sum(first <= at < first + MINUTE for at in made) <= 3 for first in made)
    assert counts[-1] > 6


@pytest.mark.req("R-FLEET-72")
def test_boxes_that_are_away_hold_no_wave_up_and_get_it_when_they_are_back(blind):
    ident = blind.running(soak_studies=0, shares=(1.0,))
    blind.settle()
    away = blind.boxes(ident, wave=1)[0]
    with write(blind.engine) as connection:
        blind.put_online(connection, away.device, online=False)
    blind.answer(ident, but=[away.device])
    blind.settle()
    assert blind.row(ident).wave == 2
    assert blind.words(ident)[away.device] == "pending"
    blind.say(away.job, "SUCCEEDED")
    assert blind.words(ident)[away.device] == "succeeded"


@pytest.mark.req("R-FLEET-72")
def test_a_box_that_falls_silent_at_work_holds_its_wave_up_and_one_that_is_disabled_does_not(blind):
    """A version that takes boxes off the line must not pass for one that nobody has tried."""
    ident = blind.running(soak_studies=0)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "SUCCEEDED")
    blind.say(second.job, "ACTIVATING")
    with write(blind.engine) as connection:
        blind.put_online(connection, second.device, online=False)
    blind.settle()
    assert blind.row(ident).wave == 1
    with write(blind.engine) as connection:
        connection.execute(update(t.device).where(t.device.c.id == second.device).values(state="disabled"))
    blind.settle()
    assert blind.row(ident).wave == 2


@pytest.mark.req("R-FLEET-72")
def test_a_failure_that_comes_late_from_an_earlier_wave_counts_in_the_one_that_runs(blind):
    ident = blind.running(soak_studies=0, shares=(1.0,))
    blind.settle()
    away = blind.boxes(ident, wave=1)[0]
    with write(blind.engine) as connection:
        blind.put_online(connection, away.device, online=False)
    blind.answer(ident, but=[away.device])
    blind.settle()
    blind.say(away.job, "FAILED", "DISK_FULL")
    blind.step()
    assert blind.state(ident) == ("PAUSED", "FAILURES")


@pytest.mark.req("R-FLEET-75")
def test_a_bad_canary_stops_it_before_the_next_wave(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "SUCCEEDED")
    blind.say(second.job, "ROLLED_BACK", "LATENCY")
    blind.settle()
    assert blind.state(ident) == ("PAUSED", "FAILURES")
    assert {one.wave for one in blind.jobs()} == {1}
    stopped = blind.audit("rollout.stop")[0]
    assert stopped.detail == {"wave": 1, "gate": "FAILURES"}
    failures = blind.page(ident).waves[0].verdicts[0]
    assert (failures.word, failures.n, failures.codes) == ("failed", 2, {"LATENCY": 1})


@pytest.mark.req("R-FLEET-75")
def test_one_code_of_clinical_safety_stops_it_at_once_among_many(blind):
    ident = blind.running(soak_studies=0, gates=Gates(max_failed=0.5), chosen=Chosen(canaries=12))
    blind.settle()
    blind.answer(ident, "SOAKING")
    blind.say(blind.boxes(ident, wave=1)[0].job, "ROLLED_BACK", "CRASHES")
    blind.step()
    assert blind.state(ident) == ("PAUSED", "SAFETY")


@pytest.mark.req("R-FLEET-75")
def test_a_site_that_declines_is_counted_apart_and_fails_nothing(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "REJECTED", "REFUSED_BY_SITE")
    blind.say(second.job, "SUCCEEDED")
    blind.settle()
    assert blind.words(ident)[first.device] == "declined"
    assert blind.row(ident).wave == 2


@pytest.mark.req("R-FLEET-75")
def test_a_wave_of_which_nothing_can_be_said_goes_before_a_person(blind):
    ident = blind.running(soak_studies=0, soak_h=1, patience_h=5)
    blind.settle()
    blind.answer(ident, "REJECTED", "REFUSED_BY_SITE")
    blind.settle()
    assert blind.state(ident) == "RUNNING"
    blind.step(7 * HOUR)
    assert blind.state(ident) == ("PAUSED", "NOT_JUDGED")
    blind.act("resume", ident, who="checker", why="two sites, both on holiday")
    blind.settle()
    assert blind.row(ident).wave == 2
    told = blind.audit("rollout.resume")[0]
    assert told.actor == "checker"
    assert told.detail["why"] == "two sites, both on holiday"
    assert {"gate": "failures", "word": "not_judged", "n": 0} in told.detail["gates"]
    first = blind.page(ident).waves[0].verdicts[0]
    assert (first.word, first.accepted) == ("not_judged", True)


@pytest.mark.req("R-FLEET-75")
def test_a_box_that_sees_few_studies_is_neither_good_nor_bad(blind):
    ident = blind.running(soak_studies=0, soak_h=1, patience_h=5)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "SOAKING")
    blind.now += 5 * HOUR
    blind.say(second.job, "SUCCEEDED")
    blind.step(2 * HOUR)
    assert blind.words(ident)[first.device] == "soak_not_judged"
    failures = blind.page(ident).waves[0].verdicts[0]
    assert (failures.word, failures.n, failures.value) == ("passed", 1, 0.0)


@pytest.mark.req("R-FLEET-75")
def test_after_a_person_went_on_only_what_comes_from_then_on_is_judged(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "FAILED", "DISK_FULL")
    blind.say(second.job, "SUCCEEDED")
    blind.settle()
    assert blind.state(ident) == ("PAUSED", "FAILURES")
    blind.step(MINUTE)
    assert blind.state(ident) == ("PAUSED", "FAILURES")
    blind.act("resume", ident, who="checker")
    blind.settle()
    assert (blind.state(ident), blind.row(ident).wave) == ("RUNNING", 2)
    blind.say(blind.boxes(ident, wave=2)[0].job, "FAILED", "DISK_FULL")
    blind.settle()
    assert blind.state(ident) == ("PAUSED", "FAILURES")


# What results say ----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-75")
@pytest.mark.parametrize("now_flagged", [60, 0], ids=["more", "vanished"])
def test_alerts_that_change_stop_the_wave_pooled_over_its_boxes(fleet, now_flagged):
    """No box alone says enough for its own soak: 200 studies each, 8 % before."""
    for device in fleet.devices:
        for hours in range(1, 11):
            fleet.results(device, OLD, n=100, flagged=8, at=NOW - hours * HOUR)
    ident = fleet.running(soak_studies=0, chosen=Chosen(canaries=6))
    fleet.settle()
    fleet.answer(ident, "SOAKING")
    fleet.now += HOUR
    for one in fleet.boxes(ident, wave=1):
        fleet.results(one.device, NEW, n=200, flagged=now_flagged)
    fleet.settle()
    assert fleet.state(ident) == ("PAUSED", "ALERTS")
    verdict = next(one for one in fleet.page(ident).waves[0].verdicts if one.gate is Gate.ALERTS)
    assert verdict.n == 1200
    assert verdict.figures["rate_before"] == pytest.approx(0.08)
    assert verdict.figures["p"] < verdict.figures["alpha"]


@pytest.mark.req("R-FLEET-75")
def test_the_same_alerts_and_times_pass_and_too_few_are_not_judged(fleet):
    for device in fleet.devices:
        for hours in range(1, 11):
            fleet.results(device, OLD, n=200, flagged=30, at=NOW - hours * HOUR)
    ident = fleet.running(soak_studies=0, chosen=Chosen(canaries=6))
    fleet.settle()
    fleet.answer(ident, "SUCCEEDED")
    for one in fleet.boxes(ident, wave=1):
        fleet.results(one.device, NEW, n=20, flagged=3)
    fleet.settle()
    assert (fleet.state(ident), fleet.row(ident).wave) == ("RUNNING", 1)
    assert (fleet.verdicts(ident)["alerts"], fleet.verdicts(ident)["latency"]) == ("not_judged", "not_judged")
    fleet.now += HOUR
    for one in fleet.boxes(ident, wave=1):
        fleet.results(one.device, NEW, n=600, flagged=90)
    fleet.settle()
    assert fleet.row(ident).wave == 2


@pytest.mark.req("R-FLEET-75")
def test_alerts_that_a_box_suppressed_count_as_alerts(fleet):
    """A version that flags twice as much is seen where screens show no more than before."""
    ident = fleet.running(soak_studies=0)
    for device in fleet.devices:
        fleet.results(device, OLD, n=400, flagged=32, at=NOW - DAY)
    fleet.settle()
    fleet.now += HOUR
    for device in fleet.answer(ident):
        fleet.results(device, NEW, n=400, flagged=100, suppressed=80)
    fleet.step()
    assert fleet.state(ident) == ("PAUSED", "ALERTS")


@pytest.mark.req("R-FLEET-75")
def test_a_slower_version_and_engines_that_fell_back_stop_it(fleet):
    for device in fleet.devices:
        fleet.results(device, OLD, n=1000, flagged=80, at=NOW - HOUR)
    ident = fleet.running(soak_studies=0)
    fleet.settle()
    fleet.answer(ident, "SOAKING")
    for one in fleet.boxes(ident, wave=1):
        fleet.results(one.device, NEW, n=200, flagged=16, p95=4000.0)
    fleet.step()
    assert fleet.state(ident) == ("PAUSED", "LATENCY")
    fleet.act("resume", ident)
    with write(fleet.engine) as connection:
        row = {"package": PACKAGE, "state": "fallback", "at": fleet.now, "stream": 1, "seq": 1}
        connection.execute(insert(t.engine_state).values(device=fleet.boxes(ident, wave=1)[0].device, **row))
    fleet.step()
    assert fleet.state(ident) == ("PAUSED", "ACCEPTANCE")


@pytest.mark.req("R-FLEET-75")
def test_a_box_is_held_against_the_version_that_served_there_and_no_other(fleet):
    device = fleet.devices[0]
    with write(fleet.engine) as connection:
        row = {"device": device, "package": PACKAGE, "version": "1.5.0", "role": "silent", "serves": True}
        connection.execute(insert(t.package_state).values(**row, points={}, stream=1, seq=1))
    fleet.results(device, OLD, n=100, flagged=8, at=NOW - DAY)
    fleet.results(device, "1.5.0", n=100, flagged=50, at=NOW - DAY, role="silent")
    fleet.results(device, OLD, n=100, flagged=99, at=NOW - 15 * DAY)
    fleet.results(device, OLD, n=50, flagged=0, at=NOW - 2 * DAY, nothing_flagged=20, not_analysed={"quality": 30})
    ident = fleet.running(soak_studies=0, chosen=Chosen(devices=(device,)))
    fleet.settle()
    with read(fleet.engine) as connection:
        before = connection.execute(select(t.wave_device.c.before)).scalar_one()
    assert (before["version"], before["n"], before["k"]) == (OLD, 120, 8)
    assert fleet.boxes(ident)[0].before == OLD


# Standing still ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-72")
def test_paused_means_no_new_job_and_what_waited_for_a_box_that_was_away_waits_on(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    blind.act("pause", ident)
    blind.step(HOUR)
    with write(blind.engine) as connection:
        connection.execute(update(t.status).values(last_seen_at=blind.now))
        assert Post(blind.keys).due(connection, blind.now) == []
    assert len(blind.jobs()) == 2
    with write(blind.engine) as connection:  # a ping overtakes them meanwhile
        registry_ctr = connection.execute(select(t.device_counter)).all()
        connection.execute(update(t.device_counter).values(ctr=t.device_counter.c.ctr + 5))
    blind.act("resume", ident)
    with write(blind.engine) as connection:
        sent = Post(blind.keys).due(connection, blind.now)
    assert len(sent) == 2
    assert all(blind.opened(job).ctr > max(row.ctr for row in registry_ctr) + 5 for job in blind.jobs())


@pytest.mark.req("R-FLEET-72")
def test_abort_takes_back_what_has_not_gone_and_lets_what_soaks_end(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    first, second = blind.boxes(ident, wave=1)
    blind.say(first.job, "SOAKING")
    blind.act("abort", ident)
    assert blind.state(ident) == "ABORTED"
    assert blind.words(ident)[second.device] == "canceled"
    assert blind.words(ident)[first.device] == "soaking"
    blind.say(first.job, "SUCCEEDED")
    blind.step(DAY)
    assert blind.words(ident)[first.device] == "succeeded"
    assert len(blind.jobs()) == 2


@pytest.mark.req("R-FLEET-73")
def test_a_retired_key_and_an_expired_grant_stop_it(blind):
    ident = blind.running(soak_studies=0, grant_days=1)
    with write(blind.engine) as connection:
        retire_key(connection, RELEASE.public.keyid, now=NOW)
    blind.settle()
    assert blind.state(ident) == ("PAUSED", "GRANT")
    assert blind.jobs() == []
    with write(blind.engine) as connection:
        connection.execute(update(t.server_key).values(retired_at=None))
    blind.act("resume", ident)
    blind.step(2 * DAY)
    assert blind.state(ident) == ("PAUSED", "GRANT")


# Back ----------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-76")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
def test_revert_takes_it_back_where_it_went_the_last_wave_first(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    blind.answer(ident)
    blind.settle()
    second = blind.boxes(ident, wave=2)
    for one, state in zip(second, ("SUCCEEDED", "SOAKING", "DOWNLOADING"), strict=False):
        blind.say(one.job, state)
    blind.act("revert", ident)
    assert blind.words(ident)[second[3].device] == "canceled"
    blind.settle()
    back = [one for one in blind.jobs() if one.op != "model.install"]
    assert [one.wave for one in back] == [2, 2, 2, 1, 1]
    assert {one.device: one.op for one in back if one.wave == 2} == {
        second[0].device: "model.rollback",
        second[1].device: "model.rollback",
        second[2].device: "model.withdraw",  # so that it never comes in
    }
    assert {one.args.get("version") for one in back if one.op == "model.rollback"} == {OLD}
    assert all(blind.opened(one).grant for one in back)
    assert blind.state(ident) == "REVERTING"
    for one in back[:-1]:
        blind.say(one.id, "SUCCEEDED")
    blind.settle()
    assert blind.state(ident) == "REVERTING"
    blind.say(back[-1].id, "SUCCEEDED")
    blind.settle()
    assert blind.state(ident) == "REVERTED"
    assert blind.audit("rollout.reverted")[0].detail == {"jobs": {"SUCCEEDED": 5}}


@pytest.mark.req("R-FLEET-76")
def test_a_box_without_a_version_to_go_back_to_is_taken_out_of_service(blind):
    ident = blind.running(soak_studies=0, chosen=Chosen(devices=tuple(blind.devices[:2]), canaries=2))
    with write(blind.engine) as connection:
        connection.execute(t.package_state.delete().where(t.package_state.c.device == blind.devices[0]))
    blind.settle()
    blind.answer(ident)
    blind.settle()
    blind.act("revert", ident)
    blind.settle()
    back = {one.device: one for one in blind.jobs() if one.op != "model.install"}
    assert (back[blind.devices[0]].op, back[blind.devices[1]].op) == ("model.withdraw", "model.rollback")
    blind.say(back[blind.devices[0]].id, "SUCCEEDED")
    blind.say(back[blind.devices[1]].id, "FAILED", "NO_PREDECESSOR")
    blind.settle()
    last = blind.jobs()[-1]
    assert (last.op, last.device) == ("model.withdraw", blind.devices[1])
    assert last.args["digest"] == DIGEST[NEW]
    blind.say(last.id, "SUCCEEDED")
    blind.settle()
    assert blind.state(ident) == "REVERTED"


@pytest.mark.req("R-FLEET-76")
def test_a_box_that_was_away_all_the_time_is_taken_back_however_late_it_comes(blind):
    ident = blind.running(soak_studies=0)
    blind.settle()
    away, *_ = sent = [one.device for one in blind.jobs()]
    with write(blind.engine) as connection:  # it has the job, and nobody hears of it
        connection.execute(update(t.job).values(sent_at=blind.now))
    blind.now += 10 * DAY
    with write(blind.engine) as connection:
        assert expire_jobs(connection, blind.now) == len(sent)
    blind.act("revert", ident)
    blind.settle()
    first = {one.device: one for one in blind.jobs(op="model.withdraw")}
    assert sorted(first) == sorted(sent)
    blind.now += 10 * DAY
    for device, job in first.items():
        blind.say(job.id, *(("TIMED_OUT", "EXPIRED") if device == away else ("SUCCEEDED", "NOT_HERE")))
    blind.settle()
    assert blind.state(ident) == "REVERTING", "called taken back where nobody knows"
    (again,) = [one for one in blind.jobs(op="model.withdraw") if one.state == "QUEUED"]
    assert again.device == away
    blind.say(again.id, "SUCCEEDED")
    blind.settle()
    assert blind.state(ident) == "REVERTED"


@pytest.mark.req("R-FLEET-76")
def test_a_silent_version_is_withdrawn_so_that_the_one_that_serves_stays(blind):
    ident = blind.running(soak_studies=0, role="silent")
    blind.settle()
    blind.answer(ident)
    blind.act("revert", ident)
    blind.settle()
    assert {one.op for one in blind.jobs() if one.op != "model.install"} == {"model.withdraw"}


@pytest.mark.req("R-FLEET-76")
def test_where_the_grant_is_over_the_way_back_waits_for_release_keys(blind):
    ident = blind.running(soak_studies=0, grant_days=1)
    blind.settle()
    blind.answer(ident)
    blind.act("abort", ident)
    blind.now += 2 * DAY
    blind.act("revert", ident)
    blind.settle()
    back = [one for one in blind.jobs() if one.op != "model.install"]
    assert len(back) == 2
    assert {one.envelope for one in back} == {None}


# Holds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-77")
@pytest.mark.parametrize("kind", ["device", "site", "tenant"])
def test_a_held_box_is_told_so_and_skipped_and_taken_when_it_is_free_in_its_wave(blind, kind):
    ident = blind.running(soak_studies=0)
    box = blind.boxes(ident, wave=1)[0]
    number = blind.hold(kind, {"device": box.device, "site": box.site, "tenant": DEALER}[kind])
    with read(blind.engine) as connection:
        twins = dict(connection.execute(select(t.twin.c.device, t.twin.c.desired)).all())
    assert twins[box.device]["held"] is True
    assert len(twins) == {"device": 1, "site": 2, "tenant": 12}[kind]
    blind.settle()
    assert box.device not in {one.device for one in blind.jobs()}
    assert [one.left_out for one in blind.boxes(ident, wave=1) if one.device == box.device] == ["HELD"]
    blind.lift(number)
    blind.settle()
    assert box.device in {one.device for one in blind.jobs()}
    with read(blind.engine) as connection:
        desired = connection.execute(select(t.twin.c.desired).where(t.twin.c.device == box.device)).scalar_one()
    assert desired["held"] is False


@pytest.mark.req("R-FLEET-77")
def test_another_document_lifts_no_hold_and_neither_does_the_end_of_another_hold(fleet):
    device = fleet.devices[0]
    one, other = fleet.hold("device", device), fleet.hold("site", "site-1000", until=NOW + HOUR)
    with write(fleet.engine) as connection:
        set_desired(connection, fleet.keys, EVERYTHING, device, Desired(health_every_s=30), now=NOW)

    def desired():
        with read(fleet.engine) as connection:
            return connection.execute(select(t.twin.c.desired).where(t.twin.c.device == device)).scalar_one()

    assert (desired()["held"], desired()["health_every_s"]) == (True, 30)
    fleet.lift(one)
    assert desired()["held"] is True

    with write(fleet.engine) as connection:
        assert holds.end_holds(connection, fleet.keys, NOW + 2 * HOUR) == 1
    assert (desired()["held"], desired()["health_every_s"]) == (False, 30)
    with pytest.raises(ConflictError):
        fleet.lift(other)
    assert [row.act for row in fleet.audit() if row.act.startswith("hold")] == [
        "hold.add",
        "hold.add",
        "hold.lift",
        "hold.lift",
    ]


@pytest.mark.req("R-FLEET-77")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
def test_of_many_boxes_a_hold_tells_the_rest_a_portion_at_a_time_and_skips_all_at_once(blind, monkeypatch):
    monkeypatch.setattr(holds, "PORTION", 5)
    ident = blind.running(soak_studies=0)
    number = blind.hold("tenant", VENDOR)

    def told():
        with read(blind.engine) as connection:
            rows = connection.execute(select(t.twin.c.device, t.twin.c.desired)).all()
        return sum(row.desired["held"] for row in rows)

    def portions(teller):
        """How many boxes are held after each portion."""
        found = []
        while len(found) < 20:
            with read(blind.engine) as connection:
                if not teller.waits(connection, blind.now):
                    return found
            with write(blind.engine) as connection:
                teller.step(connection, blind.now)
            found.append(told())
        raise AssertionError(found)

    assert told() == 5, "an act keeps everything else waiting"
    blind.step()
    blind.step()
    assert blind.jobs() == []
    with write(blind.engine) as connection:  # of which nobody was told by the act
        connection.execute(update(t.device).where(t.device.c.id == blind.devices[11]).values(state="disabled"))
    assert portions(holds.HoldTeller(blind.keys)) == [10, 11]
    # A box that comes later, and the end of the hold; by another server than the one before.
    teller = holds.HoldTeller(blind.keys)
    assert portions(teller) == []
    with write(blind.engine) as connection:
        connection.execute(update(t.device).where(t.device.c.id == blind.devices[11]).values(state="enrolled"))
    assert portions(teller) == [12]
    blind.lift(number)
    assert told() == 7
    assert portions(teller) == [2, 0]
    assert blind.audit("hold.lift")[0].detail["boxes"] == 12
    blind.settle()
    assert len(blind.boxes(ident)) == 12
    assert blind.jobs() != []


@pytest.mark.req("R-FLEET-77")
def test_a_hold_of_another_tenant_is_not_there(fleet):
    number = fleet.hold("device", fleet.devices[0])
    with write(fleet.engine) as connection:
        registry.add_tenant(connection, "vendor-002", "V", registry.TenantKind.VENDOR, parent=PLATFORM, now=NOW)
        theirs = Scope.of(connection, "vendor-002")
    with pytest.raises(NotFoundError, match="there is no hold"):
        fleet.lift(number, theirs)
    with read(fleet.engine) as connection:
        assert query.list_holds(connection, theirs, NOW) == []
        assert [one.subject for one in query.list_holds(connection, EVERYTHING, NOW)] == [fleet.devices[0]]


# Killed --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-72")
def test_a_driver_that_dies_before_its_commit_leaves_the_old_and_another_one_goes_on(blind):
    """Each step is begun, rolled back and done again by a driver that knows nothing: the end is the same."""
    ident = blind.running(soak_studies=0)

    for _ in range(12):
        before = (len(blind.jobs()), blind.state(ident), blind.row(ident).wave)
        with blind.engine.connect().execution_options(scanside_write=True) as connection:
            Driver(blind.keys, look_s=0).step(connection, blind.now + MINUTE)
            connection.rollback()
        assert (len(blind.jobs()), blind.state(ident), blind.row(ident).wave) == before
        blind.driver = Driver(blind.keys, look_s=0)
        blind.step(MINUTE)
        blind.answer(ident)
    assert blind.state(ident) == "FINISHED"
    assert sorted(one.device for one in blind.jobs()) == blind.devices


@pytest.mark.req("R-FLEET-72")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
def test_a_roll_out_that_cannot_be_taken_on_keeps_no_other_back(blind, monkeypatch):
    from appliance.fleet.server.rollout import drive

    first = blind.running(soak_studies=0, chosen=Chosen(devices=tuple(blind.devices[:4]), canaries=2))
    other = blind.running(soak_studies=0, chosen=Chosen(devices=tuple(blind.devices[4:]), canaries=2))
    broken = {first}

    def make_job(*given, make=drive.make_job, **more):
        job = make(*given, **more)
        if more["roll_out"] in broken:
            raise ConflictError("it does not open this job")
        return job

    monkeypatch.setattr(drive, "make_job", make_job)
    blind.step()
    blind.step()
    assert blind.jobs(first) == [], "half a step was kept"
    assert len(blind.jobs(other)) == 2
    broken.clear()
    blind.step()
    assert len(blind.jobs(first)) == 2


def test_all_of_a_roll_out_stands_in_the_audit(blind):
    ident = blind.running(soak_studies=0, gates=BARE)
    blind.settle()
    acts_told = [row.act for row in blind.audit() if row.act.startswith("rollout")]
    assert acts_told == ["rollout.make", "rollout.submit", "rollout.approve", "rollout.start", "rollout.wave"]
    assert {row.subject for row in blind.audit() if row.act.startswith("rollout")} == {ident}
