"""Packages as acts: slots, silent times, withdrawal, going back, operating points, and the configuration's choice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from package_rows_kit import NAME, PERSON, Acts, choice, nothing_owed

from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.records import AnalysisResult, FindingResult, Outcome, Reason, Role
from appliance.store.affected import affected
from appliance.store.analyses import Plan
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.package_rules import Terms
from appliance.store.rebuild import rebuild

WEEK = Terms(days=7, studies=2)


@pytest.fixture
def acts(store):
    return Acts(store)


@pytest.fixture
def analyse(store, make_header, receive):
    """One study of its own, routed to a version; with a score it is analysed too. Returns (study id, analysis id)."""

    def make(n, version="1.0.0", role=Role.LIVE, score=None, study_id=None):
        if study_id is None:
            header = make_header(n, study_instance_uid=f"1.8.{n}", series_instance_uid=f"1.8.{n}.1")
            study_id = store.studies.add_new(receive(header), ()).study_id
            for series in store.revisions.open_series():
                store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        (revision,) = store.revisions.of_study(study_id)
        plan = Plan(
            package=NAME,
            package_version=version,
            role=role,
            category=1,
            notify="active",
            intended_use="detection",
            deadline_s=30,
            inputs={"image": revision.id},
        )
        (analysis_id,) = store.analyses.route(study_id, (revision.id,), (plan,), (), nothing_owed)
        if score is not None:
            store.analyses.finish(analysis_id, said(score), ())
        return study_id, analysis_id

    return make


def said(score):
    finding = FindingResult(
        id="bright-blob", score=score, operating_point="standard", threshold=0.5, flagged=score >= 0.5, category=1
    )
    return AnalysisResult(outcome=Outcome.FINDING if score >= 0.5 else Outcome.NOTHING_FLAGGED, findings=(finding,))


def ending(store, study_id):
    row = store.db.one("SELECT outcome, reason FROM study WHERE id = ?", (study_id,))
    return row["outcome"], row["reason"]


@pytest.mark.req("R-OPERATE-02")
def test_first_version_is_silent_for_its_days_and_studies_before_it_is_live(store, acts, analyse, clock):
    acts.install("1.0.0")
    acts.activate(terms=WEEK)
    assert acts.states() == {"1.0.0": "silent"}
    clock.jump(8 * 86400)
    analyse(1, role=Role.SILENT, score=0.1)
    assert store.packages.promote_due(nothing_owed) == [], "days without studies are not enough"
    _, failed = analyse(2, role=Role.SILENT)
    store.analyses.finish(failed, AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED), ())
    assert store.packages.promote_due(nothing_owed) == [], "a study that it could not analyse shows nothing"
    analyse(3, role=Role.SILENT, score=0.9)
    assert [row.version for row in store.packages.promote_due(nothing_owed)] == ["1.0.0"]
    assert acts.states() == {"1.0.0": "live"}
    (live,) = [f for f in store.journal.after(0, limit=1000) if f.kind is Kind.PACKAGE_LIVE]
    assert (live.body["studies"], live.body["days"]) == (2, 8.0)


@pytest.mark.req("R-OPERATE-02")
@pytest.mark.parametrize("terms", [Terms(days=0, studies=0), Terms(days=7, studies=0), Terms(days=0, studies=50)])
def test_clinical_mode_allows_no_version_without_a_silent_time(acts, terms):
    acts.install("1.0.0", status="cleared", regulatory={"EU": {"class": "IIb", "number": "1"}})
    with pytest.raises(ConflictError, match="silent for at least one study"):
        acts.activate(terms=terms, clinical=True)
    assert acts.states() == {"1.0.0": "installed"}
    assert str(acts.activate(terms=WEEK, clinical=True).state) == "silent"


@pytest.mark.req("R-OPERATE-02")
def test_clinical_mode_refuses_a_demonstrator(acts):
    acts.install("1.0.0")
    with pytest.raises(ConflictError, match="demonstrator"):
        acts.activate(terms=WEEK, clinical=True)


@pytest.mark.req("R-OPERATE-03")
def test_second_version_runs_silent_beside_the_first_and_takes_over(store, acts, analyse, clock):
    acts.sync(choice("1.0.0"))
    acts.install("2.0.0")
    acts.activate(terms=WEEK)
    assert acts.states() == {"1.0.0": "live", "2.0.0": "silent"}
    waiting, _ = analyse(1, "1.0.0")
    for n in (2, 3):
        study_id, _ = analyse(n, "1.0.0", score=0.9)
        analyse(n, "2.0.0", Role.SILENT, score=0.1, study_id=study_id)
        assert ending(store, study_id) == (Outcome.FINDING, None), "what the silent one says counts for nothing"
    clock.jump(8 * 86400)
    store.packages.promote_due(nothing_owed)
    assert acts.states() == {"1.0.0": "retired", "2.0.0": "live"}
    assert store.revisions.studies_to_route() == [waiting], "what waited is handed over, what ended is left in peace"


@pytest.mark.req("R-OPERATE-03")
def test_going_back_lets_the_previous_version_serve_at_once_and_forth_again(acts):
    acts.sync(choice("1.0.0"))
    acts.install("2.0.0")
    acts.activate()
    assert acts.states() == {"1.0.0": "retired", "2.0.0": "live"}
    assert acts.roll_back() == ("2.0.0", "1.0.0")
    assert acts.states() == {"1.0.0": "live", "2.0.0": "retired"}
    assert acts.roll_back() == ("1.0.0", "2.0.0")
    assert acts.facts()[-1] == "package_rolled_back"


def test_nothing_to_go_back_to_is_said_with_the_way_to_stop(acts):
    acts.sync(choice("1.0.0"))
    with pytest.raises(ConflictError, match="scanside model withdraw"):
        acts.roll_back()


@pytest.mark.req("R-OPERATE-03")
def test_third_version_takes_the_slot_that_does_not_serve_and_its_folder_goes(store, acts):
    acts.sync(choice("1.0.0"))
    acts.install("2.0.0")
    acts.activate()
    assert acts.install("3.0.0") == [], "1.0.0 came with the software: it has no folder here"
    assert acts.states() == {"1.0.0": "removed", "2.0.0": "live", "3.0.0": "installed"}
    acts.activate(terms=WEEK)
    with pytest.raises(ConflictError, match=r"withdraw toy-bright-blob --version 3\.0\.0"):
        acts.install("4.0.0")
    acts.withdraw("3.0.0")
    assert acts.install("4.0.0") == [f"{NAME}/3.0.0-folder"]
    assert store.packages.folders() == {f"{NAME}/2.0.0-folder", f"{NAME}/4.0.0-folder"}


def test_version_number_is_used_for_one_content_only(store, acts):
    acts.install("1.0.0")
    with pytest.raises(ConflictError, match="is installed"):
        acts.install("1.0.0")
    with pytest.raises(ConflictError, match="a new version"):
        store.packages.refuse_known(NAME, "1.0.0", "another digest")


@pytest.mark.req("R-OPERATE-04")
def test_withdrawal_ends_what_is_open_loudly_and_at_once(store, acts, analyse):
    acts.sync(choice("1.0.0"))
    queued, _ = analyse(1)
    running, in_hand = analyse(2)
    store.analyses.start(in_hand)
    ended, _ = analyse(3, score=0.9)
    acts.withdraw()
    assert ending(store, queued) == ending(store, running) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    assert ending(store, ended) == (Outcome.FINDING, None), "what was told stays told; the look-back lists it"
    assert [issue.code for issue in store.issues.open()] == ["PACKAGE_WITHDRAWN"]
    store.analyses.finish(in_hand, said(0.9), ())
    assert ending(store, running) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN), "the worker's answer comes too late"
    with pytest.raises(ConflictError, match="withdrawn already"):
        acts.withdraw()


@pytest.mark.req("R-OPERATE-04")
def test_withdrawal_outlives_the_restart_and_the_configuration_until_a_person_activates(store, acts):
    acts.sync(choice("1.0.0"))
    acts.withdraw()
    acts.sync(choice("1.0.0"))
    acts.sync(choice("1.0.0", points={"bright-blob": "sensitive"}))
    assert acts.states() == {"1.0.0": "withdrawn"}
    acts.sync(choice("1.1.0"))
    assert acts.states() == {"1.0.0": "removed", "1.1.0": "withdrawn"}, "an update of the software is no activation"
    acts.activate(terms=WEEK)
    assert [issue.code for issue in store.issues.open()] == ["PACKAGE_WITHDRAWN"], "still nothing serves"
    acts.activate()
    assert acts.states()["1.1.0"] == "live"
    assert store.issues.open() == []


def test_withdrawal_needs_a_reason(acts):
    acts.sync(choice("1.0.0"))
    with pytest.raises(ConflictError, match="needs a reason"):
        acts.withdraw(why="  ")


@pytest.mark.req("R-OPERATE-05")
def test_operating_point_comes_from_the_closed_list_with_a_reason_and_is_journalled(store, acts):
    acts.sync(choice("1.0.0"))
    assert acts.point() == "standard"
    (row,) = store.packages.all(NAME)
    assert row.operating_points == {"bright-blob": "sensitive"}
    fact = store.journal.after(0, limit=1000)[-1]
    assert (fact.kind, fact.actor["name"], fact.body["before"]) == (Kind.OPERATING_POINT_CHANGED, "Kim", "standard")
    with pytest.raises(NotFoundError, match=r"it has \{'bright-blob': \['standard', 'sensitive'\]\}"):
        acts.point(point="0.123")
    with pytest.raises(ConflictError, match="reason"):
        acts.point(reason="")


@pytest.mark.req("R-OPERATE-05")
def test_operating_point_in_clinical_mode_waits_for_a_second_person(store, acts):
    acts.sync(choice("1.0.0", role=Role.SILENT))
    with pytest.raises(ConflictError, match="second person"):
        acts.point(clinical=True)
    with pytest.raises(ConfigError, match="second person"):
        acts.sync(choice("1.0.0", role=Role.SILENT, points={"bright-blob": "sensitive"}), clinical=True)
    assert store.packages.all(NAME)[0].operating_points == {}


@pytest.mark.req("R-OPERATE-05")
def test_configuration_is_the_initial_choice_of_points_and_a_person_may_change_it_since(store, acts):
    acts.sync(choice("1.0.0", points={"bright-blob": "sensitive"}))
    acts.point(point="standard")
    acts.sync(choice("1.0.0", points={"bright-blob": "sensitive"}))
    assert store.packages.all(NAME)[0].operating_points == {"bright-blob": "standard"}


def test_new_version_takes_the_site_s_points_where_its_own_list_has_them(store, acts):
    acts.sync(choice("1.0.0"))
    acts.point()
    acts.install("2.0.0")
    acts.activate(terms=WEEK)
    assert store.packages.all(NAME)[1].operating_points == {"bright-blob": "sensitive"}


@pytest.mark.req("R-OPERATE-06")
def test_shadow_s_agreement_is_journalled_and_nothing_else_follows(store, acts, analyse):
    acts.sync(choice("1.0.0"))
    acts.install("2.0.0")
    acts.activate(terms=Terms(shadow=True))
    study_id, _ = analyse(1, "1.0.0", score=0.75)
    _, shadow = analyse(1, "2.0.0", Role.SHADOW, study_id=study_id)
    store.analyses.finish(shadow, said(0.25), (OwedResult(destination="PACS", kind="sr"),))
    assert ending(store, study_id) == (Outcome.FINDING, None)
    assert store.db.all("SELECT * FROM delivery") == []
    facts = store.journal.after(0, limit=1000)
    (agreement,) = [f.body for f in facts if f.kind is Kind.SHADOW_AGREEMENT]
    assert (agreement["same_outcome"], agreement["score_differences"]) == (False, {"bright-blob": -0.5})
    assert agreement["flagged_by_one"] == ["bright-blob"]
    done = {f.body["role"]: f.body["scores"] for f in facts if f.kind is Kind.ANALYSIS_DONE}
    assert done == {"live": {"bright-blob": 0.75}, "shadow": {}}, "a shadow's own scores are not told"
    assert store.packages.agreement(store.packages.all(NAME)[1]).studies == 1


def test_shadow_needs_a_live_version_beside_it(acts):
    acts.install("1.0.0")
    with pytest.raises(ConflictError, match="nothing to run beside"):
        acts.activate(terms=Terms(shadow=True))


@pytest.mark.req("R-OPERATE-07")
def test_look_back_lists_what_a_version_analysed_and_what_went_out(store, acts, analyse, clock):
    acts.sync(choice("1.0.0"))
    begin = clock.now()
    flagged, first = analyse(1, score=0.9)
    quiet, _ = analyse(2, score=0.1)
    with store.db.write() as tx:
        tx.insert(
            "delivery",
            destination="PACS",
            kind="sr",
            study_id=flagged,
            analysis_id=first,
            sop_instance_uid="1.2",
            state="sent",
            next_at=tx.at,
            owed_at=tx.at,
        )
    clock.jump(3600)
    end = clock.now()
    analyse(3, score=0.9)
    found = affected(store.db, NAME, begin, end)
    assert [(one.study_id, one.outcome, one.alerted, one.delivered) for one in found] == [
        (flagged, Outcome.FINDING, True, 1),
        (quiet, Outcome.NOTHING_FLAGGED, False, 0),
    ]
    assert affected(store.db, NAME, begin, end + timedelta(days=1), "9.9.9") == []


def test_configuration_that_says_nothing_new_changes_nothing(store, acts):
    acts.sync(choice("1.0.0"))
    before = store.journal.last_seq()
    acts.sync(choice("1.0.0"))
    assert store.journal.last_seq() == before


def test_package_that_the_configuration_no_longer_names_stops(store, acts, analyse):
    acts.sync(choice("1.0.0"))
    study_id, _ = analyse(1)
    acts.sync()
    assert acts.states() == {"1.0.0": "removed"}
    assert ending(store, study_id) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    acts.sync(choice("1.0.0"))
    assert acts.states() == {"1.0.0": "live"}


def test_act_of_a_person_stays_when_the_configuration_is_read_again(acts):
    acts.sync(choice("1.0.0", role=Role.SILENT))
    acts.activate()
    acts.sync(choice("1.0.0", role=Role.SILENT))
    assert acts.states() == {"1.0.0": "live"}
    acts.install("2.0.0")
    acts.activate()
    acts.sync(choice("1.0.0", role=Role.SILENT))
    assert acts.states() == {"1.0.0": "retired", "2.0.0": "live"}


@pytest.mark.req("R-OPERATE-02")
def test_site_that_becomes_clinical_has_nothing_live_that_was_never_silent(acts, store, analyse, clock):
    cleared = {"status": "cleared", "regulatory": {"EU": {"class": "IIb", "number": "1"}}}
    acts.install("1.0.0", **cleared)
    acts.activate()
    acts.sync(clinical=True)
    assert acts.states() == {"1.0.0": "silent"}
    acts.activate(terms=Terms(days=1, studies=1), clinical=True)
    analyse(1, role=Role.SILENT, score=0.1)
    clock.jump(2 * 86400)
    store.packages.promote_due(nothing_owed)
    acts.sync(clinical=True)
    assert acts.states() == {"1.0.0": "live"}


def test_software_update_that_takes_a_clinical_package_out_of_service_is_loud(acts, store):
    acts.sync(choice("1.0.0"))
    acts.sync(choice("1.1.0", role=Role.SILENT))
    assert acts.states() == {"1.0.0": "removed", "1.1.0": "silent"}
    assert [issue.code for issue in store.issues.open()] == ["PACKAGE_WITHDRAWN"]


def test_requirement_that_does_not_run_is_asked_for_first(acts):
    acts.install("1.0.0", requires=[{"package": "chest-quality", "on_fail": "caveat"}])
    with pytest.raises(ConflictError, match="requires chest-quality"):
        acts.activate()


@pytest.mark.req("R-OPERATE-03")
def test_decision_that_rests_on_packages_of_before_is_not_recorded(store, acts, analyse):
    acts.sync(choice("1.0.0"))
    study_id, _ = analyse(1)
    store.analyses.reprocess(study_id)
    stale = frozenset({(NAME, "0.9.0", "live")})
    assert store.analyses.route(study_id, (1,), (), (), nothing_owed, stale) == []
    assert store.revisions.studies_to_route() == [study_id], "routing decides again"


def test_backlog_of_an_outage_is_worked_off_by_the_version_that_serves_by_then(store, acts, analyse):
    acts.sync(choice("1.0.0"))
    _, analysis_id = analyse(1)
    store.analyses.finish(analysis_id, AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.AI_UNAVAILABLE), ())
    acts.install("2.0.0")
    acts.activate()
    assert store.analyses.requeue_unanalysed() == 1
    (queued,) = store.analyses.open()
    assert (queued.package_version, queued.late) == ("2.0.0", True)


def test_actor_of_every_act_stands_in_the_journal(store, acts):
    acts.install("1.0.0")
    acts.activate()
    acts.withdraw()
    actors = {str(f.kind): f.actor["name"] for f in store.journal.after(0, limit=1000) if f.subject == NAME}
    assert actors["package_installed"] == actors["package_activated"] == actors["package_withdrawn"] == PERSON.name


@pytest.mark.req("R-OPERATE-04")
def test_rebuilt_database_knows_what_serves_and_what_was_withdrawn(store, acts, clock, tmp_path):
    acts.sync(choice("1.0.0"))
    acts.point()
    acts.install("2.0.0")
    acts.activate()
    acts.withdraw()
    store.close()
    rebuilt = rebuild(tmp_path, clock, None, "a test", reserve_bytes=0)
    assert Acts(rebuilt).states() == {"1.0.0": "retired", "2.0.0": "withdrawn"}
    assert rebuilt.packages.all(NAME)[0].operating_points == {"bright-blob": "sensitive"}
    assert rebuilt.packages.folders() == {f"{NAME}/2.0.0-folder"}
    rebuilt.close()
