"""What a required quality package decides: ``cxr-triage`` never passes silently over an image that is at fault."""

from __future__ import annotations

import pytest

from appliance.config import Config
from appliance.errors import ConfigError
from appliance.records import AnalysisResult, Detail, FindingResult, Outcome, Reason
from appliance.triage.packages import RunningPackages
from appliance.triage.protocol import Result, Scored
from appliance.triage.requirements import standing
from appliance.triage.stage import Bench, RoutingStage, RunStage
from appliance.triage.worker_events import WorkerReady
from engines.manifest import Requirement
from engines.package import bundled_packages, load_package

QUALITY, TRIAGE = "cxr-quality", "cxr-triage"
FAILED = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED)
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def finding(name, *, flagged):
    return FindingResult(id=name, score=0.9 if flagged else 0.1, operating_point="o", threshold=0.5, flagged=flagged)


def result(*flagged, warnings=()):
    findings = tuple(finding(name, flagged=name in flagged) for name in ("upside-down", "cut-off"))
    return AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, findings=findings, warnings=warnings)


def requires(on_fail="not_analysed"):
    return [Requirement(package="image-quality", on_fail=on_fail, caveats=("cut-off",))]


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-TRIAGE-10")
def test_nothing_flagged_by_a_required_package_leaves_the_result_alone():
    held = standing(requires(), {"image-quality": result()})
    assert (held.refusal, held.caveats) == ((), ())


@pytest.mark.req("R-TRIAGE-10")
def test_a_flagged_finding_of_a_required_package_fails_by_its_name():
    held = standing(requires(), {"image-quality": result("upside-down", "cut-off")})
    assert [str(detail) for detail in held.refusal] == [
        "image-quality, which this analysis requires, warns of upside-down",
        "image-quality, which this analysis requires, warns of cut-off",
    ]


@pytest.mark.req("R-TRIAGE-10")
def test_a_finding_that_only_limits_is_a_caveat_though_others_would_refuse():
    held = standing(requires(), {"image-quality": result("cut-off")})
    assert held.refusal == ()
    assert [str(detail) for detail in held.caveats] == ["image-quality, which this analysis requires, warns of cut-off"]


@pytest.mark.req("R-TRIAGE-10")
def test_where_the_manifest_asks_for_caveats_nothing_refuses():
    held = standing(requires("caveat"), {"image-quality": result("upside-down", warnings=(Detail("dark"),))})
    assert held.refusal == ()
    assert [str(detail) for detail in held.caveats][-1] == "dark"
    assert len(held.caveats) == 3


@pytest.mark.req("R-TRIAGE-10")
@pytest.mark.parametrize(
    "results",
    [
        {},
        {"image-quality": None},
        {"image-quality": AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED)},
    ],
    ids=["does not run", "open", "failed"],
)
def test_a_required_package_without_a_result_never_passes_for_one_that_found_nothing(results):
    (detail,) = standing(requires(), results).refusal
    assert str(detail) == "image-quality, which this analysis requires, gave no result"


# -- the box, with the packages that ship ------------------------------------------------------------------------------


class Link:
    """A worker that gives each package's findings the scores that a test wants."""

    def __init__(self, packages):
        self.packages, self.high, self.asked = packages, set(), []
        self.is_ready, self.is_loading, self.ready_since_mono = True, False, 0.0
        self.happened = [WorkerReady(at_mono=0.0, pid=2, packages={p.name: "d" for p in packages}, refused={})]

    def events(self):
        happened, self.happened = self.happened, []
        return happened

    def want(self, wanted):
        pass

    def serve(self, loads):
        pass

    def drop(self, series_key):
        pass

    def finish(self, analysis_id, package, inputs, *, limit_s, study="", operating_points=None):
        self.asked.append(package)
        (asked,) = [one for one in self.packages if package.startswith(one.name)]
        findings = tuple(Scored(id=f.id, score=1.0 if f.id in self.high else 0.0) for f in asked.manifest.findings)
        made = {"package_digest": "p", "engine_digest": "e", "backend": "fake", "precision": "fp32"}
        return Result(analysis_id=analysis_id, findings=findings, **made)


@pytest.fixture
def run(store, clock, tmp_path, make_header, receive):
    """One chest film through routing and analysis; by package: its result."""
    folders = bundled_packages()
    link = Link([load_package(folders[name]) for name in (QUALITY, TRIAGE)])

    def go(*high, quality="live"):
        entries = [{"name": QUALITY, "role": quality}, {"name": TRIAGE, "role": "live"}]
        config = Config.model_validate({"state_path": tmp_path, "packages": entries})
        link.high = set(high)
        bench = Bench(store=store, config=config, clock=clock, link=link, packages=RunningPackages(store, config, []))
        routing = RoutingStage(bench, wake_runner=lambda: None)
        routing.step()
        film = {"sop_class_uid": DX, "modality": "DX", "body_part_examined": "CHEST", "view_position": "PA"}
        header = make_header(1, **film, image_orientation_patient=None, image_position_patient=None)
        study = store.studies.add_new(receive(header), ()).study_id
        for series in store.revisions.open_series():
            store.revisions.make_ready(store.revisions.evidence(series), "single_image", {})
        routing.step()
        runner = RunStage(bench, wake_delivery=lambda: None)
        for _ in range(6):
            runner.step()
        return store.analyses.of_study(study)

    go.link = link
    return go


@pytest.mark.req("R-CXRQ-04")
@pytest.mark.parametrize("fault", ["not-a-chest", "rotated-90", "rotated-180", "inverted", "blank", "double-exposure"])
def test_a_film_at_fault_is_not_analysed_for_quality_and_says_which_fault(run, fault):
    ended = run(fault, "effusion")
    assert [f.id for f in ended[QUALITY].findings if f.flagged] == [fault]
    assert ended[QUALITY].outcome is Outcome.NOTHING_FLAGGED
    assert (ended[TRIAGE].outcome, ended[TRIAGE].reason) == (Outcome.NOT_ANALYSED, Reason.QUALITY)
    assert f"{QUALITY}, which this analysis requires, warns of {fault}" in ended[TRIAGE].detail


@pytest.mark.req("R-CXRQ-04")
def test_lungs_that_are_cut_off_limit_what_triage_says_and_do_not_silence_it(run):
    ended = run("lung-bases-cropped", "effusion")
    assert ended[TRIAGE].outcome is Outcome.FINDING
    assert [str(caveat) for caveat in ended[TRIAGE].caveats] == [
        f"{QUALITY}, which this analysis requires, warns of lung-bases-cropped"
    ]


@pytest.mark.req("R-CXRQ-04")
def test_a_good_film_is_looked_at_by_quality_first_and_has_no_caveat(run):
    ended = run("effusion")
    assert (ended[TRIAGE].outcome, ended[TRIAGE].caveats) == (Outcome.FINDING, ())
    assert [name.partition("@")[0] for name in run.link.asked] == [QUALITY, TRIAGE]


@pytest.mark.req("R-CXRQ-04")
def test_quality_that_is_not_live_leaves_live_triage_without_what_it_requires(run):
    ended = run("effusion", quality="silent")
    assert (ended[TRIAGE].outcome, ended[TRIAGE].reason) == (Outcome.NOT_ANALYSED, Reason.QUALITY)
    assert "gave no result" in ended[TRIAGE].detail


@pytest.mark.req("R-CXRQ-04")
def test_a_configuration_without_the_required_package_is_refused_by_name(store, tmp_path):
    config = Config.model_validate({"state_path": tmp_path, "packages": [{"name": TRIAGE, "role": "live"}]})
    with pytest.raises(ConfigError, match=f"requires {QUALITY}; add it"):
        RunningPackages(store, config, []).now()


@pytest.mark.req("R-CXRQ-04")
def test_each_fault_that_only_limits_triage_is_one_that_quality_looks_for():
    quality, triage = (load_package(bundled_packages()[name]).manifest for name in (QUALITY, TRIAGE))
    (required,) = triage.requires
    assert (required.package, required.on_fail) == (QUALITY, "not_analysed")
    assert set(required.caveats) == {f.id for f in quality.findings if f.id.startswith("lung-")}
