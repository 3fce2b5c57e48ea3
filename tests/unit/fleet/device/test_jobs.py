"""What jobs do, step by step: each step is told, nothing is done twice, and what changed a model can go back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fleet_jobs_kit import ALWAYS, JobBox, put
from package_rows_kit import NAME, PERSON, Acts

from appliance.errors import ConflictError, NotFoundError, TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.gate import Terms as GateTerms
from appliance.fleet.device.gate import record
from appliance.fleet.wire import Op, Window
from appliance.fleet.wire_jobs import ENDED, NEXT, JobState, check_step
from appliance.store import fleet_jobs
from appliance.store.facts.box import WorkerEnded
from appliance.store.facts.fleet import FleetLink, FleetTold


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def open_box(box):
    """Its window is the whole day."""
    box.inbox.take_twin(box.twin(1, window=ALWAYS))
    return box


def wait(box, hours, step_s=600.0):
    """So many hours of the box running."""
    for _ in range(int(hours * 3600 / step_s)):
        box.clock.advance(step_s)
        box.run()


def analysed(box, version, n, *, outcome="NOTHING_FLAGGED", reason=None, ms=100.0, role="live"):
    """So many analyses of a version ended now."""
    with box.store.db.write() as tx:
        for _ in range(n):
            study = tx.insert(
                "study",
                study_instance_uid="1.2",
                source="CT-1",
                identity="{}",
                patient_key="p",
                first_at=tx.at,
                last_at=tx.at,
            )
            tx.insert(
                "analysis",
                study_id=study,
                package=NAME,
                package_version=version,
                role=role,
                state="done",
                category=1,
                notify="active",
                intended_use="detection",
                ready_at=tx.at,
                ready_mono=0.0,
                boot="",
                deadline_s=30.0,
                done_at=tx.at,
                outcome=outcome,
                reason=reason,
                result=f'{{"hops_ms": {{"worker": {ms}}}}}',
            )


# The machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-42")
def test_store_and_wire_name_the_same_ends():
    assert {str(state) for state in ENDED} == set(fleet_jobs.ENDED)
    assert all(NEXT[state] == frozenset() for state in ENDED)
    with pytest.raises(ConflictError):
        check_step(JobState.SUCCEEDED, JobState.ACCEPTED)


@pytest.mark.req("R-FLEET-42")
def test_every_step_is_a_record_that_may_leave_the_box(open_box):
    job = open_box.install_job(soak_h=0, soak_studies=0)
    open_box.run()
    facts = [f for f in open_box.store.journal.after(0, 10_000) if f.kind == "fleet_job_step"]
    told = [record(fact, GateTerms(key=b"k", clk="ntp", boot="b")).d for fact in facts]
    assert [one.version for one in told] == list(range(1, len(told) + 1))
    assert {one.job for one in told} == {job.id}
    assert told[-1].state == "SUCCEEDED"


@pytest.mark.req("R-FLEET-42")
def test_bug_in_a_step_is_tried_three_times_and_then_told(box):
    box.acts.fail["restart"] = ZeroDivisionError()
    job = box.give(Op.RESTART)
    other = box.give(Op.PING)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            box.quick.step()
        with box.store.db.write() as tx:  # as a bug that leaves nothing behind
            tx.execute("UPDATE fleet_job SET work = '{}' WHERE id = ?", (job.id,))
    box.run()
    assert (box.state(job), box.state(other)) == (("FAILED", "BUG"), "SUCCEEDED")


@pytest.mark.req("R-FLEET-42")
def test_job_that_was_not_begun_in_its_time_is_not_done_by_surprise(box, clock):
    job = box.give(Op.RESTART)
    withdraw = box.give(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0")
    clock.advance(25 * 3600)
    box.run()
    assert (box.state(job), box.acts.calls) == (("TIMED_OUT", "EXPIRED"), [])
    assert box.state(withdraw) == ("SUCCEEDED", "NOT_HERE"), "safety does not expire"


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-43")
def test_ping_answers(box):
    job = box.give(Op.PING)
    box.run()
    assert box.steps(job) == ["ACCEPTED", "SUCCEEDED"]


@pytest.mark.req("R-FLEET-43")
def test_restart_is_told_after_the_new_start_and_not_before(box):
    job = box.give(Op.RESTART)
    box.run()
    assert (box.state(job), box.acts.calls) == ("ACCEPTED", ["restart"])
    box.run()
    assert box.acts.calls == ["restart"], "asked once"
    box.restart()
    box.run()
    assert (box.state(job), box.acts.calls) == ("SUCCEEDED", [])


@pytest.mark.req("R-FLEET-43")
def test_restart_that_never_comes_is_told(box):
    job = box.give(Op.RESTART)
    wait(box, 0.5, 60)
    assert box.state(job) == ("TIMED_OUT", "RESTART")


@pytest.mark.req("R-FLEET-43")
def test_box_that_nobody_would_start_again_says_so(box):
    box.acts.fail["restart"] = ActRefused("UNAVAILABLE")
    job = box.give(Op.RESTART)
    box.run()
    assert box.state(job) == ("FAILED", "UNAVAILABLE")


@pytest.mark.req("R-FLEET-43")
def test_self_test_tells_its_figures_or_why_it_failed(box):
    good = box.give(Op.SELF_TEST)
    box.run()
    assert (box.state(good), box.row(good).figures) == ("SUCCEEDED", {"result_s": 3.5})
    box.acts.fail["self_test"] = ActRefused("SELF_TEST", "no result after 300 s")
    bad = box.give(Op.SELF_TEST)
    box.run()
    assert box.state(bad) == ("FAILED", "SELF_TEST")


@pytest.mark.req("R-FLEET-43")
def test_self_test_that_was_cut_off_is_not_run_again(box):
    class Killed(BaseException):
        pass

    box.acts.fail["self_test"] = Killed()
    job = box.give(Op.SELF_TEST)
    with pytest.raises(Killed):
        box.run()
    box.restart()
    box.run()
    assert (box.state(job), box.acts.calls) == (("FAILED", "INTERRUPTED"), [])


@pytest.mark.req("R-FLEET-43")
def test_resend_goes_back_as_far_as_it_is_asked_and_the_journal_goes(box):
    rows = box.store.fleet
    rows.add_batch(0, 3)
    rows.acknowledged([batch.id for batch in rows.place().batches])
    job = box.give(Op.RESEND, after_seq=1)
    box.run()
    assert (box.state(job), box.row(job).figures, rows.place().cursor) == ("SUCCEEDED", {"after_seq": 1.0}, 1)


@pytest.mark.req("R-FLEET-43")
def test_drain_ends_when_all_that_waited_then_is_committed(box):
    with box.store.db.write() as tx:
        tx.journal(FleetTold(record={"k": "x"}))
    job = box.give(Op.DRAIN)
    box.run()
    through = box.store.fleet_jobs.get(job.id).work["through"]
    assert box.state(job) == "ACCEPTED"
    box.store.fleet.add_batch(0, through)
    box.run()
    assert box.state(job) == "ACCEPTED", "on its way is not there"
    box.store.fleet.acknowledged([batch.id for batch in box.store.fleet.place().batches])
    box.run()
    assert box.state(job) == "SUCCEEDED"


@pytest.mark.req("R-FLEET-43")
def test_drain_without_a_line_ends_after_a_day(box):
    job = box.give(Op.DRAIN, exp=box.ms(1000))
    wait(box, 25, 1800)
    assert box.state(job) == ("TIMED_OUT", "DRAIN")


@pytest.mark.req("R-FLEET-43")
def test_certificate_is_renewed_when_a_broker_has_taken_the_new_one(box):
    job = box.give(Op.CERT_RENEW)
    box.run()
    box.run()
    assert (box.renewals, box.state(job)) == (1, "ACCEPTED")
    (box.folder / "next").mkdir()
    box.run()
    (box.folder / "next").rmdir()
    (box.folder / "before").mkdir()
    (box.folder / "device.crt").write_bytes(b"another")
    box.run()
    assert box.state(job) == "ACCEPTED", "on trial"
    (box.folder / "before").rmdir()
    box.run()
    assert box.state(job) == "SUCCEEDED"


@pytest.mark.req("R-FLEET-43")
def test_certificate_that_no_broker_took_is_told(box):
    job = box.give(Op.CERT_RENEW)
    box.run()
    with box.store.db.write() as tx:
        tx.journal(FleetLink(state="fell_back", code="TLS"))
    box.run()
    assert box.state(job) == ("FAILED", "FELL_BACK")


@pytest.mark.req("R-FLEET-43")
def test_renewal_that_was_asked_before_a_restart_is_asked_again(box):
    box.give(Op.CERT_RENEW)
    box.run()
    box.restart()
    box.run()
    assert box.renewals == 2


# Out of service ------------------------------------------------------------------------------------------------------


def withdraw(box, version="1.0.0", **more):
    job = box.give(Op.MODEL_WITHDRAW, package=NAME, version=version, **more)
    box.run()
    return job


@pytest.mark.req("R-FLEET-44")
def test_model_without_a_predecessor_is_out_of_service_in_the_next_step(box):
    box.serve("1.0.0")
    job = withdraw(box)
    assert (box.state(job), box.packages()) == ("SUCCEEDED", {"1.0.0": "withdrawn"})
    assert "PACKAGE_WITHDRAWN" in box.issues()
    fact = next(f for f in box.store.journal.after(0, 1000) if f.kind == "package_withdrawn")
    assert (fact.actor["kind"], fact.actor["name"]) == ("fleet", job.id)


@pytest.mark.req("R-FLEET-44")
def test_withdrawal_waits_for_no_window_no_hold_no_site_and_nothing_that_is_slow(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, approval="both")
    box.serve("1.0.0")
    box.inbox.take_twin(box.twin(1, held=True, window=Window(begin="02:00", end="02:01")))
    box.give(Op.SELF_TEST)
    job = box.give(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0")
    box.quick.step()
    assert box.state(job) == "SUCCEEDED"
    box.close()


@pytest.mark.req("R-FLEET-44")
def test_withdrawal_of_what_is_not_here_or_is_out_already_is_no_failure(box):
    assert box.state(withdraw(box)) == ("SUCCEEDED", "NOT_HERE")
    box.serve("1.0.0")
    Acts(box.store).withdraw()
    assert box.state(withdraw(box)) == "SUCCEEDED"


@pytest.mark.req("R-FLEET-44")
def test_withdrawal_of_other_contents_leaves_what_serves(box):
    box.serve("1.0.0")
    assert box.state(withdraw(box, digest="ee" * 32)) == ("FAILED", "DIGEST")
    assert box.packages() == {"1.0.0": "live"}


@pytest.mark.req("R-FLEET-44")
def test_withdrawal_ends_the_job_that_would_bring_the_version_in(open_box):
    box = open_box
    box.fetcher.fail = TransientError("no line")
    install = box.install_job("2.0.0")
    box.run()
    assert box.state(install) == "DOWNLOADING"
    withdraw(box, "2.0.0")
    assert box.state(install) == ("CANCELED", "WITHDRAWN")
    box.fetcher.fail = None
    wait(box, 2)
    assert box.packages() == {}


@pytest.mark.req("R-FLEET-44")
def test_withdrawal_while_it_soaks_ends_the_job_that_brought_it(open_box):
    install = open_box.install_job()
    open_box.run()
    assert open_box.state(install) == "SOAKING"
    withdraw(open_box, "2.0.0")
    wait(open_box, 0.5)
    assert open_box.state(install) == ("ROLLED_BACK", "WITHDRAWN")


@pytest.mark.req("R-FLEET-44")
def test_rolling_back_lets_the_version_before_serve(box):
    box.serve("1.0.0", "2.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    box.run()
    assert (box.state(job), box.packages()) == ("SUCCEEDED", {"1.0.0": "live", "2.0.0": "retired"})


@pytest.mark.req("R-FLEET-44")
@pytest.mark.parametrize(
    ("version", "state", "live"),
    [
        ("1.0.0", "SUCCEEDED", "1.0.0"),
        ("2.0.0", ("SUCCEEDED", "ALREADY"), "2.0.0"),
        ("0.9", ("FAILED", "VERSION"), "2.0.0"),
    ],
)
def test_rolling_back_to_a_version_means_that_one(box, version, state, live):
    box.serve("1.0.0", "2.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME, version=version)
    box.run()
    assert box.state(job) == state
    assert box.packages()[live] == "live"


@pytest.mark.req("R-FLEET-44")
def test_rolling_back_that_was_cut_off_undoes_nobody_s_act(box, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    box.serve("1.0.0", "2.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    with monkeypatch.context() as patch:
        patch.setattr(type(box.store.packages), "roll_back", die)
        with pytest.raises(Killed):
            box.run()
    box.restart()
    box.clock.advance(1)
    Acts(box.store).withdraw("2.0.0")
    box.run()
    assert box.state(job) == ("FAILED", "CONFLICT")
    assert box.packages() == {"1.0.0": "retired", "2.0.0": "withdrawn"}


@pytest.mark.req("R-FLEET-44")
def test_nothing_to_go_back_to_is_told(box):
    box.serve("1.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    box.run()
    assert box.state(job) == ("FAILED", "NO_PREDECESSOR")


# Installing ----------------------------------------------------------------------------------------------------------

WHOLE = ["ACCEPTED", "DOWNLOADING", "DOWNLOADING", "DOWNLOADING", "DOWNLOADING", "VERIFIED", "STAGED", "SELFTEST"]
WHOLE += ["WAIT_IDLE", "ACTIVATING", "SOAKING", "SUCCEEDED"]


@pytest.mark.req("R-FLEET-45")
def test_installation_goes_through_every_state_and_what_served_goes_on_until_then(open_box):
    box = open_box
    box.serve("1.0.0")
    job = box.install_job(soak_h=1, soak_studies=10)
    box.run()
    assert box.state(job) == "SOAKING"
    assert box.packages() == {"1.0.0": "retired", "2.0.0": "live"}
    analysed(box, "2.0.0", 12)
    wait(box, 1.2)
    assert box.steps(job) == WHOLE
    assert box.row(job).figures["studies"] == 12.0
    assert (box.fetcher.calls, box.acts.calls) == (["toy-2.0.0.zip", "toy-2.0.0.zip"], ["install", "golden"])


@pytest.mark.req("R-FLEET-45")
@pytest.mark.parametrize(
    ("role", "mode", "state", "ends"),
    [
        ("silent", "evaluation", "silent", "SUCCEEDED"),
        ("silent", "clinical", "silent", "SUCCEEDED"),
        ("live", "evaluation", "live", "SUCCEEDED"),
        ("live", "clinical", "silent", "SOAKING"),
        (None, "clinical", "silent", "SOAKING"),
    ],
)
def test_nothing_is_live_for_patients_that_was_not_silent_before(tmp_path, clock, role, mode, state, ends):
    box = JobBox(tmp_path, clock=clock, mode=mode)
    box.acts.install = lambda *_: put(
        box.store, "2.0.0", status="cleared", regulatory={"EU": {"class": "IIa", "number": "1"}}
    )
    box.inbox.take_twin(box.twin(1, window=ALWAYS))
    job = box.install_job(role=role, soak_h=1, soak_studies=0)
    box.run()
    wait(box, 1.2)
    assert (box.packages(), box.row(job).state) == ({"2.0.0": state}, ends)
    if ends == "SOAKING":
        analysed(box, "2.0.0", 2, role="silent")
        assert [row.version for row in box.store.packages.promote_due(box.acts.owed)] == ["2.0.0"]
        wait(box, 0.2)
        assert (box.packages(), box.row(job).state) == ({"2.0.0": "live"}, "SUCCEEDED")
    else:
        assert box.store.packages.promote_due(box.acts.owed) == []
    box.close()


@pytest.mark.req("R-FLEET-45")
def test_version_that_is_silent_here_is_made_live_by_a_second_job(open_box):
    box = open_box
    box.install_job(role="silent", soak_h=0, soak_studies=0)
    box.run()
    job = box.install_job(role="live", soak_h=0, soak_studies=0)
    box.run()
    assert (box.state(job), box.packages()) == ("SUCCEEDED", {"2.0.0": "live"})
    assert box.acts.calls.count("install") == 1


@pytest.mark.req("R-FLEET-45")
def test_shadow_runs_beside_what_serves(open_box):
    open_box.serve("1.0.0")
    job = open_box.install_job(role="shadow", soak_h=0, soak_studies=0)
    open_box.run()
    assert (open_box.state(job), open_box.packages()) == ("SUCCEEDED", {"1.0.0": "live", "2.0.0": "shadow"})


@pytest.mark.req("R-FLEET-45")
def test_what_serves_already_is_not_installed_again(box):
    box.serve("2.0.0")
    job = box.install_job("2.0.0")
    box.run()
    assert (box.state(job), box.fetcher.calls) == ("ALREADY_INSTALLED", [])


@pytest.mark.req("R-FLEET-45")
@pytest.mark.parametrize(
    ("before", "changes", "code"),
    [
        (lambda box: box.serve("2.0.0"), {"digest": "ee" * 32}, "CONTENTS"),
        (lambda box: (box.serve("2.0.0"), Acts(box.store).withdraw()), {}, "WITHDRAWN"),
        (lambda box: box.serve("2.0.0", "3.0.0"), {}, "RETIRED"),
    ],
)
def test_version_that_is_here_and_may_not_serve_is_refused(box, before, changes, code):
    before(box)
    job = box.install_job("2.0.0", **changes)
    box.run()
    assert box.state(job) == ("REJECTED", code)


@pytest.mark.req("R-FLEET-45")
@pytest.mark.parametrize(
    ("break_", "code", "last"),
    [
        (lambda box: setattr(box.fetcher, "fail", ActRefused("HASH")), "HASH", "DOWNLOADING"),
        (lambda box: box.acts.fail.update(install=ActRefused("PACKAGE_REFUSED")), "PACKAGE_REFUSED", "VERIFIED"),
        (lambda box: box.acts.fail.update(install=ConflictError("both slots are in use")), "CONFLICT", "VERIFIED"),
        (lambda box: setattr(box.acts, "install", lambda *_: put(box.store, "3.0.0")), "DIGEST", "VERIFIED"),
        (lambda box: box.acts.fail.update(golden=ActRefused("SELFTEST")), "SELFTEST", "SELFTEST"),
    ],
)
def test_failure_before_activation_changes_nothing_that_serves(open_box, break_, code, last):
    open_box.serve("1.0.0")
    break_(open_box)
    job = open_box.install_job()
    open_box.run()
    assert open_box.state(job) == ("FAILED", code)
    assert open_box.steps(job)[-2] == last
    assert open_box.packages()["1.0.0"] == "live"


@pytest.mark.req("R-FLEET-45")
def test_bad_line_is_tried_again_until_the_job_expires(open_box):
    open_box.fetcher.fail = TransientError("no line")
    job = open_box.install_job(exp=open_box.ms(40))
    wait(open_box, 29)
    assert open_box.state(job) == "DOWNLOADING"
    assert 20 < len(open_box.fetcher.calls) < 60, "later each time, at least hourly"
    open_box.fetcher.fail = None
    wait(open_box, 1.2)
    assert open_box.state(job) == "SOAKING"


@pytest.mark.req("R-FLEET-45")
def test_no_study_is_on_its_way_when_versions_change(open_box):
    box = open_box
    with box.store.db.write() as tx:
        tx.execute(
            "INSERT INTO study (study_instance_uid, source, patient_key, identity, first_at, last_at)"
            " VALUES ('1.2', 'CT-1', 'p', '{}', '', '')",
        )
        tx.execute(
            "INSERT INTO series (study_id, series_instance_uid, sop_class_uid, modality, header, changed_at,"
            " changed_mono, boot) VALUES (1, '1.2.3', '1', 'CT', '{}', '', 0, '')"
        )
    job = box.install_job(wait_h=2)
    wait(box, 1)
    assert box.state(job) == "WAIT_IDLE"
    with box.store.db.write() as tx:
        tx.execute("UPDATE series SET open = 0")
    box.run()
    assert box.state(job) == "SOAKING"


@pytest.mark.req("R-FLEET-45")
def test_versions_change_in_the_window_of_the_site_or_not_at_all(box, clock):
    hour = clock.now().astimezone()
    at = lambda hours: (hour + timedelta(hours=hours)).strftime("%H:%M")  # noqa: E731
    box.inbox.take_twin(box.twin(1, window={"begin": at(3), "end": at(4)}))
    job = box.install_job()
    wait(box, 2.5)
    assert box.state(job) == "WAIT_IDLE"
    wait(box, 1)
    assert box.state(job) == "SOAKING"
    box.inbox.take_twin(box.twin(2, window={"begin": at(10), "end": at(10.5)}))
    late = box.install_job("3.0.0", package="other", wait_h=1)
    box.acts.install = lambda *_: put(box.store, "3.0.0", "other")
    wait(box, 0.8)
    assert box.state(late) == "WAIT_IDLE"
    wait(box, 0.7)
    assert box.state(late) == ("REJECTED", "WINDOW")


@pytest.mark.req("R-FLEET-45")
@pytest.mark.fault("T35")
def test_time_that_is_waited_is_not_what_a_clock_says(box, clock):
    hour = clock.now().astimezone()
    at = lambda hours: (hour + timedelta(hours=hours)).strftime("%H:%M")  # noqa: E731
    box.inbox.take_twin(box.twin(1, window={"begin": at(20), "end": at(21)}))
    job = box.install_job(wait_h=3, exp=box.ms(1000))
    wait(box, 1)
    clock.jump(30 * 86_400)
    box.run()
    assert box.state(job) == "WAIT_IDLE"
    clock.jump(-60 * 86_400)
    wait(box, 1)
    box.restart()
    assert box.state(job) == "WAIT_IDLE"
    wait(box, 1.5)
    assert box.state(job) == ("REJECTED", "WINDOW"), "the hours before the restart count"


@pytest.mark.req("R-FLEET-45")
def test_held_box_installs_nothing_and_goes_on_when_it_is_let_go(box):
    box.inbox.take_twin(box.twin(1, held=True, window=ALWAYS))
    job = box.install_job()
    wait(box, 1)
    assert (box.state(job), box.fetcher.calls) == ("ACCEPTED", [])
    box.inbox.take_twin(box.twin(2, window=ALWAYS))
    box.run()
    assert box.state(job) == "SOAKING"


@pytest.mark.req("R-FLEET-45")
def test_an_installation_that_waited_for_a_hold_to_its_end_says_that_it_was_held(box):
    box.inbox.take_twin(box.twin(1, held=True, window=ALWAYS))
    job, other = box.install_job(), box.give(Op.RESTART)
    box.clock.advance(31 * 86_400)
    box.run()
    assert box.state(job) == ("REJECTED", "HELD")
    assert box.state(other) == ("TIMED_OUT", "EXPIRED"), "a hold is of installations alone"


@pytest.mark.req("R-FLEET-45")
def test_hold_that_comes_late_stops_the_change_of_versions(box):
    box.inbox.take_twin(box.twin(1, held=True, window=ALWAYS))
    put(box.store, "2.0.0")
    job = box.install_job(wait_h=1)
    box.inbox.take_twin(box.twin(2, window=ALWAYS))
    box.acts.fail["golden"] = TransientError("busy")
    box.run()
    box.acts.fail.clear()
    box.inbox.take_twin(box.twin(3, held=True, window=ALWAYS))
    wait(box, 2)
    assert box.state(job) == ("REJECTED", "HELD")
    assert box.packages() == {"2.0.0": "installed"}


@pytest.mark.req("R-FLEET-45")
def test_one_version_of_a_package_after_the_other(open_box):
    first = open_box.install_job("2.0.0", soak_h=1, soak_studies=0)
    second = open_box.install_job("3.0.0", soak_h=0, soak_studies=0)
    open_box.run()
    assert (open_box.state(first), open_box.state(second)) == ("SOAKING", "ACCEPTED")
    wait(open_box, 1.2)
    assert (open_box.state(first), open_box.state(second)) == ("SUCCEEDED", "SUCCEEDED")


@pytest.mark.req("R-FLEET-45")
def test_box_that_can_fetch_nothing_says_so_and_still_activates_what_it_has(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, fetch=False)
    box.inbox.take_twin(box.twin(1, window=ALWAYS))
    assert box.state(_done(box, box.install_job())) == ("REJECTED", "NOT_PERMITTED")
    put(box.store, "2.0.0")
    assert box.state(_done(box, box.install_job())) == "SOAKING"
    box.close()


def _done(box, job):
    box.run()
    return job


# Soaking -------------------------------------------------------------------------------------------------------------


def soaking(box, **changes):
    """2.0.0 has just begun to serve instead of 1.0.0, of which there are two weeks."""
    box.serve("1.0.0")
    analysed(box, "1.0.0", 40, ms=100.0)
    analysed(box, "1.0.0", 2, outcome="NOT_ANALYSED", reason="failed")
    box.clock.advance(3600)
    job = box.install_job(soak_h=2, soak_studies=10, **changes)
    box.run()
    assert box.state(job) == "SOAKING"
    return job


@pytest.mark.req("R-FLEET-46")
@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"n": 6, "outcome": "NOT_ANALYSED", "reason": "failed"}, "ERROR_RATE"),
        ({"n": 6, "outcome": "NOT_ANALYSED", "reason": "timed_out"}, "ERROR_RATE"),
        ({"n": 12, "outcome": "NOT_ANALYSED", "reason": "quality"}, "NOT_ANALYSED_RATE"),
        ({"n": 30, "ms": 2000.0}, "LATENCY"),
    ],
)
def test_version_that_does_worse_here_goes_back_by_itself(open_box, what, code):
    box = open_box
    job = soaking(box)
    analysed(box, "2.0.0", 8)
    analysed(box, "2.0.0", **what)
    wait(box, 0.2)
    assert box.state(job) == ("ROLLED_BACK", code)
    assert box.packages() == {"1.0.0": "live", "2.0.0": "withdrawn"}
    assert "PACKAGE_WITHDRAWN" not in box.issues()


@pytest.mark.req("R-FLEET-46")
def test_version_that_does_as_well_stays(open_box):
    box = open_box
    job = soaking(box)
    analysed(box, "2.0.0", 30, ms=150.0)
    analysed(box, "2.0.0", 2, outcome="NOT_ANALYSED", reason="failed")
    analysed(box, "2.0.0", 4, outcome="NOT_ANALYSED", reason="ai_unavailable")
    wait(box, 2.2)
    assert (box.state(job), box.packages()["2.0.0"]) == ("SUCCEEDED", "live")


@pytest.mark.req("R-FLEET-46")
def test_version_that_few_studies_have_seen_is_not_called_good(open_box):
    job = soaking(open_box)
    analysed(open_box, "2.0.0", 9)
    wait(open_box, 30)
    assert open_box.state(job) == "SOAKING"
    analysed(open_box, "2.0.0", 1)
    wait(open_box, 0.2)
    assert open_box.state(job) == "SUCCEEDED"


@pytest.mark.req("R-FLEET-46")
@pytest.mark.parametrize(("apart_s", "state"), [(200, ("ROLLED_BACK", "CRASHES")), (400, "SOAKING")])
def test_worker_that_ends_three_times_in_ten_minutes_goes_back(open_box, apart_s, state):
    box = open_box
    job = soaking(box)
    analysed(box, "2.0.0", 1)
    (row,) = box.store.db.all("SELECT max(id) AS id FROM analysis")
    for _ in range(3):
        with box.store.db.write() as tx:
            tx.journal(WorkerEnded(pid=1, why="signal 11", analysis=row["id"]))
        box.clock.advance(apart_s)
        box.run()
    assert box.state(job) == state


@pytest.mark.req("R-FLEET-46")
def test_first_version_of_a_package_that_fails_goes_loudly(open_box):
    box = open_box
    job = box.install_job()
    box.run()
    analysed(box, "2.0.0", 5, outcome="NOT_ANALYSED", reason="failed")
    wait(box, 0.2)
    assert (box.state(job), box.packages()) == (("ROLLED_BACK", "ERROR_RATE"), {"2.0.0": "withdrawn"})
    assert "PACKAGE_WITHDRAWN" in box.issues()


@pytest.mark.req("R-FLEET-46")
def test_version_that_was_rolled_back_does_not_come_again_by_a_job(open_box):
    job = soaking(open_box)
    analysed(open_box, "2.0.0", 6, outcome="NOT_ANALYSED", reason="failed")
    wait(open_box, 0.2)
    again = open_box.install_job("2.0.0")
    open_box.run()
    assert (open_box.row(job).state, open_box.state(again)) == ("ROLLED_BACK", ("REJECTED", "WITHDRAWN"))


@pytest.mark.req("R-FLEET-46")
def test_bug_while_it_soaks_takes_the_version_back(open_box, monkeypatch):
    job = soaking(open_box)
    monkeypatch.setattr("appliance.fleet.device.install.fared", lambda *_: 1 / 0)
    for _ in range(3):
        open_box.clock.advance(60)
        with pytest.raises(ZeroDivisionError):
            open_box.quick.step()
    assert open_box.state(job) == ("ROLLED_BACK", "BUG")
    assert open_box.packages()["1.0.0"] == "live"


# The site's word -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-47")
@pytest.mark.parametrize("approval", ["site", "both"])
def test_job_waits_for_the_administrator_of_the_box(tmp_path, clock, approval):
    box = JobBox(tmp_path, clock=clock, approval=approval)
    box.inbox.take_twin(box.twin(1, window=ALWAYS))
    box.serve("1.0.0")
    job = box.install_job()
    wait(box, 1)
    assert (box.state(job), box.fetcher.calls) == ("WAIT_APPROVAL", [])
    with pytest.raises(ConflictError):
        box.store.fleet_jobs.approve(str(job.ctr), PERSON, "  ")
    box.store.fleet_jobs.approve(str(job.ctr), PERSON, "reviewed with Dr. Marker")
    box.run()
    assert box.state(job) == "SOAKING"
    fact = next(f for f in box.store.journal.after(0, 1000) if f.body.get("code") == "APPROVED")
    assert (fact.actor["name"], fact.body["why"]) == ("Kim", "reviewed with Dr. Marker")
    assert "Marker" not in record(fact, GateTerms(key=b"k", clk="ntp", boot="b")).model_dump_json()
    with pytest.raises(ConflictError):
        box.store.fleet_jobs.approve(job.id, PERSON, "again")
    box.close()


@pytest.mark.req("R-FLEET-47")
def test_administrator_may_say_no(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, approval="site")
    box.serve("1.0.0", "2.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    box.run()
    assert box.state(job) == "WAIT_APPROVAL"
    box.store.fleet_jobs.refuse(job.id, PERSON, "not in this week")
    box.run()
    assert (box.state(job), box.packages()["2.0.0"]) == (("REJECTED", "REFUSED_BY_SITE"), "live")
    box.close()


@pytest.mark.req("R-FLEET-47")
def test_rolling_back_with_the_site_s_word(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, approval="site")
    box.serve("1.0.0", "2.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    box.run()
    box.store.fleet_jobs.approve(job.id, PERSON, "agreed")
    box.run()
    assert (box.state(job), box.packages()["1.0.0"]) == ("SUCCEEDED", "live")
    box.close()


@pytest.mark.req("R-FLEET-47")
def test_job_that_nobody_answers_expires(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, approval="site")
    job = box.install_job()
    wait(box, 25, 3600)
    assert box.state(job) == ("TIMED_OUT", "EXPIRED")
    with pytest.raises(ConflictError):
        box.store.fleet_jobs.approve(job.id, PERSON, "too late")
    with pytest.raises(NotFoundError):
        box.store.fleet_jobs.approve("4711", PERSON, "which?")
    box.close()
