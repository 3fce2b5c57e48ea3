"""Packages that change while studies flow: seen by every stage without a restart, and no study is lost over it."""

from __future__ import annotations

import pytest
from package_rows_kit import NAME, Acts
from toy_packages import make_toy_xray_package

from appliance.config import Config
from appliance.errors import ConfigError
from appliance.records import Outcome, Reason, Role, Severity
from appliance.store.package_rules import Terms
from appliance.triage.package_stage import PackagesStage
from appliance.triage.packages import RunningPackages
from appliance.triage.protocol import Result, Scored
from appliance.triage.stage import Bench, RoutingStage, RunStage
from appliance.triage.worker_events import PackagesChanged, WorkerReady

DX = "1.2.840.10008.5.1.4.1.1.1.1"


class FakeLink:
    """A worker that has what it was told to load, and scores by version."""

    def __init__(self):
        self.is_ready, self.is_loading, self.ready_since_mono = True, False, 0.0
        self.loads, self.asked, self.happened, self.wanted = {}, [], [], None
        self.scores = {}
        self.meanwhile = lambda: None

    def events(self):
        happened, self.happened = self.happened, []
        return happened

    def want(self, wanted):
        self.wanted = wanted

    def serve(self, loads):
        self.loads = {load.package: load for load in loads}

    def finish(self, analysis_id, package, inputs, *, limit_s, study="", operating_points=None):
        assert package in self.loads, f"{package} is not loaded"
        self.asked.append(package)
        self.points = dict(operating_points)
        self.meanwhile()
        score = Scored(id="bright-blob", score=self.scores.get(package, 0.0))
        return Result(
            analysis_id=analysis_id,
            findings=(score,),
            package_digest=self.loads[package].digest,
            engine_digest="e",
            backend="fake",
            precision="fp32",
        )

    def drop(self, series_key):
        pass


class Box:
    """Store, stages and a worker that is played, driven step by step."""

    def __init__(self, store, clock, tmp_path, role="live"):
        folder = make_toy_xray_package(
            tmp_path / "toy", status="cleared", regulatory={"EU": {"class": "I", "number": "1"}}
        )
        document = {"state_path": tmp_path, "packages": [{"name": NAME, "role": role}], "site": {"mode": "evaluation"}}
        self.store, self.acts = store, Acts(store)
        self.config, self.folder = Config.model_validate(document), folder
        self.link = FakeLink()
        self.packages = RunningPackages(store, self.config, [folder])
        bench = Bench(store=store, config=self.config, clock=clock, link=self.link, packages=self.packages)
        self.changes = []
        self.stages = [
            PackagesStage(bench, on_change=lambda: self.changes.append(1), wake_routing=lambda: None),
            RoutingStage(bench, wake_runner=lambda: None),
            RunStage(bench, wake_delivery=lambda: None),
        ]
        self.link.happened.append(WorkerReady(at_mono=clock.monotonic(), pid=1, packages={}, refused={}))

    def step(self, rounds=3):
        """Let every stage work until nothing is left."""
        for _ in range(rounds):
            for stage in self.stages:
                while stage.step():
                    pass

    def route(self):
        self.stages[1].step()

    def outcome(self, study_id):
        row = self.store.db.one("SELECT outcome, reason FROM study WHERE id = ?", (study_id,))
        return row["outcome"], row["reason"]

    def analyses(self, study_id):
        rows = self.store.db.all(
            "SELECT package_version, role, outcome FROM analysis WHERE study_id = ? AND superseded_by IS NULL"
            " ORDER BY role, id",
            (study_id,),
        )
        return [tuple(row) for row in rows]


@pytest.fixture
def box(store, clock, tmp_path):
    return Box(store, clock, tmp_path)


@pytest.fixture
def arrive(store, make_header, receive):
    def make(n, series=1, body_part="CHEST"):
        header = make_header(
            n * 10 + series,
            study_instance_uid=f"1.9.{n}",
            series_instance_uid=f"1.9.{n}.{series}",
            sop_class_uid=DX,
            modality="DX",
            body_part_examined=body_part,
            view_position="PA",
            image_orientation_patient=None,
            image_position_patient=None,
        )
        study_id = store.studies.add_new(receive(header), ()).study_id
        for one in store.revisions.open_series():
            store.revisions.make_ready(store.revisions.evidence(one), "single_image", {})
        return study_id

    return make


@pytest.mark.req("R-OPERATE-10")
def test_second_version_joins_and_takes_over_without_a_restart_and_without_a_reload(box, arrive):
    first = arrive(1)
    box.step()
    box.acts.install("2.0.0")
    box.step()
    assert list(box.link.loads) == [NAME], "what is only installed is not loaded"
    box.acts.activate(terms=Terms(days=0.0, studies=1))
    box.link.scores = {NAME: 0.0, f"{NAME}@2.0.0": 0.9}
    second = arrive(2)
    box.step(1)
    assert box.analyses(second) == [("1.0.0", "live", "NOTHING_FLAGGED"), ("2.0.0", "silent", "FINDING")]
    assert box.link.asked == [NAME, NAME, f"{NAME}@2.0.0"], "the live one goes first"
    assert box.outcome(second) == (Outcome.NOTHING_FLAGGED, None)
    box.acts.store.packages.promote_due(box.packages.owed)
    third = arrive(3)
    box.step()
    assert box.analyses(third) == [("2.0.0", "live", "FINDING")]
    assert list(box.link.loads) == [f"{NAME}@2.0.0"], "it keeps its key, so the worker need not load it again"
    assert box.analyses(first) == [("1.0.0", "live", "NOTHING_FLAGGED")], "old studies are left alone"
    assert box.outcome(third) == (Outcome.FINDING, None)


@pytest.mark.req("R-OPERATE-10")
def test_study_that_waited_for_the_old_version_is_analysed_by_the_new_one(box, arrive, store):
    study_id = arrive(1)
    box.route()
    box.acts.install("2.0.0")
    box.acts.activate()
    box.step()
    assert box.analyses(study_id) == [("2.0.0", "live", "NOTHING_FLAGGED")]
    (row,) = store.db.all("SELECT predecessor FROM analysis WHERE superseded_by IS NULL")
    assert row["predecessor"] is None, "nothing was told yet, so it revises nothing"


@pytest.mark.req("R-OPERATE-10")
def test_version_that_is_replaced_while_the_worker_has_its_study_still_ends_it(box, arrive):
    study_id = arrive(1)
    box.acts.install("2.0.0")
    box.step()
    waiting = arrive(2)
    box.route()

    def replace():
        box.link.meanwhile = lambda: None
        box.acts.activate()

    box.link.meanwhile = replace
    box.link.scores = {NAME: 0.9}
    box.step()
    assert box.analyses(waiting) == [("1.0.0", "live", "FINDING")]
    assert box.analyses(study_id) == [("1.0.0", "live", "NOTHING_FLAGGED")]


@pytest.mark.req("R-OPERATE-04")
def test_withdrawn_package_claims_on_as_not_analysed_until_something_serves(box, arrive):
    box.acts.install("2.0.0")
    box.acts.activate()
    before = arrive(1)
    box.step()
    box.acts.withdraw()
    during = arrive(2)
    box.step()
    assert box.outcome(before) == (Outcome.NOTHING_FLAGGED, None)
    assert box.outcome(during) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    assert box.link.loads == {}
    box.acts.roll_back()
    after = arrive(3)
    box.step()
    assert box.analyses(after) == [("1.0.0", "live", "NOTHING_FLAGGED")]
    assert box.outcome(during) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN), "it is not analysed behind anybody's back"


def test_withdrawal_in_the_middle_of_an_analysis_wins(box, arrive):
    study_id = arrive(1)
    box.link.scores = {NAME: 0.9}
    box.link.meanwhile = box.acts.withdraw
    box.step()
    assert box.outcome(study_id) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    assert box.store.db.all("SELECT * FROM alert") == []


@pytest.mark.req("R-OPERATE-05")
def test_other_operating_point_counts_for_later_analyses_only(box, arrive):
    box.link.scores = {NAME: 0.4}
    before = arrive(1)
    box.step()
    box.acts.point(point="sensitive")
    after = arrive(2)
    box.step()
    assert box.outcome(before) == (Outcome.NOTHING_FLAGGED, None)
    assert box.outcome(after) == (Outcome.FINDING, None)
    assert box.link.points == {"bright-blob": "sensitive"}, "the worker outlines what this point flags"


@pytest.mark.parametrize(("body_part", "roles"), [("KNEE", ["silent"]), ("CHEST", ["live", "silent"])])
def test_package_that_went_live_takes_new_images_of_an_old_study_but_not_its_old_ones(
    store, clock, tmp_path, arrive, body_part, roles
):
    box = Box(store, clock, tmp_path, role="silent")
    study_id = arrive(1)
    box.step()
    box.acts.activate()
    box.step()
    arrive(1, series=2, body_part=body_part)
    box.step()
    assert [role for _, role, _ in box.analyses(study_id)] == roles


def test_last_package_that_goes_needs_no_worker_and_is_no_outage(box, arrive, store, clock):
    box.step()
    box.acts.withdraw()
    box.step()
    assert box.link.wanted is False
    clock.advance(3600)
    box.step()
    assert [issue.code for issue in store.issues.open()] == ["PACKAGE_WITHDRAWN"]
    box.acts.activate()
    box.step()
    assert box.link.wanted is True
    assert [issue.code for issue in store.issues.open()] == []


def test_refusal_by_the_worker_is_an_issue_until_that_version_is_gone(box, store, clock):
    box.step()
    box.acts.install("2.0.0")
    box.acts.activate(terms=Terms(days=1, studies=1))
    box.step()
    refused = {f"{NAME}@2.0.0": "altered"}
    box.link.happened.append(PackagesChanged(at_mono=clock.monotonic(), packages={}, refused=refused))
    box.step()
    assert [(i.code, i.subject) for i in store.issues.open()] == [("PACKAGE_REFUSED", f"{NAME}@2.0.0")]
    for code in ("ENGINE_FALLBACK", "ENGINE_NOT_BUILT", "KSERVE_DEGRADED"):
        store.issues.raise_(code, f"{NAME}@2.0.0", Severity.WARNING)
    box.acts.withdraw("2.0.0")
    box.step()
    assert store.issues.open() == []


@pytest.mark.req("R-OPERATE-11")
def test_installed_package_is_loaded_with_the_site_s_keys_and_a_bundled_one_without(store, clock, tmp_path):
    from engines.signing import generate

    box = Box(store, clock, tmp_path)
    (tmp_path / "maker.pub").write_text(generate().public.pem())
    config = box.config.model_copy(update={"trusted_keys": (tmp_path / "maker.pub",)})
    box.acts.install("2.0.0")
    box.acts.activate(terms=Terms(days=1, studies=1))
    loads = {load.package: load for load in RunningPackages(store, config, [box.folder]).loads()}
    assert loads[NAME].keys == ()
    assert loads[f"{NAME}@2.0.0"].keys == ((tmp_path / "maker.pub").read_text(),)
    assert loads[f"{NAME}@2.0.0"].folder == str(tmp_path / "packages" / NAME / "2.0.0-folder")


@pytest.mark.req("R-OPERATE-11")
def test_key_that_cannot_be_read_is_a_fault_of_the_configuration(store, clock, tmp_path):
    box = Box(store, clock, tmp_path)
    config = box.config.model_copy(update={"trusted_keys": (tmp_path / "nowhere.pub",)})
    with pytest.raises(ConfigError, match=r"trusted_keys: .*nowhere\.pub"):
        RunningPackages(store, config, [box.folder])


def test_installed_demonstrator_keeps_a_clinical_box_from_starting_with_the_way_out(store, clock, tmp_path):
    box = Box(store, clock, tmp_path)
    box.acts.install("2.0.0")
    box.acts.activate(terms=Terms(days=1, studies=1))
    site = box.config.site.model_copy(update={"mode": "clinical"})
    silent = box.config.packages[0].model_copy(update={"role": Role.SILENT})
    config = box.config.model_copy(update={"site": site, "packages": (silent,)})
    with pytest.raises(ConfigError, match="scanside model withdraw"):
        RunningPackages(store, config, [box.folder])


def test_texts_are_known_for_every_version_the_box_has_had(box):
    box.acts.install("2.0.0")
    box.acts.activate()
    known = box.packages.known()
    assert {name: live for name, (_, live) in known.items()} == {
        NAME: True,
        f"{NAME}@1.0.0": False,
        f"{NAME}@2.0.0": False,
    }
    assert known[NAME][0].version == "2.0.0"
    box.step()
    assert box.changes
