"""Whatever boxes answer and people do: what a roll-out never does."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rollout_kit import EVERYTHING, RELEASE, STRANGER, PaperFleet
from sqlalchemy import select

from appliance.errors import ConflictError
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import is_complete
from appliance.fleet.server.db import read, write
from appliance.fleet.server.rollout import drive, query
from appliance.fleet.server.server_keys import keys_of
from appliance.fleet.wire_jobs import ENDED, NEXT, JobState

_ANSWERS = {
    "SUCCEEDED": "",
    "SOAKING": "",
    "DOWNLOADING": "",
    "WAIT_APPROVAL": "",
    "FAILED": "DISK_FULL",
    "ROLLED_BACK": "ERROR_RATE",
    "REJECTED": "REFUSED_BY_SITE",
    "TIMED_OUT": "EXPIRED",
}
_ACTS = ("submit", "approve", "start", "pause", "resume", "abort", "revert")


def may(before, after):
    """Whether a box that is here can have come to be there."""
    reached, edge = {before}, [JobState(before)]
    while edge:
        for state in NEXT[edge.pop()]:
            if str(state) not in reached:
                reached.add(str(state))
                edge.append(state)
    return after in reached and before != after


@pytest.mark.req("R-FLEET-72")
@pytest.mark.parametrize("examples", [6, pytest.param(60, marks=pytest.mark.long)])
def test_whatever_boxes_answer_and_people_do(paper_template, tmp_path, monkeypatch, examples):
    counts = Counter()

    def ends(facts, gates, judge=drive.judge):
        """Of results there are none in this world: a person has said so beforehand."""
        judged = judge(facts, gates)
        return drive.Judged(tuple(one for one in judged.verdicts if one.gate not in {"alerts", "latency"}), {})

    monkeypatch.setattr(drive, "judge", ends)

    class Whole(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            counts["runs"] += 1
            folder = tmp_path / str(counts["runs"])
            shutil.copytree(paper_template, folder)
            self.db = db.open_engine(f"sqlite:///{folder / 'fleet.db'}")
            self.fleet = PaperFleet(self.db, folder)
            self.held = []
            self.seen_jobs = 0
            self.accepted_waves = set()

        @initialize(per_minute=st.sampled_from([1, 3, 100]), is_ready=st.booleans())
        def made(self, per_minute, is_ready):
            self.ident = self.fleet.make(soak_studies=0, soak_h=1, patience_h=5, timeout_h=30, per_minute=per_minute)
            if is_ready:
                self.fleet.act("submit", self.ident)
                self.fleet.act("approve", self.ident, who="checker", release=RELEASE)
                self.fleet.act("start", self.ident)

        @rule(later=st.sampled_from([0, 2, 30, 3600, 6 * 3600, 31 * 3600]))
        def step(self, later):
            before = self.fleet.row(self.ident)
            verdicts = self._verdicts(before.wave)
            self.fleet.step(dt.timedelta(seconds=later))
            after = self.fleet.row(self.ident)
            if after.wave > before.wave > 0:
                verdicts = self._verdicts(before.wave)
                assert all(one.word == "passed" or (one.word == "not_judged" and one.accepted) for one in verdicts)
                if any(one.word != "passed" for one in verdicts):
                    assert self.fleet.audit("rollout.resume")
                counts["waves"] += 1

        @rule(which=st.integers(0, 11), state=st.sampled_from(sorted(_ANSWERS)))
        def answer(self, which, state):
            box = self.fleet.boxes(self.ident)[which]
            for job in (box.revert_job, box.job):
                found = next((one for one in self.fleet.jobs() if one.id == job), None)
                if found is not None and may(found.state, state):
                    self.fleet.say(job, state, _ANSWERS[state])
                    return

        @rule(state=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "SOAKING"]))
        def all_answer(self, state):
            for job in self.fleet.jobs():
                if JobState(job.state) not in ENDED and may(job.state, state):
                    self.fleet.say(job.id, state)

        @rule(days=st.integers(1, 3))
        def good_days(self, days):
            """So that some get far: all who are told do as they are told."""
            for _ in range(days):
                self.step(0)
                self.step(61)
                self.all_answer("SUCCEEDED")
                self.never()

        @rule(name=st.sampled_from(_ACTS), who=st.sampled_from(["maker", "checker"]), key=st.booleans())
        def act(self, name, who, key):
            more = {"release": RELEASE if key else STRANGER} if name == "approve" else {}
            with contextlib.suppress(ConflictError):
                self.fleet.act(name, self.ident, who=who, **more)
                counts[name] += 1

        @rule(which=st.integers(0, 11))
        def hold(self, which):
            self.held.append(self.fleet.hold("device", self.fleet.devices[which]))

        @precondition(lambda self: self.held)
        @rule()
        def lift(self):
            self.fleet.lift(self.held.pop())

        @rule(which=st.integers(0, 11), online=st.booleans())
        def line(self, which, online):
            with write(self.db) as connection:
                self.fleet.put_online(connection, self.fleet.devices[which], online=online)

        @rule(which=st.integers(0, 11))
        def disable(self, which):
            with write(self.db) as connection:
                device = t.device.c
                connection.execute(
                    t.device.update().where(device.id == self.fleet.devices[which]).values(state="disabled")
                )

        def _verdicts(self, wave):
            return self.fleet.page(self.ident).waves[wave - 1].verdicts if wave else ()

        @invariant()
        def never(self):
            if not hasattr(self, "ident"):
                return
            page, jobs = self.fleet.page(self.ident), self.fleet.jobs()
            installs = [one for one in jobs if one.op == "model.install"]
            state = str(page.row.state)
            # One wave at a time.
            assert sum(str(one.state) == "RUNNING" for one in page.waves) <= 1
            # A box is told once, in its own wave and in none that has not begun.
            assert len({one.device for one in installs}) == len(installs)
            boxes = {one.device: one for one in self.fleet.boxes(self.ident)}
            assert len(boxes) == len(self.fleet.devices)
            assert all(boxes[one.device].wave == one.wave <= page.row.wave for one in installs)
            assert all(boxes[one.device].job == one.id for one in installs)
            # Nothing without a grant; nothing before an approval of two.
            with read(self.db) as connection:
                release = keys_of(connection, "release")
                row = connection.execute(select(t.roll_out)).one()
            assert all(is_complete(one.envelope, one.op, release, 1) for one in installs)
            if installs:
                assert row.approved_by not in (None, row.made_by)
            # Standing still is standing still: nothing was made since.
            if state not in {"RUNNING", "REVERTING"}:
                assert len(jobs) == self.seen_jobs or not self.was_still
            self.was_still, self.seen_jobs = state not in {"RUNNING", "REVERTING"}, len(jobs)
            # No faster than the plan.
            rate = page.plan.per_minute
            for op in ({"model.install"}, {"model.rollback", "model.withdraw"}):
                made = sorted(one.made_at for one in jobs if one.op in op)
                for first, last in zip(made, made[rate:], strict=False):
                    assert last - first >= dt.timedelta(minutes=1)
            # Held boxes are not told; who is taken back is told back once, or once more where that could not be.
            # and again where that was given up.
            backs = Counter(one.device for one in jobs if one.op != "model.install" and one.state != "TIMED_OUT")
            assert all(n <= 2 for n in backs.values())
            # A list counts as the page does.
            with read(self.db) as connection:
                (listed,) = query.list_roll_outs(connection, EVERYTHING, self.fleet.now)
            assert listed.counts == page.row.counts
            counts["jobs"] = max(counts["jobs"], len(jobs))

        was_still = False

        def teardown(self):
            self.db.dispose()

    run = settings(
        max_examples=examples,
        stateful_step_count=30,
        derandomize=examples < 10,
        # What fails says so at once; looking for the shortest way there takes minutes.
        phases=[Phase.generate] if examples < 10 else list(Phase),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    Whole.TestCase.settings = run
    Whole.TestCase().runTest()
    # It went somewhere.
    assert counts["waves"] > 0
    assert counts["jobs"] > 6
