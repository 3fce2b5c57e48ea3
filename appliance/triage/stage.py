"""The stages of triage: route what became READY, run it in the worker, prepare images while they arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.clock import Clock
from appliance.config import Config
from appliance.dicom.classes import SLICE_CLASSES
from appliance.records import AnalysisResult, Detail, Outcome, Reason, Role, Severity
from appliance.store import Store
from appliance.store.analyses import Queued
from appliance.store.database import iso
from appliance.store.facts import Kind
from appliance.triage.availability import WorkerPolicy
from appliance.triage.claims import series_kind, unclaimed
from appliance.triage.order import is_overdue, next_analysis
from appliance.triage.packages import Now, RunningPackages, owed_results
from appliance.triage.protocol import Failed, InstanceRef, SeriesInput
from appliance.triage.requirements import standing
from appliance.triage.routing import Candidate, plan_study
from appliance.triage.verdict import decide
from appliance.triage.worker_client import WorkerLink
from appliance.triage.worker_events import (
    PackagesChanged,
    WorkerEnded,
    WorkerLost,
    WorkerReady,
    WorkerStarted,
    WorkerTimedOut,
)

#: An analysis that was started this often without an end is not tried again.
_ATTEMPTS = 3
#: A study that ended the worker this often is not tried again.
_DEATHS = 2
_MIN_LIMIT_S = 1.0
#: Issues of what runs; they end with the package that they are about.
_OF_PACKAGES = frozenset({"PACKAGE_REFUSED", "ENGINE_FALLBACK", "ENGINE_NOT_BUILT", "KSERVE_DEGRADED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the stages of triage share."""

    store: Store
    config: Config
    clock: Clock
    link: WorkerLink
    packages: RunningPackages

    def finish(
        self, analysis_id: int, package: str, result: AnalysisResult, *, intended_use: str = "", late: bool = False
    ) -> None:
        """End an analysis with everything that follows from it; ``intended_use`` as ``owed_results`` takes it."""
        owed = owed_results(self.config, package, result, intended_use=intended_use)
        self.store.analyses.finish(analysis_id, result, owed, late=late)


class RoutingStage:
    """Decides what is owed, watches deadlines and whether there is an AI at all."""

    name = "routing"
    max_step_s = 30.0

    def __init__(self, bench: Bench, *, wake_runner: Callable[[], None]) -> None:
        """Route for ``bench``; ``wake_runner`` is called when something was queued."""
        self._bench = bench
        self._wake_runner = wake_runner
        self._policy = WorkerPolicy(bench.clock.monotonic())
        self._backlog_since: str | None = iso(bench.clock.now()) if bench.store.analyses.has_late_open() else None
        self._now = Now()
        self._candidates: list[Candidate] = []

    def step(self) -> bool:
        """Look at the packages, the worker, new revisions and deadlines once."""
        self._look()
        self._watch_worker()
        for study_id in self._bench.store.revisions.studies_to_route():
            self._route(study_id)
        self._end_overdue()
        if self._backlog_since is not None and not self._bench.store.analyses.has_late_open():
            self._bench.store.analyses.backlog_done(self._backlog_since)
            self._backlog_since = None
        return False

    def _look(self) -> None:
        """See what runs now."""
        now = self._bench.packages.now()
        if now is self._now:
            return
        self._now = now
        running = [Candidate(manifest=one.package.manifest, role=one.role) for one in now.running.values()]
        missed = [Candidate(manifest=one.manifest, role=Role.LIVE, withdrawn=True) for one in now.withdrawn]
        self._candidates = running + missed
        for issue in self._bench.store.issues.open():
            if issue.code in _OF_PACKAGES and issue.subject not in now.running:
                self._bench.store.issues.clear(issue.code, issue.subject)

    def _watch_worker(self) -> None:
        bench = self._bench
        if not self._now.running:
            # Nothing to run, so nothing is missing; the first package that is activated gets a worker.
            bench.link.want(wanted=False)
            bench.link.events()
            bench.store.issues.clear("AI_UNAVAILABLE", "worker")
            self._policy = WorkerPolicy(bench.clock.monotonic())
            return
        for event in bench.link.events():
            if isinstance(event, WorkerStarted):
                self._policy.started(event.at_mono)
            elif isinstance(event, WorkerReady):
                self._policy.ready(event.at_mono)
                bench.store.analyses.worker_started(event.pid, dict(event.packages))
                self._note_refusals(event)
            elif isinstance(event, PackagesChanged):
                self._note_refusals(event)
            else:
                self._worker_ended(event)
        now = bench.clock.monotonic()
        bench.link.want(self._policy.wants_worker(now))
        unavailable = self._policy.unavailable(now)
        if unavailable is not None:
            bench.store.issues.raise_("AI_UNAVAILABLE", "worker", Severity.FAULT, {"why": unavailable.why})
        elif bench.link.is_ready and bench.store.issues.is_open("AI_UNAVAILABLE", "worker"):
            bench.store.issues.clear("AI_UNAVAILABLE", "worker")
            if bench.store.analyses.requeue_unanalysed():
                self._backlog_since = iso(bench.clock.now())
        if bench.link.is_ready:
            self._wake_runner()

    def _note_refusals(self, event: WorkerReady | PackagesChanged) -> None:
        issues = self._bench.store.issues
        for key in self._now.running:
            message = event.refused.get(key)
            if message is None:
                issues.clear("PACKAGE_REFUSED", key)
            else:
                issues.raise_("PACKAGE_REFUSED", key, Severity.FAULT, {"why": message})

    def _worker_ended(self, event: WorkerEnded) -> None:
        store = self._bench.store
        study_id = None
        if event.analysis_id is not None:
            study_id = store.analyses.study_of(event.analysis_id)
        elif event.series_key:
            study_id = store.revisions.study_of(int(event.series_key))
            if study_id is not None:
                store.analyses.note_worker_death(study_id)
        store.analyses.worker_ended(event.pid, event.why, event.analysis_id)
        self._policy.ended(event.at_mono, str(study_id) if study_id is not None else None)

    def _route(self, study_id: int) -> None:
        bench = self._bench
        revisions = bench.store.revisions.of_study(study_id)
        settings = bench.config.triage
        plans, left_out = plan_study(
            revisions,
            self._candidates,
            bench.store.revisions.owed(study_id),
            ct_deadline_s=settings.ct_deadline_s,
            xray_deadline_s=settings.xray_deadline_s,
        )
        bench.store.analyses.route(
            study_id,
            tuple(revision.id for revision in revisions),
            plans,
            left_out,
            lambda package, result: owed_results(bench.config, package, result),
            self._now.seen,
        )
        if plans:
            self._wake_runner()

    def _end_overdue(self) -> None:
        bench = self._bench
        now = bench.clock.monotonic()
        for one in bench.store.analyses.open():
            if is_overdue(one, now):
                without_ai = self._policy.unavailable(now) is not None
                result = AnalysisResult(
                    outcome=Outcome.NOT_ANALYSED,
                    reason=Reason.AI_UNAVAILABLE if without_ai else Reason.TIMED_OUT,
                    details=(Detail("not analysed within {limit} s", {"limit": one.deadline_s}),),
                    hops_ms={"waited": (now - one.ready_mono) * 1000},
                )
                bench.finish(one.id, one.package, result)


class RunStage:
    """Hands analyses to the worker one after another, the most urgent first."""

    name = "analysis"

    def __init__(self, bench: Bench, *, wake_delivery: Callable[[], None]) -> None:
        """Run for ``bench``; ``wake_delivery`` is called when an analysis has ended."""
        self._bench = bench
        self._wake_delivery = wake_delivery
        self._lost_comparisons: dict[int, int] = {}
        self._now = Now()
        self.max_step_s = 150.0

    def step(self) -> bool:
        """Compare one pair of versions, or run one analysis. True when it did."""
        bench = self._bench
        self._look()
        if not bench.link.is_ready or bench.link.is_loading:
            return False
        waiting = bench.store.analyses.open()
        chosen = next_analysis([one for one in waiting if self._is_eligible(one)], bench.clock.monotonic())
        if chosen is None:
            return self._compare()
        self._run(chosen, {revision for one in waiting if one.id != chosen.id for revision in one.inputs.values()})
        self._wake_delivery()
        return True

    def _look(self) -> None:
        """See what runs now, and have the worker load it. Here, because no analysis is in the worker meanwhile."""
        now = self._bench.packages.now()
        if now is self._now:
            return
        self._bench.link.serve(self._bench.packages.loads(now))
        self._now = now
        # A step waits for the worker as long as a package may take, plus the link's own grace.
        limits = [one.package.manifest.limits.time_s for one in now.running.values()]
        self.max_step_s = max(limits, default=60.0) + 90.0

    def _is_eligible(self, one: Queued) -> bool:
        """Whether everything that its package requires of the same study has ended."""
        running = self._now.of(one.package, one.package_version)
        if running is None:
            return False  # its version was replaced: ``Packages.tidy`` hands it over
        if not running.package.manifest.requires:
            return True
        results = self._bench.store.analyses.of_study(one.study_id, one.role)
        required = [requirement.package for requirement in running.package.manifest.requires]
        return all(results.get(package, True) is not None for package in required)

    def _run(self, one: Queued, wanted_later: set[int]) -> None:
        bench = self._bench
        running = self._now.of(one.package, one.package_version)
        if running is None:
            return
        required = standing(running.package.manifest.requires, bench.store.analyses.of_study(one.study_id, one.role))
        if required.refusal:
            self._end(one, Reason.QUALITY, *required.refusal)
            return
        if one.attempt >= _ATTEMPTS or one.worker_deaths >= _DEATHS:
            self._end(one, Reason.FAILED, Detail("the analysis was cut short repeatedly"))
            return
        if not bench.store.analyses.start(one.id):
            return
        started = bench.clock.monotonic()
        limit_s = running.package.manifest.limits.time_s
        if not one.late:
            limit_s = max(_MIN_LIMIT_S, min(limit_s, one.ready_mono + one.deadline_s - started))
        try:
            answer = bench.link.finish(
                one.id,
                running.key,
                self._inputs(one),
                limit_s=limit_s,
                study=f"study {one.study_id}",
                operating_points=running.operating_points,
            )
        except WorkerTimedOut:
            self._end(one, Reason.TIMED_OUT, Detail("not analysed within {limit} s", {"limit": round(limit_s, 1)}))
            return
        except WorkerLost as error:
            is_cause = error.analysis_id == one.id
            deaths = bench.store.analyses.return_to_queue(one.id, error.how, worker_died=is_cause)
            if is_cause and deaths >= _DEATHS:
                self._end(one, Reason.FAILED, Detail("the worker ended on this study repeatedly"))
            return
        ended = bench.clock.monotonic()
        hops = {"worker": (ended - started) * 1000}
        revisions = [bench.store.revisions.get(revision) for revision in one.inputs.values()]
        last_image = max(revision.last_image_mono for revision in revisions)
        if last_image and not one.late:
            hops["total"] = (ended - last_image) * 1000
        if isinstance(answer, Failed):
            result = AnalysisResult(
                outcome=Outcome.NOT_ANALYSED,
                reason=answer.reason,
                details=answer.details,
                package_digest=answer.package_digest,
                hops_ms={**answer.hops_ms, **hops},
                numbers=answer.numbers,
            )
        else:
            caveats = required.caveats
            if any(revision.discontinued for revision in revisions):
                caveats += (Detail("the examination was discontinued at the scanner; images may be missing"),)
            result = decide(running.package.manifest, answer, running.operating_points, hops_ms=hops, caveats=caveats)
        intended_use = running.package.manifest.intended_use
        bench.finish(one.id, one.package, result, intended_use=intended_use, late=is_overdue(one, ended))
        for revision_id in set(one.inputs.values()) - wanted_later:
            bench.link.drop(str(bench.store.revisions.get(revision_id).series_id))

    def _end(self, one: Queued, reason: Reason, *details: Detail) -> None:
        result = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=reason, details=details)
        self._bench.finish(one.id, one.package, result)

    def _inputs(self, one: Queued) -> dict[str, SeriesInput]:
        store = self._bench.store
        inputs = {}
        for role, revision_id in one.inputs.items():
            revision = store.revisions.get(revision_id)
            inputs[role] = SeriesInput(
                series_key=str(revision.series_id),
                kind=series_kind(revision.header),
                instances=tuple(
                    InstanceRef(key=str(version_id), path=str(store.spool.path(path)))
                    for version_id, path, _ in store.studies.paths(revision_id)
                ),
            )
        return inputs

    def _compare(self) -> bool:
        """Compare one version that came in another transfer syntax with the current one."""
        store = self._bench.store
        for current, other in store.studies.to_compare():
            try:
                answer = self._bench.link.compare(store.spool.path(current.path), store.spool.path(other.path))
            except WorkerLost:
                losses = self._lost_comparisons.get(other.id, 0) + 1
                self._lost_comparisons[other.id] = losses
                if losses < _DEATHS:
                    return False
                # Pixels that end the worker again and again are not shown to be the same: a person must look.
                store.studies.compared(other.id, same_pixels=False)
                return True
            store.studies.compared(other.id, same_pixels=answer.same)
            return True
        return False


class PrefetchStage:
    """Tells the worker about slices while they arrive, so that only inference is left after the last (DESIGN §1.4).

    A reader of the journal like any other; what it misses the analysis itself makes up for.
    """

    name = "prefetch"
    max_step_s = 30.0

    def __init__(self, bench: Bench) -> None:
        """Begin with images that arrive from now on."""
        self._bench = bench
        self._cursor = bench.store.journal.last_seq()
        self._wanted: dict[int, bool] = {}
        self._ready_since: float | None = None

    def step(self) -> bool:
        """Wait a moment for new images and hand their paths on."""
        bench = self._bench
        if not bench.store.journal.wait(self._cursor, 0.5):
            return True
        last = bench.store.journal.last_seq()
        facts = bench.store.journal.after(self._cursor, kinds=(Kind.INSTANCE_STORED,))
        if bench.link.ready_since_mono != self._ready_since:
            self._ready_since = bench.link.ready_since_mono
            self._wanted.clear()
        if self._ready_since is not None:
            for fact in facts:
                self._hint(fact.body["series"], fact.body["version"])
        self._cursor = facts[-1].seq if facts else last
        return True

    def _hint(self, series_id: int, version_id: int) -> None:
        bench = self._bench
        wanted = self._wanted.get(series_id)
        if wanted is None:
            header = bench.store.revisions.header(series_id)
            packages = [
                one.key
                for one in bench.packages.now().running.values()
                if any(unclaimed(feed.input, header) is None for feed in one.package.manifest.inputs)
            ]
            wanted = bool(packages) and header.sop_class_uid in SLICE_CLASSES
            self._wanted[series_id] = wanted
            if wanted:
                bench.link.open(str(series_id), "ct", packages)
        if wanted:
            path = bench.store.revisions.version_path(version_id)
            bench.link.add(str(series_id), str(version_id), bench.store.spool.path(path))
