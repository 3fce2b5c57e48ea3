"""Whole boxes as their pages meet them, for screenshots: a new one, one in use, one in trouble.

The one in use has run: ``scanside demo`` has received its phantoms, analysed them and delivered the results. Rows of
further invented studies and people are added once it has ended, so nothing acts on them.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import screen_scenes as scenes
import yaml

from appliance.box_tools import BoxTools
from appliance.cli.demo_box import DemoBox, demo_config
from appliance.clock import SystemClock
from appliance.config import Config, Site
from appliance.records import SYSTEM, Actor, ActorKind, ReviewDecision, ReviewReason, Severity
from appliance.screen import PackageText
from appliance.screen.tools import Tools
from appliance.screen.words import ISSUES
from appliance.settings import Settings, load_box
from appliance.simulate.pacs import Pacs
from appliance.store import Store
from appliance.store.database import Transaction, iso
from appliance.store.health_samples import Sample
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading

_DEADLINE_S = 300.0
_RADIOLOGIST = Actor(kind=ActorKind.PERSON, name="Demo radiologist", role="radiologist")
_REVIEWED, _DISAGREED = 24, 3
_SOURCES = [{"name": name, "ae_title": name, "mode": "inline"} for name in ("CT-1", "CT-2", "DX-1", "DX-2")]
#: What the PACS of the box in trouble has answered, by the state of what it was to get.
_ANSWERS = {
    "owed": ("10.0.2.15:104 does not answer: connection refused", None),
    "parked": ("the data set does not match the SOP class", 0xA900),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A store with all that its pages ask besides.

    Attributes:
        store: Open, with nothing running on it.
        config: Of the box.
        packages: Texts by package.
        tools: Answers of the rest of the box.
        studies: Number of a study by what is to be seen of it.
    """

    store: Store
    config: Config
    packages: Mapping[str, PackageText]
    tools: Tools
    studies: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a demo left behind."""

    state: Path
    packages: Mapping[str, PackageText]


def run_demo(folder: Path) -> Ran:
    """Let the demo go through its scenarios, and end it.

    Raises:
        TimeoutError: It did not.
    """
    state, deadline, pause = folder / "demo", time.monotonic() + _DEADLINE_S, threading.Event()
    state.mkdir()
    with DemoBox(state, None) as box:
        while not box.is_done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the demo has not ended: {[one.ending for one in box.studies()]}")
            pause.wait(0.5)
        return Ran(state=state, packages=dict(box.texts))


@contextlib.contextmanager
def new_box(folder: Path) -> Iterator[World]:
    """Nobody has set it up."""
    with _settled(folder / "new", port=1, is_new=True) as (config, settings):
        store = Store.open(config.state_path, SystemClock())
        try:
            store.setup.new_code()
            yield _world(store, config, settings, {}, {})
        finally:
            store.close()


@contextlib.contextmanager
def box_in_use(folder: Path, ran: Ran) -> Iterator[World]:
    """Hours of work lie behind it, and a bleed was found a minute ago."""
    with Pacs(folder / "pacs") as pacs, _settled(folder / "used", pacs.port) as (config, settings):
        store = _again(ran, config)
        try:
            _work_of_hours(store)
            yield _world(store, config, settings, ran.packages, _looked_for(store))
        finally:
            store.close()


@contextlib.contextmanager
def box_in_trouble(folder: Path, ran: Ran) -> Iterator[World]:
    """Each issue that there is, an overdue alert, objects that the PACS does not take."""
    with _settled(folder / "troubled", port=1) as (config, settings):
        store = _again(ran, config)
        try:
            _work_of_hours(store)
            with store.db.write() as tx:
                _troubles(tx)
            with store.db.write() as tx:
                scenes.SCENES["overdue"](tx, store)
            with store.db.write() as tx:
                scenes.SCENES["withdrawn"](tx, store)
            texts = {**scenes.packages(), **ran.packages}
            yield _world(store, config, settings, texts, _looked_for(store))
        finally:
            store.close()


@contextlib.contextmanager
def _settled(folder: Path, port: int, *, is_new: bool = False) -> Iterator[tuple[Config, Settings]]:
    """The configuration of the demo, with the scanners of the scenes, as files that the settings page can write."""
    folder.mkdir()
    document = demo_config(folder / "state", port).model_dump(mode="json", exclude_unset=True)
    document |= {"sources": _SOURCES, "site": Site(name="Demonstration").model_dump(exclude_unset=True)}
    if is_new:
        document = {"state_path": document["state_path"]}
    base = folder / "appliance.yaml"
    base.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    loaded = load_box(base)
    loaded.config.state_path.mkdir(exist_ok=True)
    yield loaded.config, Settings(loaded)


def _again(ran: Ran, config: Config) -> Store:
    """The store of the demo, in a folder of its own."""
    unneeded = shutil.ignore_patterns("orthanc", "pacs", "scanside.log", "scanside.lock", "worker.sock")
    shutil.copytree(ran.state, config.state_path, dirs_exist_ok=True, ignore=unneeded)
    return Store.open(config.state_path, SystemClock())


def _world(
    store: Store, config: Config, settings: Settings, packages: Mapping[str, PackageText], studies: Mapping[str, int]
) -> World:
    tools = BoxTools(
        config, store, SystemClock(), settings=settings, ports=lambda: (11112, 8080), on_restart=lambda: None
    )
    return World(store=store, config=config, packages=packages, tools=tools, studies=studies)


def _looked_for(store: Store) -> dict[str, int]:
    """The studies that the demo sent, by what became of them."""
    found: dict[str, int] = {}
    for row in store.db.all("SELECT id, outcome, source, images FROM study ORDER BY id"):
        name = {
            ("FINDING", "CT-1"): "finding",
            ("FINDING", "DX-1"): "film",
            ("NOT_ANALYSED", "CT-1"): "not-analysed",
            ("NOTHING_FLAGGED", "CT-1"): "nothing-flagged",
            ("NOT_APPLICABLE", "DX-1"): "not-applicable",
        }.get((row["outcome"], row["source"]))
        if name is not None:
            found.setdefault(name, row["id"])
    return found


def _work_of_hours(store: Store) -> None:
    """Studies, reviews, people told, screens, and how the machine fared."""
    with store.db.write() as tx:
        version = tx.one("SELECT max(version) AS version FROM package WHERE name = ?", (scenes.HEAD,))
        before = tx.one("SELECT max(id) AS id FROM study")
        assert version is not None and before is not None  # noqa: S101, PT018 - the demo has left both
        scenes.many(tx, 600, every_s=60.0)
        tx.execute(
            "UPDATE analysis SET package_version = ? WHERE study_id > ? AND package = ?",
            (version["version"], before["id"], scenes.HEAD),
        )
        tx.execute(
            "UPDATE alert SET state = 'acknowledged', acknowledged_by = 'Li Wei', acknowledged_at = raised_at"
            " WHERE study_id > ? AND state = 'raised'",
            (before["id"],),
        )
        for alert in [row["id"] for row in tx.all("SELECT id FROM alert WHERE study_id > ? LIMIT 4", (before["id"],))]:
            scenes.was_told(tx, alert)
        for protocol, count in (("Head plain", 412), ("Head contrast", 61), ("Thorax", 133)):
            tx.execute("INSERT INTO source_fact VALUES ('CT-1', 'protocol', ?, ?, ?)", (protocol, count, tx.at))
        flagged = [
            row["id"] for row in tx.all("SELECT id FROM study WHERE id > ? AND outcome = 'FINDING'", (before["id"],))
        ]
    for number, study in enumerate(flagged[:_REVIEWED]):
        draft = Draft(decision=ReviewDecision.AGREE)
        if number < _DISAGREED:
            draft = Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT, note="Beam hardening.")
        etag = store.reviews.case(study).etag
        store.reviews.sign(study, draft, etag, _RADIOLOGIST, Reading(seen={ELSEWHERE: 1}), organization="")
    for name, sources in (("CT-1 console", ("CT-1",)), ("Control room", ()), ("Not yet paired", ("DX-2",))):
        store.screens.offer(name, sources, name, SYSTEM)
    for name in ("CT-1 console", "Control room"):
        store.screens.pair(name)
    now = store.db.clock.now()
    for minute in range(360, 0, -1):
        wave = math.sin(minute / 23)
        sample = Sample(
            studies=round(2 + wave),
            end_to_end_p50_ms=3100 + 300 * wave,
            end_to_end_p95_ms=5200 + 900 * wave,
            queue_age_s=20 + 15 * wave,
            analyses_waiting=round(1 + wave),
            cpu_percent=34 + 22 * wave,
            memory_percent=41 + 2 * wave,
            disk_percent=63.0,
            temperature_c=58 + 4 * wave,
        )
        store.health.add(now - timedelta(minutes=minute), sample)


def _troubles(tx: Transaction) -> None:
    """Every issue of which a person can read, and a queue that does not drain."""
    for number, code in enumerate(ISSUES):
        tx.insert(
            "issue",
            code=code,
            subject={"DESTINATION_UNREACHABLE": "PACS", "AI_UNAVAILABLE": "worker"}.get(code, code.lower()),
            severity=str(Severity.FAULT if code.startswith("DISK") or number % 3 == 0 else Severity.WARNING),
            since_at=iso(tx.now - timedelta(minutes=7 * number + 2)),
            detail="{}",
        )
    studies = [row["id"] for row in tx.all("SELECT id FROM study ORDER BY id DESC LIMIT 6")]
    for study in studies:
        state = "parked" if study == studies[0] else "owed"
        error, status = _ANSWERS[state]
        ago = iso(tx.now - timedelta(minutes=50))
        scenes.add_delivery(tx, study, state=state, owed_at=ago, attempt=9, error=error, status=status)
