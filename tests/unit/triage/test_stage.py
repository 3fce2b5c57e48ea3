"""The stages of triage on a fake clock and a fake worker: deadlines, deaths, outages, backlog, requirements."""

from __future__ import annotations

import dataclasses

import pytest
from toy_packages import make_toy_xray_package

from appliance.config import Config
from appliance.records import AnalysisResult, DeliveryKind, Detail, FindingResult, Outcome, Reason, Region, VersionState
from appliance.store.facts import Kind
from appliance.store.studies import Change
from appliance.triage.packages import Now, RunningPackages, owed_results
from appliance.triage.protocol import Compared, Failed, Result, Scored
from appliance.triage.stage import Bench, PrefetchStage, RoutingStage, RunStage
from appliance.triage.worker_events import WorkerEnded, WorkerLost, WorkerReady, WorkerTimedOut

DX = "1.2.840.10008.5.1.4.1.1.1.1"


class FakeLink:
    """Answers as a test tells it to; remembers what it was asked."""

    def __init__(self):
        self.is_ready = True
        self.is_loading = False
        self.served = []
        self.ready_since_mono = 0.0
        self.happened = []
        self.answers = []
        self.asked = []
        self.wanted = None
        self.lost_comparisons = 0

    def events(self):
        happened, self.happened = self.happened, []
        return happened

    def want(self, wanted):
        self.wanted = wanted

    def serve(self, loads):
        self.served.append({load.package: load for load in loads})

    def finish(self, analysis_id, package, inputs, *, limit_s, study="", operating_points=None):
        self.asked.append((analysis_id, limit_s))
        answer = self.answers.pop(0) if self.answers else 0.0
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(analysis_id)
        if isinstance(answer, Failed):
            return answer
        score = Scored(id="bright-blob", score=answer)
        return Result(
            analysis_id=analysis_id,
            findings=(score,),
            package_digest="p",
            engine_digest="e",
            backend="fake",
            precision="fp32",
        )

    def compare(self, path_a, path_b):
        if self.lost_comparisons:
            self.lost_comparisons -= 1
            raise WorkerLost("the worker ended")
        return Compared(request_id=1, same=True)

    def drop(self, series_key):
        pass


def died(clock, analysis_id=None, series_key=""):
    return WorkerEnded(
        at_mono=clock.monotonic(), pid=1, why="signal 11", analysis_id=analysis_id, series_key=series_key
    )


def alive(clock):
    return WorkerReady(at_mono=clock.monotonic(), pid=2, packages={"toy-bright-blob": "d"}, refused={})


@pytest.fixture
def bench(store, clock, tmp_path):
    folder = make_toy_xray_package(tmp_path / "toy")
    config = Config.model_validate(
        {
            "state_path": tmp_path,
            "packages": [{"name": "toy-bright-blob", "role": "live"}],
            "destinations": [
                {"kind": "dicom", "name": "TEST", "purpose": "test", "host": "h", "port": 1, "ae_title": "T"},
                {"kind": "dicom", "name": "REAL", "host": "h", "port": 1, "ae_title": "R"},
            ],
        }
    )
    return Bench(
        store=store, config=config, clock=clock, link=FakeLink(), packages=RunningPackages(store, config, [folder])
    )


@pytest.fixture
def routing(bench, clock):
    stage = RoutingStage(bench, wake_runner=lambda: None)
    bench.link.happened.append(alive(clock))
    stage.step()
    return stage


@pytest.fixture
def runner(bench):
    return RunStage(bench, wake_delivery=lambda: None)


@pytest.fixture
def arrive(store, routing, make_header, receive):
    """A new chest X-ray study, READY and routed; returns its study id."""

    def make(n):
        header = make_header(
            n,
            study_instance_uid=f"1.9.{n}",
            series_instance_uid=f"1.9.{n}.1",
            sop_class_uid=DX,
            modality="DX",
            body_part_examined="CHEST",
            view_position="PA",
            image_orientation_patient=None,
            image_position_patient=None,
        )
        stored = store.studies.add_new(receive(header), ())
        for series in store.revisions.open_series():
            store.revisions.make_ready(store.revisions.evidence(series), "single_image", {})
        routing.step()
        return stored.study_id

    return make


def ending(store, study_id):
    row = store.db.one("SELECT outcome, reason FROM study WHERE id = ?", (study_id,))
    return row["outcome"], row["reason"]


def codes(store):
    return [issue.code for issue in store.issues.open()]


def test_a_package_that_is_withdrawn_while_a_slice_is_announced_stops_no_other_slice(
    store, bench, make_header, receive, monkeypatch
):
    stage = PrefetchStage(bench)
    store.studies.add_new(receive(make_header(1)), ())
    looks = [store.packages.all(), []]
    monkeypatch.setattr(store.packages, "all", lambda: looks.pop(0) if len(looks) > 1 else looks[0])
    assert stage.step()
    assert len(looks) == 1, "it has looked"


def test_score_above_the_operating_point_is_a_finding(store, runner, arrive, bench):
    study_id = arrive(1)
    bench.link.answers = [0.99]
    assert runner.step()
    assert ending(store, study_id) == (Outcome.FINDING, None)


@pytest.mark.fault("T34")
def test_study_that_ends_the_worker_twice_is_failed_and_the_next_one_runs(store, runner, arrive, bench):
    poison, healthy = arrive(1), arrive(2)
    bench.link.answers = [
        lambda analysis_id: (_ for _ in ()).throw(WorkerLost("signal 11", analysis_id)),
        lambda analysis_id: (_ for _ in ()).throw(WorkerLost("signal 11", analysis_id)),
        0.0,
    ]
    while runner.step():
        pass
    assert ending(store, poison) == (Outcome.NOT_ANALYSED, Reason.FAILED)
    assert ending(store, healthy) == (Outcome.NOTHING_FLAGGED, None)


def test_study_that_merely_waited_while_the_worker_died_is_not_blamed(store, runner, arrive, bench):
    study_id = arrive(1)
    bench.link.answers = [WorkerLost("not asked for", None)] * 2 + [0.0]
    for _ in range(3):
        runner.step()
    assert ending(store, study_id) == (Outcome.NOTHING_FLAGGED, None)


@pytest.mark.fault("T29")
def test_analysis_over_its_limit_is_timed_out(store, runner, arrive, bench):
    study_id = arrive(1)
    bench.link.answers = [lambda analysis_id: (_ for _ in ()).throw(WorkerTimedOut("no answer", analysis_id))]
    runner.step()
    assert ending(store, study_id) == (Outcome.NOT_ANALYSED, Reason.TIMED_OUT)


@pytest.mark.fault("T31")
def test_output_without_a_usable_score_is_neither_finding_nor_nothing(store, runner, arrive, bench):
    study_id = arrive(1)
    bench.link.answers = [
        lambda n: Failed(analysis_id=n, reason=Reason.UNRELIABLE_OUTPUT, details=(Detail("no number"),))
    ]
    runner.step()
    assert ending(store, study_id) == (Outcome.NOT_ANALYSED, Reason.UNRELIABLE_OUTPUT)


@pytest.mark.req("R-TRIAGE-12")
def test_limit_shrinks_with_what_is_left_of_the_deadline(runner, arrive, bench, clock):
    arrive(1)
    clock.advance(28)
    runner.step()
    ((_, limit_s),) = bench.link.asked
    assert limit_s <= 2.0


@pytest.mark.req("R-TRIAGE-12")
def test_study_that_waits_past_its_deadline_is_timed_out_by_the_second(store, routing, arrive, bench, clock):
    study_id = arrive(1)
    clock.advance(29.9)
    routing.step()
    assert ending(store, study_id) == (None, None)
    clock.advance(0.1)
    routing.step()
    assert ending(store, study_id) == (Outcome.NOT_ANALYSED, Reason.TIMED_OUT)


@pytest.mark.fault("T29")
@pytest.mark.req("R-TRIAGE-03")
def test_three_deaths_on_three_studies_raise_ai_unavailable_until_a_worker_is_ready(
    store, routing, arrive, bench, clock
):
    studies = [arrive(n) for n in (1, 2, 3)]
    bench.link.is_ready = False
    bench.link.happened += [died(clock, analysis_id=n) for n in (1, 2, 3)]
    routing.step()
    assert codes(store) == ["AI_UNAVAILABLE"]
    assert bench.link.wanted is False
    clock.advance(60)
    routing.step()
    assert bench.link.wanted is True, "tried again after 60 s"
    assert {ending(store, one) for one in studies} == {(Outcome.NOT_ANALYSED, Reason.AI_UNAVAILABLE)}
    bench.link.is_ready = True
    bench.link.happened.append(alive(clock))
    routing.step()
    assert codes(store) == []


@pytest.mark.req("R-TRIAGE-06")
@pytest.mark.req("R-TRIAGE-04")
def test_hours_of_outage_become_one_summary_line_and_no_chime(store, routing, runner, arrive, bench, clock):
    bench.link.is_ready = False
    bench.link.happened.append(died(clock))
    routing.step()
    clock.advance(11)
    routing.step()
    assert codes(store) == ["AI_UNAVAILABLE"]
    studies = []
    for n in range(1, 101):
        studies.append(arrive(n))
        clock.advance(108)
        routing.step()
    assert {ending(store, one) for one in studies} == {(Outcome.NOT_ANALYSED, Reason.AI_UNAVAILABLE)}
    bench.link.is_ready = True
    bench.link.happened.append(alive(clock))
    routing.step()
    bench.link.answers = [0.99] + [0.0] * 99
    while runner.step():
        pass
    routing.step()
    order = [store.analyses.study_of(analysis_id) for analysis_id, _ in bench.link.asked]
    assert order == studies[::-1], "newest first"
    alerts = store.db.all("SELECT chime FROM alert")
    assert [row["chime"] for row in alerts] == [0]
    lines = [fact.body for fact in store.journal.after(0, limit=100_000) if fact.kind is Kind.BACKLOG_DONE]
    assert [(line["studies"], line["findings"]) for line in lines] == [(100, 1)]


def test_death_while_images_were_prepared_ahead_counts_for_their_study(store, routing, arrive, bench, clock):
    study_id = arrive(1)
    series = store.db.one("SELECT id FROM series WHERE study_id = ?", (study_id,))["id"]
    bench.link.happened.append(died(clock, series_key=str(series)))
    routing.step()
    assert store.db.one("SELECT worker_deaths FROM study WHERE id = ?", (study_id,))[0] == 1


@pytest.mark.req("R-STORE-11")
def test_evaluation_mode_owes_results_to_test_destinations_only(store, runner, arrive, bench):
    arrive(1)
    bench.link.answers = [0.99]
    runner.step()
    assert [row["destination"] for row in store.db.all("SELECT destination FROM delivery")] == ["TEST"]


@pytest.mark.req("R-STORE-05")
def test_nothing_flagged_is_sent_only_where_the_destination_asks_for_it(bench):
    nothing = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
    assert owed_results(bench.config, "toy-bright-blob", nothing) == ()


@pytest.mark.req("R-REPORT-07")
@pytest.mark.parametrize(("use", "kinds"), [("triage", {"sr", "ko"}), ("detection", {"sr", "ko", "gsps"})])
def test_a_destination_is_owed_the_objects_that_it_asks_for_and_that_the_result_allows(bench, use, kinds):
    region = Region(sop_instance_uid="1.2", kind="box", points=((1, 1), (5, 5)), finding="bleed")
    found = FindingResult(
        id="bleed", score=1.0, operating_point="p", threshold=0.5, flagged=True, category=1, regions=(region,)
    )
    result = AnalysisResult(outcome=Outcome.FINDING, findings=(found,))
    destination = bench.config.destinations[-1].model_copy(
        update={"send": tuple(kind for kind in DeliveryKind if kind is not DeliveryKind.STATEMENT), "purpose": "test"}
    )
    config = bench.config.model_copy(update={"destinations": (destination,)})
    owed = {str(one.kind) for one in owed_results(config, "toy", result, intended_use=use)}
    assert owed == {*kinds, "rejection_note"}, "the wish for notes goes with the objects"


class Fixed:
    """Packages that never change."""

    def __init__(self, running):
        self._now = Now(running)

    def now(self):
        return self._now

    def loads(self, now):
        return []


class Requiring:
    """The toy package as if it required a quality package."""

    def __new__(cls, running, on_fail):
        from engines.manifest import Requirement

        manifest = running.package.manifest.model_copy(
            update={"requires": (Requirement(package="quality", on_fail=on_fail),)}
        )
        return dataclasses.replace(running, package=dataclasses.replace(running.package, manifest=manifest))


@pytest.mark.req("R-TRIAGE-10")
@pytest.mark.parametrize(
    ("on_fail", "expected"),
    [("not_analysed", (Outcome.NOT_ANALYSED, Reason.QUALITY)), ("caveat", (Outcome.NOTHING_FLAGGED, None))],
)
def test_required_package_without_a_result_decides_what_this_one_is_worth(store, bench, arrive, on_fail, expected):
    study_id = arrive(1)
    packages = Fixed({name: Requiring(one, on_fail) for name, one in bench.packages.items()})
    RunStage(dataclasses.replace(bench, packages=packages), wake_delivery=lambda: None).step()
    assert ending(store, study_id) == expected


@pytest.mark.parametrize(
    ("losses", "state"), [(0, VersionState.KEPT), (1, VersionState.KEPT), (2, VersionState.CONFLICT)]
)
def test_comparison_that_keeps_ending_the_worker_is_left_to_a_person(
    store, runner, bench, make_header, receive, losses, state
):
    store.studies.add_new(receive(make_header()), ())
    store.studies.add_version(receive(make_header()), store.studies.versions("1.2.3.4.1"), Change.COMPARING, ())
    bench.link.lost_comparisons = losses
    for _ in range(3):
        runner.step()
    assert store.studies.versions("1.2.3.4.1")[1].state is state
