"""``model.install``, state by state: nothing that runs is touched before ACTIVATING, and from there it can go back.

Every state is found again after a kill: what lies in the slot is seen in the table of packages, and what was
activated is told from what was noted before the act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from appliance.clock import Clock
from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.device.acts import ActRefused, Acts, Fetcher, Unfinished
from appliance.fleet.device.inbox import job_of
from appliance.fleet.device.soak import breach
from appliance.fleet.device.tasks import Handler, Handlers, Step, Task
from appliance.fleet.wire import Desired, Op, Window
from appliance.fleet.wire_jobs import JobState
from appliance.store import Store
from appliance.store.fleet_soak import baseline, fared
from appliance.store.package_rows import PackageRow, PackageState
from appliance.store.package_rules import Terms

#: Where a job still reads what was brought for it.
NEEDS_FILE = frozenset({JobState.ACCEPTED, JobState.WAIT_APPROVAL, JobState.DOWNLOADING, JobState.VERIFIED})
_WAIT_H = 72.0
_SOAK_H, _SOAK_STUDIES = 24.0, 50
#: Of a soaking version's figures; a query over its analyses.
_LOOK_S = 30.0
_HOUR = 3600.0
_TOLD_PERCENT = 10.0


def is_open(window: Window, at: datetime) -> bool:
    """Whether a moment of the site's own clock lies within; over midnight, or the whole day, where end <= begin."""
    now = at.strftime("%H:%M")
    if window.begin < window.end:
        return window.begin <= now < window.end
    return now >= window.begin or now < window.end


@dataclass
class Install:
    """Handlers of one box.

    Attributes:
        store: Its store.
        clock: The monotonic one paces; the other one tells the window.
        acts: What it can do beyond its store.
        fetcher: Where packages come from; None: only what lies in a slot already can be activated.
        desired: The document that holds: window and hold.
        clinical: ``site.mode``.
        asks_site: The site has a say in changes of models.
        local: A moment on the clock of the site.
    """

    store: Store
    clock: Clock
    acts: Acts
    fetcher: Fetcher | None
    desired: Callable[[], Desired]
    clinical: bool
    asks_site: bool
    local: Callable[[datetime], datetime] = field(default=lambda at: at.astimezone())
    _looked: dict[str, float] = field(default_factory=dict)

    def handlers(self) -> Handlers:
        """By op and state."""
        by_state = {
            JobState.ACCEPTED: Handler(self.accepted),
            JobState.WAIT_APPROVAL: Handler(self.approved),
            JobState.DOWNLOADING: Handler(self.download, slow=True),
            JobState.VERIFIED: Handler(self.stage, slow=True),
            JobState.STAGED: Handler(lambda _: Step(JobState.SELFTEST)),
            JobState.SELFTEST: Handler(self.self_test, slow=True),
            JobState.WAIT_IDLE: Handler(self.wait_idle),
            JobState.ACTIVATING: Handler(self.activate),
            JobState.SOAKING: Handler(self.soak),
        }
        return {(Op.MODEL_INSTALL, state): handler for state, handler in by_state.items()}

    # Until the slot --------------------------------------------------------------------------------------------

    def accepted(self, task: Task) -> Step | None:
        """Whether it is to be done at all; and whom it has to wait for."""
        row = self._row(task)
        if row is not None:
            code = self._why_not(row, task)
            if code:
                return Step(JobState.REJECTED, code)
            if self._is_as_wanted(row, task):
                return Step(JobState.ALREADY_INSTALLED)
        if row is None and self.fetcher is None:
            return Step(JobState.REJECTED, "NOT_PERMITTED")
        if self.asks_site and not task.row.approved_by:
            return Step(JobState.WAIT_APPROVAL)
        return self._begin(task)

    def approved(self, task: Task) -> Step | None:
        """Somebody of the site has said yes; no is their own act."""
        return self._begin(task) if task.row.approved_by else None

    def _begin(self, task: Task) -> Step | None:
        if self.desired().held or self._is_behind(task):
            return None
        return Step(JobState.DOWNLOADING)

    def download(self, task: Task) -> Step:
        """Bring it here, verified."""
        if self._row(task) is None:
            try:
                self._fetch(task)
            except Unfinished:  # a long one takes several steps, each of them within the watchdog's bound
                percent = float(task.notes.get("percent", 0.0))
                return Step(JobState.DOWNLOADING, percent=percent, work={"percent": percent})
        return Step(JobState.VERIFIED)

    def stage(self, task: Task) -> Step:
        """Into the idle slot."""
        args = task.job.args
        if self._row(task) is None:
            path = self._fetch(task)
            self.acts.install(path, str(args.package), str(args.version), str(args.digest))
            if self._row(task) is None:
                raise ActRefused("DIGEST")
        if self.fetcher is not None:
            self.fetcher.done(str(args.target))
        return Step(JobState.STAGED)

    def self_test(self, task: Task) -> Step:
        """Its golden cases, on this very box."""
        args = task.job.args
        return Step(JobState.WAIT_IDLE, figures=self.acts.golden(str(args.package), str(args.version)))

    def _fetch(self, task: Task) -> Path:
        if self.fetcher is None:
            raise ActRefused("NOT_PERMITTED")

        def told(percent: float) -> None:
            said = float(task.notes.get("percent", -_TOLD_PERCENT))
            if task.state is JobState.DOWNLOADING and percent >= said + _TOLD_PERCENT:
                percent = round(min(percent, 100.0), 1)
                work = {**task.notes, "percent": percent}
                task.tell(Step(JobState.DOWNLOADING, percent=percent, work=work))

        args = task.job.args
        return self.fetcher.fetch(str(args.target), str(args.digest), told)

    def _is_behind(self, task: Task) -> bool:
        """Whether an older job is at work on the same package: one version at a time."""
        waits = {JobState.ACCEPTED, JobState.WAIT_APPROVAL}
        older = [row for row in self.store.fleet_jobs.open() if row.op == Op.MODEL_INSTALL and row.ctr < task.row.ctr]
        busy = (row for row in older if row.state not in waits)
        return any(job_of(row).args.package == task.job.args.package for row in busy)

    # Into service ----------------------------------------------------------------------------------------------

    def wait_idle(self, task: Task) -> Step | None:
        """No study on its way, in the site's window, and no hold; never forced."""
        desired = self.desired()
        is_time = is_open(desired.window, self.local(self.clock.now()))
        if desired.held or not is_time or not self.store.fleet_jobs.is_idle():
            is_over = task.waited_s() > (task.job.args.wait_h or _WAIT_H) * _HOUR
            return Step(JobState.REJECTED, "HELD" if desired.held else "WINDOW") if is_over else None
        row = self._row(task)
        if row is None or self._why_not(row, task):
            return Step(JobState.FAILED, "WITHDRAWN")
        # What is seen now tells after a kill whether the act was done.
        return Step(JobState.ACTIVATING, work={"seen": row.seen, "seq": self.store.journal.last_seq()})

    def activate(self, task: Task) -> Step:
        """Let it run; what is in hand ends with the version that began it."""
        row = self._row(task)
        if row is None or row.state is PackageState.WITHDRAWN:
            return Step(JobState.ROLLED_BACK, "WITHDRAWN")
        if row.seen == task.notes["seen"]:
            try:
                row = self.store.packages.activate(
                    row.name,
                    self._terms(task),
                    version=row.version,
                    clinical=self.clinical,
                    owed=self.acts.owed,
                    actor=task.actor,
                    why=f"job {task.job.ctr} of the fleet",
                    seen=str(task.notes["seen"]),
                )
            except (ConflictError, NotFoundError) as error:
                raise ActRefused("CONFLICT", str(error)) from error
        elif not row.runs:
            return Step(JobState.ROLLED_BACK, "CONFLICT")
        return Step(JobState.SOAKING, work={"since": row.state_at.isoformat(), "seq": task.notes["seq"]})

    def soak(self, task: Task) -> Step | None:
        """In service, and watched against the box's own last two weeks. Needs no network."""
        now = self.clock.monotonic()
        if now - self._looked.get(task.row.id, float("-inf")) < _LOOK_S:
            return None
        self._looked[task.row.id] = now
        args = task.job.args
        row = self._row(task)
        if row is None or not row.runs:
            self._looked.pop(task.row.id)
            if "breach" in task.notes:
                self.take_back(task)  # killed between its two acts
            return Step(JobState.ROLLED_BACK, str(task.notes.get("breach", "WITHDRAWN")))
        since = datetime.fromisoformat(task.notes["since"])
        fares = fared(self.store.db, row.name, row.version, since, int(task.notes["seq"]))
        code = str(task.notes.get("breach", "")) or breach(fares, baseline(self.store.db, row.name, row.version, since))
        figures = {
            "studies": float(fares.studies),
            "errors": float(fares.errors),
            "not_analysed": float(fares.missed),
            "crashes": float(fares.crashes),
            **({"p95_ms": round(fares.p95_ms, 1)} if fares.p95_ms is not None else {}),
        }
        if code:
            if "breach" not in task.notes:
                task.note(breach=code)
            self.take_back(task)
            self._looked.pop(task.row.id)
            return Step(JobState.ROLLED_BACK, code, figures)
        soak_h = _SOAK_H if args.soak_h is None else args.soak_h
        wanted = _SOAK_STUDIES if args.soak_studies is None else args.soak_studies
        is_over = task.waited_s() >= soak_h * _HOUR and fares.studies >= wanted
        if not is_over or (self._wants(task) == "live" and row.state is not PackageState.LIVE):
            return None
        self._looked.pop(task.row.id)
        return Step(JobState.SUCCEEDED, figures=figures)

    def take_back(self, task: Task) -> None:
        """The version goes; the one before it serves again where there is one. At once, whatever the window says."""
        row = self._row(task)
        if row is None or not (row.runs or row.state is PackageState.RETIRED):
            return
        why = f"job {task.job.ctr} of the fleet: {task.notes.get('breach', 'failed')}"
        others = self.store.packages.all(row.name)
        if row.state is PackageState.LIVE and any(one.state is PackageState.RETIRED for one in others):
            self.store.packages.roll_back(row.name, why, owed=self.acts.owed, actor=task.actor, seen=row.seen)
        # Also where another one serves again: this one is nothing to go back to.
        self.store.packages.withdraw(row.name, why, version=row.version, owed=self.acts.owed, actor=task.actor)

    # What it is ------------------------------------------------------------------------------------------------

    def _row(self, task: Task) -> PackageRow | None:
        """The version that the job means, where it has a slot."""
        args = task.job.args
        for row in reversed(self.store.packages.all(str(args.package))):
            if row.version == args.version and row.state is not PackageState.REMOVED:
                return row
        return None

    def _why_not(self, row: PackageRow, task: Task) -> str:
        """Why a version that is here is not brought into service by this job."""
        if row.digest != task.job.args.digest:
            return "CONTENTS"
        if row.state is PackageState.WITHDRAWN:
            return "WITHDRAWN"  # somebody took it out of service; that is for a person here to take back
        return "RETIRED" if row.state is PackageState.RETIRED else ""

    def _is_as_wanted(self, row: PackageRow, task: Task) -> bool:
        wants = self._wants(task)
        return row.state in {PackageState(wants), PackageState.LIVE}

    @staticmethod
    def _wants(task: Task) -> str:
        return task.job.args.role or "live"

    def _terms(self, task: Task) -> Terms:
        """Never live before it was silent, in clinical mode: there the soak is its silent time."""
        args, wants = task.job.args, self._wants(task)
        if wants != "live":
            return Terms(shadow=wants == "shadow", stays=wants == "silent")
        if not self.clinical:
            return Terms(days=0, studies=0)
        hours = _SOAK_H if args.soak_h is None else args.soak_h
        studies = _SOAK_STUDIES if args.soak_studies is None else args.soak_studies
        return Terms(days=max(hours, 1.0) / 24, studies=max(studies, 1))
