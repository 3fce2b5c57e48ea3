"""Issue by issue, what a box knows of itself: each figure is on its screens, on its command line and with the fleet."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
import yaml
from admin_kit import FakeTools, engine, served
from click.testing import CliRunner

from appliance.cli import main
from appliance.clock import FakeClock
from appliance.config import Config
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.rollups import RollupStage
from appliance.records import AnalysisResult, FindingResult, Outcome, Reason, Severity
from appliance.store import Store, drift, usual_hours
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.box import DaemonStarted
from appliance.store.facts.packages import EngineRejected
from appliance.store.health_samples import Sample
from engines.package import bundled_packages

pytestmark = pytest.mark.req("R-FLEET-91")
NAME = "head-ct-hyperdensity"
MANIFEST = (bundled_packages()[NAME] / "model.yaml").read_text(encoding="utf-8")
SAMPLE = Sample(
    cpu_percent=41.0,
    memory_percent=42.0,
    disk_percent=43.0,
    disk_wear_percent=44.0,
    temperature_c=45.0,
    throttled=1.0,
    gpu_percent=46.0,
    gpu_memory_percent=47.0,
    gpu_temperature_c=48.0,
)
#: The figure as the issue calls it: on the page of health, in what ``scanside status --json`` says, in ``up/health``
#: or a record of its kind. A dot leads into a part, a number into a list.
FIGURES = {
    "CPU": ("Processor (%)", None, "health machine.cpu"),
    "memory": ("Memory (%)", None, "health machine.memory"),
    "disk": ("Disk (%)", None, "health machine.disk"),
    "disk wear": ("Disk, used up of its life (%)", None, "health machine.disk_wear"),
    "temperature": ("Temperature, hottest sensor (°C)", None, "health machine.temperature_c"),
    "throttling": ("Held back by heat or power", None, "health machine.throttled"),
    "GPU": ("GPU, busy (%)", None, "health machine.gpu"),
    "GPU memory": ("GPU, memory used (%)", None, "health machine.gpu_memory"),
    "GPU temperature": ("Temperature, GPU (°C)", None, "health machine.gpu_temperature_c"),
    "clock": ('data-clock="', "fares.clock", "health clk"),
    "clock against the server": ("+1.5 s against the fleet", "fares.skew_s", "health skew_ms"),
    "queues": ("studies that arrive: 1 · analyses: 1", "fares.waiting", "health waiting"),
    "oldest age": ("oldest object for a destination: 100 min", "fares.oldest_s", "health oldest_owed_s"),
    "source silence": ("Silent at its usual hours", "fares.sources.0.is_silent", "health sources.0.silent_too_long"),
    "engine states": ('data-engine="rejected"', None, "engine state"),
    "restarts": ("Starts of the software</dt><dd>2<", "fares.restarts", "health restarts_24h"),
    "latency p50": ("p50 0.5 s", "fares.p50_ms", "health ms.p50"),
    "latency p95": ("p95 0.5 s", "fares.p95_ms", "health ms.p95"),
    "latency p99": ("p99 0.5 s", "fares.p99_ms", "health ms.p99"),
    "outcome rates": ('<td class="num">3</td>', "fares.models.0.not_analysed", "results not_analysed.timed_out"),
    "positive rate": ("6 <span", "fares.models.0.flagged", "results flagged.bleed"),
    "drift of scores": ("bleed</span>", "fares.models.0.psi.bleed", "results psi.bleed"),
    "drift of images": ("image-hu</span>", "fares.models.0.psi.image-hu", "results psi.image-hu"),
    "make and model": ("SIEMENS X", "fares.sources.0.machine.make", "equipment make"),
    "kernels": ("<td>B30s</td>", "fares.sources.0.machine.kernels.0", "equipment kernels.0"),
    "issues": ("<code>ENGINE_FALLBACK</code>", "box.issues.0.code", "health issues.0.code"),
}


def found(document, path):
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list | tuple) else document[part]
    return document


@pytest.fixture(scope="module")
def lived(tmp_path_factory, scenes):
    """A box that has all of it: its pages, what its command line says, and what its link tells."""
    folder = tmp_path_factory.mktemp("figures")
    clock = FakeClock(datetime.now(timezone.utc) - timedelta(seconds=7200))
    store = Store.open(folder / "state", clock, reserve_bytes=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "BASELINE", 120)
        patch.setattr(usual_hours.Usual, "is_silent", lambda *_: True)
        yield _seen(folder, store, clock, scenes)
    store.close()


def _seen(folder, store, clock, scenes):
    config = Config.model_validate({"state_path": folder / "state", "fleet": {}})
    rollups = RollupStage(store, clock)
    rollups.step()
    with store.db.write() as tx:
        tx.execute("INSERT INTO equipment VALUES ('CT-1', 'CT', 'SIEMENS', 'X', 'B30s', 30, 4, ?)", (tx.at,))
        for _ in range(3):
            tx.journal(DaemonStarted(version="1", mode="evaluation"))
        tx.execute(
            "INSERT INTO package (name, version, digest, origin, manifest, state, state_at, installed_at)"
            " VALUES (?, '0.1.0', ?, 'config', ?, 'live', ?, ?)",
            (NAME, "ab" * 32, MANIFEST, tx.at, tx.at),
        )
        tx.journal(EngineRejected(package=NAME, flavour="tensorrt", precision="fp16", cause="accuracy", why="Dice"))
        study = scenes.add_study(tx, outcome=Outcome.FINDING)
        for number in range(230):
            _ended(tx, scenes, study, number)
        scenes.add_analysis(tx, scenes.add_study(tx, is_open=True), None)
        scenes.add_delivery(tx, study, state="owed", sent_at=None)
    clock.advance(6000)
    store.health.add(clock.now() - timedelta(minutes=1), SAMPLE)
    store.fleet.set_state("skew_ms", "1500")
    store.issues.raise_("ENGINE_FALLBACK", NAME, Severity.WARNING)
    store.issues.raise_("SOURCE_SILENT", "CT-1", Severity.WARNING)
    rollups.step()
    clock.advance(86_400)  # equipment is told once a day
    rollups.step()
    clock.advance(-86_400)
    tools = FakeTools(engines=[engine(NAME, "0.1.0", "rejected")])
    with served(store, clock, scenes.packages(), config=config, tools=tools) as somebody:
        pages = "".join(somebody("service").get(f"/{path}").text for path in ("health?range=24h", "models"))
    file = folder / "box.yaml"
    file.write_text(yaml.safe_dump({"state_path": str(folder / "state"), "fleet": {}}))
    done = CliRunner().invoke(main, ["status", "--json", "--config", str(file)])
    contents = Contents(store, config, clock, quality=lambda _: "ntp")
    told = {"health": contents.health(1).model_dump(mode="json")}
    for fact in store.journal.after(0, 100_000):
        record = contents.record(fact)
        if record is not None and record.d.k != "health":
            told.setdefault(record.d.k, record.d.model_dump(mode="json"))
    return pages, json.loads(done.stdout), told


def _ended(tx, scenes, study, number):
    """The newest 110 have other scores and other images than the first 120."""
    moved = number >= 120
    flagged, missed = number in range(4, 10), number in range(1, 4)
    outcome = Outcome.NOT_ANALYSED if missed else Outcome.FINDING if flagged else Outcome.NOTHING_FLAGGED
    reason = Reason.TIMED_OUT if missed else None
    score = 0.9 if moved else number / 120
    said = FindingResult(id="bleed", score=score, operating_point="d", threshold=0.5, flagged=flagged)
    numbers = {"hu": 60.0 if moved else 30.0 + number / 12}
    result = AnalysisResult(outcome=outcome, reason=reason, findings=(said,), numbers=numbers, hops_ms={"total": 500.0})
    analysis = scenes.add_analysis(tx, study, result)
    told = {"analysis": analysis, "package": NAME, "version": "0.1.0", "role": "live"}
    tx.journal(AnalysisDone(**told, outcome=str(outcome), reason=reason and str(reason)), study_id=study)


@pytest.mark.parametrize("figure", FIGURES)
def test_each_figure_of_health_is_on_the_screen_the_command_line_and_with_the_fleet(lived, figure):
    pages, status, told = lived
    on_page, on_line, at_fleet = FIGURES[figure]
    assert on_page in pages
    assert on_line is None or found(status, on_line) not in (None, "", [], 0)
    kind, path = at_fleet.split(" ")
    assert found(told[kind], path) not in (None, "", [], 0)
