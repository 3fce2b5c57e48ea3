"""The state machine of jobs under any history: nothing is done twice, and all comes to an end."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from fleet_jobs_kit import ALWAYS, DIGEST, JobBox
from hypothesis import given, settings
from hypothesis import strategies as st
from package_rows_kit import NAME

from appliance.fleet.wire import Op, WireError
from appliance.fleet.wire_jobs import ENDED, NEXT, JobState, check_step
from appliance.store.database import Database

SHM = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
#: Of these at most one a job; by the name of the fact or of the act.
ONCE = ("package_activated", "package_rolled_back", "package_withdrawn", "restart", "self_test", "restart_asked")

JOBS = st.one_of(
    st.sampled_from([Op.PING, Op.RESTART, Op.SELF_TEST, Op.DRAIN, Op.CERT_RENEW, Op.OS_UPDATE]).map(
        lambda op: ("job", {"op": op})
    ),
    st.sampled_from(["2.0.0", "4.0.0"]).map(
        lambda version: ("job", {"op": Op.MODEL_INSTALL, "version": version, "soak_h": 0, "soak_studies": 0})
    ),
    st.sampled_from(["1.0.0", "2.0.0", "3.0.0"]).map(
        lambda version: ("job", {"op": Op.MODEL_WITHDRAW, "package": NAME, "version": version})
    ),
    st.just(("job", {"op": Op.MODEL_ROLLBACK, "package": NAME})),
    st.just(("job", {"op": Op.RESTART, "exp": 1})),
)
DOINGS = st.one_of(
    JOBS,
    JOBS,
    st.tuples(st.just("again"), st.integers(0, 20)),
    st.just(("step", None)),
    st.tuples(st.just("killed after"), st.integers(0, 6)),
    st.tuples(st.just("killed before"), st.integers(0, 6)),
    st.tuples(st.just("clk"), st.sampled_from(["ntp", "rtc", "none"])),
    st.tuples(st.just("jump"), st.sampled_from([-40 * 86_400, -60, 60, 3600])),
    st.tuples(st.just("hours"), st.integers(0, 3)),
)


class Killed(BaseException):
    """The end of the process."""


class History:
    """A box, what it was given, and what it did over all its starts."""

    def __init__(self, root):
        self.box = JobBox(root)
        self.box.serve("1.0.0", "3.0.0")
        self.box.inbox.take_twin(self.box.twin(1, window=ALWAYS))
        self.given = []
        self.calls = Counter()
        self.highest = 0

    def keep(self):
        self.calls.update(self.box.acts.calls)
        self.box.acts.calls.clear()
        assert self.box.inbox.ctr >= self.highest
        self.highest = self.box.inbox.ctr

    def take(self, envelope):
        with contextlib.suppress(WireError):
            self.box.inbox.take_job(envelope)

    def job(self, changes):
        changes = dict(changes)
        if changes["op"] is Op.MODEL_INSTALL:
            changes |= {"package": NAME, "digest": DIGEST[changes["version"]], "target": "toy.zip"}
        self.given.append(self.box.job(**changes))
        self.take(self.given[-1])

    def step(self):
        self.box.quick.step()
        self.box.slow.step()

    def killed(self, writes, *, after):
        """Step until so many transactions were made, and die before or after the commit of the last."""
        left = writes
        real = Database.write

        @contextlib.contextmanager
        def write(db):
            nonlocal left
            left -= 1
            if left < 0 and not after:
                raise Killed
            with real(db) as tx:
                yield tx
            if left < 0:
                raise Killed

        Database.write = write
        try:
            for _ in range(12):
                self.step()
        except Killed:
            pass
        finally:
            Database.write = real
        self.restart()

    def restart(self):
        self.keep()
        self.box.restart()

    def do(self, what, how):
        if what == "job":
            self.job(how)
        elif what == "again" and self.given:
            self.take(self.given[how % len(self.given)])
        elif what == "step":
            self.step()
        elif what.startswith("killed"):
            self.killed(how, after=what.endswith("after"))
        elif what == "clk":
            self.box.clk = how
        elif what == "jump":
            self.box.clock.jump(how)
        elif what == "hours":
            self.box.clock.advance(how * 3600)
        self.keep()

    def end(self):
        """A day and more of a box that runs, starts anew once, and hears everything once more."""
        self.box.clk = "ntp"
        for envelope in self.given:
            self.take(envelope)
        for hour in range(80):
            self.box.clock.advance(3600)
            for _ in range(4):
                self.step()
            if hour in {1, 2, 3}:
                self.restart()
            if not self.box.store.fleet_jobs.open():
                break
        self.keep()


@pytest.mark.req("R-FLEET-42")
@settings(max_examples=settings.default.max_examples // 7)
@given(doings=st.lists(DOINGS, max_size=14))
def test_no_history_does_a_job_twice_lets_the_counter_fall_or_leaves_a_job_open(doings):
    with tempfile.TemporaryDirectory(dir=SHM) as root:
        history = History(root)
        for what, how in doings:
            history.do(what, how)
        history.end()
        box = history.box
        facts = box.store.journal.after(0, 100_000)
        rows = box.store.fleet_jobs.all()
        box.close()
    assert [(row.op, row.state) for row in rows if JobState(row.state) not in ENDED] == []
    done = Counter((str(fact.kind), fact.actor["name"]) for fact in facts if fact.actor["kind"] == "fleet")
    twice = {key: n for key, n in done.items() if key[0] in ONCE and n > 1}
    assert not twice
    ops = Counter(row.op for row in rows)
    assert history.calls["restart"] <= ops["restart"]
    assert history.calls["self_test"] <= ops["self_test"]
    _told_is_the_machine(facts)


def _told_is_the_machine(facts):
    """Every job is told from its beginning, without a gap, along the machine."""
    last = {}
    for fact in facts:
        if fact.kind != "fleet_job_step":
            continue
        body = fact.body
        before = last.get(body["job"])
        if before is None:
            assert (body["version"], body["state"] in {"ACCEPTED", "REJECTED"}) == (1, True)
        else:
            assert body["version"] == before["version"] + 1
            check_step(JobState(before["state"]), JobState(body["state"]))
        last[body["job"]] = body


@pytest.mark.req("R-FLEET-42")
def test_from_every_state_every_job_can_come_to_an_end():
    ends = set(ENDED)
    for _ in NEXT:
        ends |= {state for state, after in NEXT.items() if after & ends}
    assert ends == set(JobState)
