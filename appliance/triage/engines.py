"""The daemon's care for engines: which are wished, which must be built, how they do; the worker does the work.

Rules:
- What serves is never taken away before something better has shown itself: a build that fails changes nothing.
- One build at a time. What a person asked for goes first; then whatever a package lacks.
- A build that failed is tried again after a wait that doubles; never by itself where the engine was built and did not
  say what the reference says, or a person cancelled it.
- Every package is checked daily on a golden case. The worker falls back by itself; here it becomes an issue.
- A package that the configuration gives to a KServe server has no engine of this box.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from appliance.config import Config
from appliance.records import Severity
from appliance.store.facts import Kind
from appliance.store.facts.packages import (
    EngineBuilding,
    EngineChecked,
    EngineFallback,
    EngineReady,
    EngineRejected,
    EngineServes,
)
from appliance.triage.engine_messages import (
    Build,
    Building,
    Built,
    Checked,
    EngineLost,
    EngineNews,
    EngineWish,
    Flavour,
    NotBuilt,
    Precision,
)
from appliance.triage.kserve import runs_on_kserve
from appliance.triage.protocol import Loaded
from appliance.triage.stage import Bench
from appliance.triage.worker_events import WorkerLost
from engines.manifest import Manifest

CHECK_EVERY_S = 24 * 3600.0
FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0
#: Causes after which only a person, or a new package, version or device, can make a difference.
_FINAL = frozenset({"rejected", "cancelled", "unsupported", "parse"})
FALLBACK = "ENGINE_FALLBACK"
DEGRADED = "KSERVE_DEGRADED"
NOT_BUILT = "ENGINE_NOT_BUILT"
_DETAIL = 500


def wished_precision(config: Config, manifest: Manifest) -> Precision:
    """The precision in which a package should run: as configured, where it has that one."""
    return config.engines.precision if config.engines.precision in manifest.precisions else "fp32"


def engine_wish(config: Config, manifest: Manifest) -> EngineWish | None:
    """On which engine a package should run; None: on ONNX Runtime with its own graph, or on a KServe server."""
    if runs_on_kserve(config, manifest.name):
        return None
    precision = wished_precision(config, manifest)
    if (config.engines.backend, precision) == ("onnxruntime", "fp32"):
        return None
    return EngineWish(store=str(config.engines_path.absolute()), flavour=config.engines.backend, precision=precision)


@dataclass(frozen=True, slots=True)
class _Order:
    """One engine that should be built."""

    package: str
    flavour: Flavour
    precision: Precision


@dataclass(slots=True)
class _Failures:
    """Builds of one order that failed, and when the next is due; None: not by itself."""

    count: int = 0
    next_mono: float | None = 0.0


class EnginesStage:
    """Orders builds and checks from the worker, and tells journal and issues what came of them."""

    name = "engines"
    max_step_s = 30.0

    def __init__(self, bench: Bench) -> None:
        """Begin with what persons ask from now on."""
        self._bench = bench
        self._cursor = bench.store.journal.last_seq()
        self._asked: deque[_Order] = deque()
        #: What was ordered last: the worker tells of a build's steps by the package alone.
        self._ordered: _Order | None = None
        self._failures: dict[_Order, _Failures] = {}
        self._checked_mono: dict[str, float] = {}
        self._told: dict[str, tuple[str, str]] = {}
        self._share: tuple[str, int] = ("", -1)

    def step(self) -> bool:
        """Take the worker's news and people's wishes, order what is due."""
        # Before the news: the end of a build that runs no longer is among them.
        is_building = self._bench.link.is_building
        for news in self._bench.link.engine_news():
            self._take(news)
        self._take_asks()
        if not self._bench.link.is_ready:
            return False
        try:
            if not is_building:
                self._order_build()
            self._order_check()
        except WorkerLost:
            return False
        return False

    # -- orders ------------------------------------------------------------------------------------------------------

    def _take_asks(self) -> None:
        journal = self._bench.store.journal
        last = journal.last_seq()
        asked = journal.after(self._cursor, kinds=(Kind.ENGINE_BUILD_ASKED, Kind.ENGINE_CANCEL_ASKED))
        self._cursor = asked[-1].seq if asked else last
        for fact in asked:
            if fact.kind is Kind.ENGINE_CANCEL_ASKED:
                while self._asked:
                    self._rejected(self._asked.popleft(), "cancelled", "it was cancelled before it began")
                self._bench.link.cancel_build()
                continue
            order = _Order(fact.body["package"], fact.body["flavour"], fact.body["precision"])
            if order.package in self._bench.packages:
                self._asked.append(order)
            else:
                self._rejected(order, "unknown", f"{order.package} does not run on this box")

    def _order_build(self) -> None:
        order = self._asked[0] if self._asked else self._lacking()
        if order is None:
            return
        settings = self._bench.config.engines
        message = Build(
            package=order.package,
            store=str(self._bench.config.engines_path.absolute()),
            flavour=order.flavour,
            precision=order.precision,
            wall_s=settings.build_limit_s,
            memory_mb=settings.build_memory_mb,
            keep=settings.keep,
        )
        self._bench.link.build(message)
        if self._asked:
            self._asked.popleft()
        self._ordered = order
        self._share = ("", -1)
        self._building(order, "lower", 0.0)

    def _lacking(self) -> _Order | None:
        """The next engine that a loaded package lacks and whose build is due."""
        now = self._bench.clock.monotonic()
        for name, loaded in self._bench.link.loaded.items():
            wish = self._wish(name) if loaded.lacks_engine else None
            if wish is None:
                continue
            order = _Order(name, wish.flavour, wish.precision)
            due = self._failures.get(order, _Failures()).next_mono
            if due is not None and now >= due:
                return order
        return None

    def _order_check(self) -> None:
        now = self._bench.clock.monotonic()
        for name in self._bench.link.loaded:
            if now - self._checked_mono.setdefault(name, now) >= CHECK_EVERY_S:
                self._bench.link.spot_check(name)
                self._checked_mono[name] = now

    def _wish(self, package: str) -> EngineWish | None:
        running = self._bench.packages.get(package)
        return engine_wish(self._bench.config, running.package.manifest) if running is not None else None

    def _is_on_server(self, package: str) -> bool:
        running = self._bench.packages.get(package)
        return running is not None and runs_on_kserve(self._bench.config, running.package.manifest.name)

    # -- news --------------------------------------------------------------------------------------------------------

    def _take(self, news: EngineNews | Loaded) -> None:
        store = self._bench.store
        if isinstance(news, Loaded):
            self._loaded(news)
        elif isinstance(news, Building):
            if self._ordered is not None:
                self._building(self._ordered, news.step, news.share)
        elif isinstance(news, Built):
            self._failures.pop(_Order(news.package, news.flavour, news.precision), None)
            fact = EngineReady(
                package=news.package,
                engine_digest=news.engine_digest,
                flavour=news.flavour,
                precision=news.precision,
                ms=news.ms,
                differences=news.differences,
            )
            store.engines.tell(news.package, fact)
            store.issues.clear(NOT_BUILT, news.package)
        elif isinstance(news, NotBuilt):
            self._rejected(_Order(news.package, news.flavour, news.precision), news.kind, news.message)
        elif isinstance(news, Checked):
            self._checked(news.package, news.engine_digest, ok=news.ok, why=news.message)
        elif isinstance(news, EngineLost):
            loaded = self._bench.link.loaded.get(news.package)
            self._checked(news.package, loaded.engine_digest if loaded is not None else "", ok=False, why=news.message)

    def _loaded(self, news: Loaded) -> None:
        """Another engine serves, or the worker is new."""
        store = self._bench.store
        self._checked_mono[news.package] = self._bench.clock.monotonic()
        before, self._told[news.package] = self._told.get(news.package), (news.engine_digest, news.fallback)
        if before == self._told[news.package]:
            return
        serves = {
            "package": news.package,
            "engine_digest": news.engine_digest,
            "backend": news.backend,
            "precision": news.precision,
        }
        for code in (FALLBACK, DEGRADED):
            store.issues.clear(code, news.package)
        on_server = self._is_on_server(news.package)
        if not news.fallback or (self._wish(news.package) is None and not on_server):
            store.engines.tell(news.package, EngineServes(**serves))
            return
        why = news.fallback[:_DETAIL]
        store.engines.tell(news.package, EngineFallback(**serves, why=why))
        detail = {"why": why, "serves": news.backend, "precision": news.precision}
        store.issues.raise_(DEGRADED if on_server else FALLBACK, news.package, Severity.WARNING, detail)

    def _building(self, order: _Order, step: str, share: float | None) -> None:
        """Journal the begin of a step and every tenth of it."""
        now = (step, int(share * 10) if share is not None else -1)
        if now == self._share:
            return
        self._share = now
        fact = EngineBuilding(
            package=order.package,
            flavour=order.flavour,
            precision=order.precision,
            step=step,
            share=now[1] / 10 if share is not None else None,
        )
        self._bench.store.engines.tell(order.package, fact)

    def _rejected(self, order: _Order, cause: str, why: str) -> None:
        store, now = self._bench.store, self._bench.clock.monotonic()
        failures = self._failures.setdefault(order, _Failures())
        failures.count += 1
        wait_s = min(FIRST_WAIT_S * 2 ** (failures.count - 1), LONGEST_WAIT_S)
        failures.next_mono = None if cause in _FINAL else now + wait_s
        wish = self._wish(order.package)
        is_wished = wish is not None and (order.flavour, order.precision) == (wish.flavour, wish.precision)
        # What a person tried besides is told to that person; nothing is wrong with the box.
        if is_wished and cause != "cancelled":
            detail = {"cause": cause, "why": why[:_DETAIL], "engine": f"{order.flavour} {order.precision}"}
            store.issues.raise_(NOT_BUILT, order.package, Severity.WARNING, detail)
        fact = EngineRejected(
            package=order.package, flavour=order.flavour, precision=order.precision, cause=cause, why=why[:_DETAIL]
        )
        store.engines.tell(order.package, fact)

    def _checked(self, package: str, engine_digest: str, *, ok: bool, why: str) -> None:
        self._checked_mono[package] = self._bench.clock.monotonic()
        fact = EngineChecked(package=package, engine_digest=engine_digest, ok=ok, why=why[:_DETAIL])
        self._bench.store.engines.tell(package, fact)
