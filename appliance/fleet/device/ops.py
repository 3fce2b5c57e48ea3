"""What each op without an artefact does: a function of one state each, found again after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.device.acts import ActRefused, Acts
from appliance.fleet.device.grant import granted_version
from appliance.fleet.device.inbox import job_of
from appliance.fleet.device.tasks import Handler, Handlers, Step, Task
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import NEXT, JobState
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.facts.admin import RestartAsked
from appliance.store.fleet_jobs import JobMoved
from appliance.store.package_rows import PackageRow, PackageState

_RESTART_S = 900.0
_DRAIN_S = 86_400.0
_RENEW_S = 86_400.0
_DONE = Step(JobState.SUCCEEDED)


@dataclass
class Ops:
    """Handlers of one box.

    Attributes:
        store: Its store.
        acts: What it can do beyond its store.
        folder: Of its identity.
        send_logs: Collects and uploads them under a token; returns how many bytes.
        renew: Asks for another certificate, soon.
        asks_site: The site has a say in changes of models.
    """

    store: Store
    acts: Acts
    folder: Path
    send_logs: Callable[[str], int]
    renew: Callable[[], None]
    asks_site: bool
    #: Renewals that this process has asked for.
    _asked: set[str] = field(default_factory=set)

    def handlers(self) -> Handlers:
        """By op and state."""
        accepted, waits = JobState.ACCEPTED, JobState.WAIT_APPROVAL
        return {
            (Op.PING, accepted): Handler(lambda _: _DONE),
            (Op.RESTART, accepted): Handler(self.restart),
            (Op.SELF_TEST, accepted): Handler(self.self_test, slow=True, once=True),
            (Op.COLLECT_LOGS, accepted): Handler(self.collect_logs, slow=True),
            (Op.RESEND, accepted): Handler(self.resend),
            (Op.DRAIN, accepted): Handler(self.drain),
            (Op.CERT_RENEW, accepted): Handler(self.renew_certificate),
            (Op.MODEL_WITHDRAW, accepted): Handler(self.withdraw),
            (Op.MODEL_ROLLBACK, accepted): Handler(self.roll_back),
            (Op.MODEL_ROLLBACK, waits): Handler(self.roll_back),
        }

    def restart(self, task: Task) -> Step | None:
        """Told only when the box has started again: the row of its start comes after the one of this request."""
        asked = int(task.notes.get("asked", 0))
        if not asked:
            # First on disk: killed here, it is the start after the kill that is told, and no second one follows.
            task.note_fact("asked", RestartAsked())
            self.acts.restart()
            return None
        if self.store.journal.after(asked, 1, (Kind.DAEMON_STARTED,)):
            return _DONE
        return Step(JobState.TIMED_OUT, "RESTART") if task.waited_s() > _RESTART_S else None

    def self_test(self, _task: Task) -> Step:
        """A test study through the whole box."""
        return Step(JobState.SUCCEEDED, figures=self.acts.self_test())

    def collect_logs(self, task: Task) -> Step:
        """Up by HTTPS, under the token that the server gave."""
        size = self.send_logs(str(task.job.args.upload))
        return Step(JobState.SUCCEEDED, figures={"bytes": float(size)})

    def resend(self, task: Task) -> Step:
        """Everything after a row again, as far back as the journal goes; twice does no harm."""
        after = self.store.fleet.rewind(int(task.job.args.after_seq or 0))
        return Step(JobState.SUCCEEDED, figures={"after_seq": float(after)})

    def drain(self, task: Task) -> Step | None:
        """All that is in the journal now has been committed by the server."""
        if "through" not in task.notes:
            task.note(through=self.store.journal.last_seq())
        if self.store.fleet.place().cursor >= int(task.notes["through"]):
            return _DONE
        return Step(JobState.TIMED_OUT, "DRAIN") if task.waited_s() > _DRAIN_S else None

    def renew_certificate(self, task: Task) -> Step | None:
        """Told when a broker has taken the new one."""
        if (self.folder / "next").exists():
            return None  # the link has not looked at it yet
        mark = hashlib.sha256((self.folder / "device.crt").read_bytes()).hexdigest()[:16]
        if "was" not in task.notes:
            task.note(was=mark, seq=self.store.journal.last_seq())
        if mark != task.notes["was"] and not (self.folder / "before").is_dir():
            return _DONE
        fell = self.store.journal.after(int(task.notes["seq"]), 20, (Kind.FLEET_LINK,))
        if any(fact.body.get("state") == "fell_back" for fact in fell):
            return Step(JobState.FAILED, "FELL_BACK")
        if task.row.id not in self._asked:
            self._asked.add(task.row.id)
            self.renew()
        return Step(JobState.TIMED_OUT, "RENEW") if task.waited_s() > _RENEW_S else None

    # Models ----------------------------------------------------------------------------------------------------

    def withdraw(self, task: Task) -> Step | None:
        """Out of service at once, with or without a predecessor; what would still bring it in ends too."""
        args = task.job.args
        name, version = str(args.package), str(args.version)
        row = self._row(name, version)
        is_here = row is not None and row.chosen and row.state is not PackageState.REMOVED
        if is_here and row is not None and row.state is not PackageState.WITHDRAWN:  # else: by us before a kill
            if args.digest and not row.digest.startswith(args.digest):
                return Step(JobState.FAILED, "DIGEST")
            why = f"job {task.job.ctr} of the fleet"
            self.store.packages.withdraw(name, why, version=version, owed=self.acts.owed, actor=task.actor)
        if not self._end_installs(task, name, version):
            return None
        return _DONE if is_here else Step(JobState.SUCCEEDED, "NOT_HERE")

    def roll_back(self, task: Task) -> Step | None:
        """The version before serves again. What was seen before the act tells after a kill whether it was done."""
        args = task.job.args
        name = str(args.package)
        if self.asks_site and not task.row.approved_by:
            return Step(JobState.WAIT_APPROVAL) if task.state is JobState.ACCEPTED else None
        rows = self.store.packages.all(name)
        serving = next((row for row in rows if row.state is PackageState.LIVE or row.is_missed), None)
        if "to" in task.notes:
            if serving is not None and serving.state is PackageState.LIVE and serving.version == task.notes["to"]:
                return _DONE
        else:
            previous = [row for row in rows if row.state is PackageState.RETIRED]
            if args.version and serving is not None and (serving.version, str(serving.state)) == (args.version, "live"):
                return Step(JobState.SUCCEEDED, "ALREADY")
            granted = granted_version(task.job)
            if granted is not None and serving is not None and serving.version != granted:
                return Step(JobState.FAILED, "VERSION")  # a roll-out takes back its own version, no other
            if serving is None or not previous:
                return Step(JobState.FAILED, "NO_PREDECESSOR")
            target = max(previous, key=lambda row: row.state_at)
            if args.version and target.version != args.version:
                return Step(JobState.FAILED, "VERSION")
            task.note(to=target.version, seen=serving.seen)
        why = f"job {task.job.ctr} of the fleet"
        seen = str(task.notes["seen"])
        try:
            self.store.packages.roll_back(name, why, owed=self.acts.owed, actor=task.actor, seen=seen)
        except (ConflictError, NotFoundError) as error:
            raise ActRefused("CONFLICT", str(error)) from error
        return _DONE

    def _row(self, name: str, version: str) -> PackageRow | None:
        """The newest row of a version."""
        return next((row for row in reversed(self.store.packages.all(name)) if row.version == version), None)

    def _end_installs(self, task: Task, name: str, version: str) -> bool:
        """An older job must not bring back what this one takes out. Returns whether none is left that would."""
        all_ended = True
        for row in self.store.fleet_jobs.open():
            if row.op != Op.MODEL_INSTALL:
                continue
            other = Task(self.store, row, job_of(row), task.hours)
            if (other.job.args.package, other.job.args.version) != (name, version):
                continue
            if other.state in (JobState.ACTIVATING, JobState.SOAKING):
                continue  # it finds the version withdrawn, and ends by that
            state = JobState.CANCELED if JobState.CANCELED in NEXT[other.state] else JobState.FAILED
            try:
                other.tell(Step(state, "WITHDRAWN"))
            except JobMoved:  # the slow stage took it a step on just now
                all_ended = False
        return all_ended
