"""When engines are ordered and checked, what becomes an issue, and what a worker's deaths by an engine lead to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import toy_packages

from appliance.clock import FakeClock
from appliance.config import Config
from appliance.errors import StoreError
from appliance.records import Actor, ActorKind, Role
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.triage.engine_messages import Building, Built, Checked, EngineLost, NotBuilt
from appliance.triage.engine_watch import MAX_DEATHS, EngineWatch
from appliance.triage.engines import CHECK_EVERY_S, FIRST_WAIT_S, EnginesStage, engine_wish
from appliance.triage.frames import ProtocolError
from appliance.triage.protocol import Load, Loaded, Progress
from appliance.triage.worker_events import WorkerLost
from engines.manifest import Manifest

PERSON = Actor(kind=ActorKind.PERSON, name="t", role="service")


class Link:
    """What the stage asks of the worker, remembered."""

    def __init__(self):
        self.is_ready, self.is_building, self.loaded, self.told = True, False, {}, []
        self.builds, self.checks, self.cancelled = [], [], 0

    def engine_news(self):
        told, self.told = self.told, []
        return told

    def build(self, message):
        self.builds.append(message)
        self.is_building = True

    def spot_check(self, package):
        self.checks.append(package)

    def cancel_build(self):
        self.cancelled += 1


class Box:
    def __init__(self, folder, kserve=None, **engines):
        self.clock = FakeClock()
        self.config = Config.model_validate({"state_path": folder, "engines": engines, "kserve": kserve})
        self.store = Store.open(folder, self.clock, reserve_bytes=0)
        self.link = Link()
        manifest = Manifest.model_validate(toy_packages.manifest(precisions=["fp32", "fp16"]))
        running = SimpleNamespace(package=SimpleNamespace(manifest=manifest))
        self.stage = EnginesStage(
            SimpleNamespace(
                store=self.store, config=self.config, clock=self.clock, link=self.link, packages={"toy": running}
            )
        )

    def tell(self, *news):
        for one in news:
            if isinstance(one, Loaded):
                self.link.loaded[one.package] = one
            if isinstance(one, Built | NotBuilt):
                self.link.is_building = False
        self.link.told += news
        self.stage.step()

    def facts(self, kind):
        return [fact.body for fact in self.store.journal.after(0, kinds=(kind,))]

    def issues(self):
        return {one.code for one in self.store.issues.open()}


@pytest.fixture
def box(tmp_path):
    made = Box(tmp_path, precision="fp16")
    yield made
    made.store.close()


def loaded(**changes):
    fields = {"engine_digest": "r" * 64, "backend": "onnxruntime", "precision": "fp32", "ms": 1.0}
    return Loaded(package="toy", digest="d", **{**fields, **changes})


def lacking():
    return loaded(fallback="no engine has been built yet", lacks_engine=True)


def not_built(kind):
    return NotBuilt(package="toy", flavour="onnxruntime", precision="fp16", kind=kind, message="why")


BUILT = Built(package="toy", engine_digest="e" * 64, flavour="onnxruntime", precision="fp16", ms=5.0)


def test_a_wish_is_made_only_where_it_differs_from_the_reference_and_the_package_offers_it():
    manifest = Manifest.model_validate(toy_packages.manifest(precisions=["fp32", "fp16"]))

    def wish(**engines):
        return engine_wish(Config.model_validate({"engines": engines}), manifest)

    assert wish() is None
    assert wish(precision="int8") is None, "the package has no int8, and fp32 is the reference itself"
    assert wish(precision="fp16").precision == "fp16"
    assert wish(backend="tensorrt", precision="int8").precision == "fp32"


@pytest.mark.req("R-SERVE-03")
def test_what_lacks_an_engine_is_built_once_and_the_issue_ends_when_it_serves(box):
    box.tell(lacking())
    assert box.issues() == {"ENGINE_FALLBACK"}
    box.tell()
    (order,) = box.link.builds
    assert (order.package, order.flavour, order.precision) == ("toy", "onnxruntime", "fp16")
    steps = [Building(package="toy", step="build", share=s) for s in (0.0, 0.04, 0.11, 0.12)]
    box.tell(*steps, BUILT, loaded(engine_digest="e" * 64, precision="fp16"))
    assert [fact["share"] for fact in box.facts(Kind.ENGINE_BUILDING)] == [0.0, 0.0, 0.1], "tenths, not every word"
    assert box.issues() == set()
    assert box.facts(Kind.ENGINE_SERVES)[-1]["engine_digest"] == "e" * 64
    box.tell()
    assert len(box.link.builds) == 1


@pytest.mark.req("R-SERVE-04")
def test_a_build_that_crashed_is_tried_again_after_a_wait_that_doubles(box):
    box.tell(lacking())
    for n in range(3):
        assert len(box.link.builds) == n + 1
        box.tell(not_built("crash"))
        assert "ENGINE_NOT_BUILT" in box.issues()
        box.clock.advance(FIRST_WAIT_S * 2**n - 1)
        box.tell()
        assert len(box.link.builds) == n + 1, "not yet"
        box.clock.advance(2)
        box.tell()
    box.tell(BUILT)
    assert "ENGINE_NOT_BUILT" not in box.issues()


@pytest.mark.req("R-SERVE-04")
@pytest.mark.parametrize("kind", ["rejected", "cancelled", "unsupported"])
def test_what_was_rejected_or_cancelled_is_built_again_only_if_a_person_asks(box, kind):
    box.tell(lacking())
    box.tell(not_built(kind))
    box.clock.advance(10 * 3600)
    box.tell()
    assert len(box.link.builds) == 1
    assert ("ENGINE_NOT_BUILT" in box.issues()) == (kind != "cancelled")
    box.store.engines.ask_build("toy", "onnxruntime", "fp16", PERSON)
    box.tell()
    assert len(box.link.builds) == 2


@pytest.mark.req("R-SERVE-07")
def test_a_person_cancels_the_build_that_runs_and_an_unknown_package_is_told(box):
    box.tell(lacking())
    box.store.engines.ask_build("nobody", "onnxruntime", "fp16", PERSON)
    box.store.engines.ask_cancel(PERSON)
    box.tell()
    assert box.link.cancelled == 1
    assert box.facts(Kind.ENGINE_REJECTED)[0]["why"] == "nobody does not run on this box"


@pytest.mark.req("R-SERVE-07")
def test_who_asked_for_a_build_that_waits_behind_another_is_told_of_its_cancellation(box):
    box.tell(lacking())
    box.tell()
    box.store.engines.ask_build("toy", "tensorrt", "fp16", PERSON)
    box.tell()
    box.store.engines.ask_cancel(PERSON)
    box.tell()
    (rejected,) = box.facts(Kind.ENGINE_REJECTED)
    assert (rejected["flavour"], rejected["cause"]) == ("tensorrt", "cancelled")
    box.tell(not_built("cancelled"))
    box.tell()
    assert len(box.link.builds) == 1, "it is not built either"


@pytest.mark.req("R-SERVE-07")
def test_what_a_person_asked_for_outlives_a_worker_that_ends_at_that_moment(box, monkeypatch):
    box.tell(loaded(engine_digest="e" * 64, precision="fp16"))
    box.store.engines.ask_build("toy", "onnxruntime", "fp16", PERSON)

    def ended(message):
        raise WorkerLost("SIGKILL")

    with monkeypatch.context() as patch:
        patch.setattr(box.link, "build", ended)
        box.tell()
    box.tell()
    assert len(box.link.builds) == 1
    box.tell(BUILT)
    box.tell()
    assert len(box.link.builds) == 1, "once is enough"


@pytest.mark.req("R-SERVE-04")
def test_a_disk_that_fails_while_a_build_ends_keeps_no_later_build_from_beginning(box, monkeypatch):
    box.tell(lacking())
    box.tell()

    def full(package, body):
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(box.store.engines, "tell", full)
        with pytest.raises(StoreError):
            box.tell(Building(package="toy", step="accept", share=0.5), not_built("crash"))
    box.clock.advance(FIRST_WAIT_S)
    box.tell()
    assert len(box.link.builds) == 2


@pytest.mark.req("R-SERVE-05")
def test_each_package_is_checked_once_a_day_and_a_fallback_becomes_an_issue(box):
    box.tell(loaded(engine_digest="e" * 64, precision="fp16"))
    box.clock.advance(CHECK_EVERY_S - 1)
    box.tell()
    assert box.link.checks == []
    box.clock.advance(2)
    box.tell()
    box.tell()
    assert box.link.checks == ["toy"]
    failed = Checked(package="toy", engine_digest="e" * 64, ok=False, message="too far", fell_back=True)
    box.tell(failed, loaded(fallback="the engine was rejected: too far"))
    assert box.issues() == {"ENGINE_FALLBACK"}
    assert box.facts(Kind.ENGINE_CHECKED)[-1] == {**box.facts(Kind.ENGINE_CHECKED)[-1], "ok": False, "why": "too far"}
    assert box.link.builds == [], "a person must look"


def test_without_a_wish_nothing_is_built_and_a_left_issue_ends(tmp_path):
    box = Box(tmp_path)
    box.store.issues.raise_("ENGINE_FALLBACK", "toy", "warning", {})
    box.tell(loaded())
    assert (box.link.builds, box.issues()) == ([], set())
    box.store.close()


SERVER = {"address": "127.0.0.1:8001"}


@pytest.mark.req("R-KSERVE-12")
def test_a_server_that_does_not_compute_is_one_issue_until_it_computes_again(tmp_path):
    box = Box(tmp_path, kserve=SERVER, precision="fp16")
    box.tell(loaded(backend="kserve"))
    assert box.issues() == set()
    box.tell(loaded(backend="kserve+onnxruntime", fallback="the server is silent"))
    (issue,) = box.store.issues.open()
    assert (issue.code, issue.subject, issue.detail["why"]) == ("KSERVE_DEGRADED", "toy", "the server is silent")
    box.tell(loaded(backend="kserve+onnxruntime", fallback="the server has another graph"))
    (issue,) = box.store.issues.open()
    assert issue.detail["why"] == "the server has another graph"
    box.tell(loaded(backend="kserve"))
    assert box.issues() == set()
    manifest = Manifest.model_validate(toy_packages.manifest(precisions=["fp32", "fp16"]))
    assert engine_wish(box.config, manifest) is None, "a package on a server has no engine of this box"
    assert box.facts(Kind.ENGINE_FALLBACK)[0]["why"] == "the server is silent"
    box.store.close()


@pytest.mark.req("R-KSERVE-12")
def test_a_package_that_is_not_given_to_the_server_keeps_its_engine(tmp_path):
    box = Box(tmp_path, kserve={**SERVER, "packages": ["another"]}, precision="fp16")
    box.tell(lacking())
    assert box.issues() == {"ENGINE_FALLBACK"}
    box.tell()
    assert len(box.link.builds) == 1
    box.store.close()


@pytest.mark.req("R-KSERVE-12")
def test_the_issue_of_a_server_that_was_taken_out_of_the_configuration_ends(tmp_path):
    box = Box(tmp_path)
    box.store.issues.raise_("KSERVE_DEGRADED", "toy", "warning", {})
    box.tell(loaded())
    assert box.issues() == set()
    box.store.close()


LOAD = Load(package="toy", folder="/p", digest="d", role=Role.LIVE)


@pytest.mark.req("R-SERVE-05")
@pytest.mark.fault("T30")
def test_an_engine_that_ended_the_worker_too_often_is_not_opened_again_until_it_is_built_anew():
    watch = EngineWatch()
    opening = Progress(step="engine", package="toy")
    for _ in range(MAX_DEATHS - 1):
        watch.ended(opening, "SIGSEGV")
    assert watch.load(LOAD).no_engine == ""
    watch.take(EngineLost(package="toy", message="sticky"))
    assert "ended the worker" in watch.load(LOAD).no_engine
    watch.worked("toy")
    assert watch.load(LOAD).no_engine, "the result was the reference's, which says nothing about the engine"
    watch.build = BUILT
    watch.take(BUILT)
    assert watch.load(LOAD).no_engine == ""


@pytest.mark.req("R-SERVE-05")
def test_a_result_in_between_starts_the_count_anew_and_other_deaths_do_not_count():
    watch = EngineWatch()
    for _ in range(5):
        watch.ended(Progress(step="infer", analysis_id=1), "SIGKILL")
        watch.ended(Progress(step="engine", package="toy"), "SIGSEGV")
        watch.worked("toy")
    assert watch.load(LOAD) is LOAD


def test_the_end_of_a_build_that_nobody_asked_for_breaks_the_protocol():
    with pytest.raises(ProtocolError):
        EngineWatch().take(BUILT)
