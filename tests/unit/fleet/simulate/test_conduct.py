"""What a simulated box does with a model's job is what the state machine of a job allows, and what it says fits."""

from __future__ import annotations

import datetime as dt
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.keys import DeviceKey
from appliance.fleet.server.materialise import hour_of
from appliance.fleet.simulate.boxes import Figures, SimulatedBox, ulid_of
from appliance.fleet.simulate.codec import Publish
from appliance.fleet.simulate.conduct import Conduct, Slots, equipment, package_states, plan, results
from appliance.fleet.wire import JOB_TYPE, TWIN_TYPE, Batch, Desired, Get, Job, JobArgs, Op, Reported, Twin, unpack
from appliance.fleet.wire_jobs import ENDED, NEXT, JobState
from engines.signing import generate, sign

OLD, NEW = ("1.0.0", "a" * 64), ("2.0.0", "b" * 64)


def job(op=Op.MODEL_INSTALL, ctr=1, **args):
    given = {"package": "chest", "version": NEW[0], "digest": NEW[1], "target": "models/chest/2.0.0.zip"}
    given = given if op is Op.MODEL_INSTALL else {}
    return Job(id=ulid_of(ctr), aud="box-0000001", ctr=ctr, nbf=0, exp=2**41, op=op, args=JobArgs(**{**given, **args}))


def states(planned):
    return [JobState(one.told[0].state) for one in planned]


def done(slots, one, conduct=None):
    """The steps of a job, after which ``slots`` are what the box has."""
    planned = plan(one, slots, conduct or Conduct(), random.Random(1))
    for step in planned:
        for package, version in step.serves.items():
            slots.setdefault(package, Slots()).take(version)
    return planned


@pytest.mark.req("R-FLEET-93")
@given(
    fails=st.sampled_from([None, JobState.SELFTEST, JobState.SOAKING]),
    op=st.sampled_from([Op.MODEL_INSTALL, Op.MODEL_ROLLBACK, Op.MODEL_WITHDRAW, Op.PING]),
    live=st.sampled_from([None, OLD, NEW]),
    before=st.sampled_from([None, OLD]),
    step_s=st.sampled_from([(0.0, 0.0), (0.1, 2.0)]),
)
def test_every_job_goes_only_where_a_job_may_go_and_comes_to_an_end(fails, op, live, before, step_s):
    conduct = Conduct(step_s=step_s, fails={} if fails is None else {NEW[0]: fails})
    asked = job(op) if op in (Op.MODEL_INSTALL, Op.PING) else job(op, package="chest", version=NEW[0])
    planned = plan(asked, {"chest": Slots(live, before)}, conduct, random.Random(3))
    gone = states(planned)
    assert gone[0] is JobState.ACCEPTED
    assert gone[-1] in ENDED
    for one, after in pairwise(gone):
        assert after in NEXT[one]
    assert [one.told[0].version for one in planned] == list(range(1, len(planned) + 1))
    assert all(step_s[0] <= one.after_s <= step_s[1] for one in planned[1:])


@pytest.mark.req("R-FLEET-93")
def test_a_good_version_serves_and_a_roll_back_brings_the_one_before_again():
    slots = {"chest": Slots(live=OLD)}
    assert states(done(slots, job()))[-1] is JobState.SUCCEEDED
    assert [one.version for one in package_states(slots)] == ["2.0.0"]
    assert states(done(slots, job(ctr=2)))[-1] is JobState.ALREADY_INSTALLED
    done(slots, job(Op.MODEL_ROLLBACK, ctr=3, package="chest", version=OLD[0]))
    assert [one.version for one in package_states(slots)] == ["1.0.0"]


@pytest.mark.req("R-FLEET-93")
def test_a_version_that_fails_its_self_test_never_serves():
    slots = {"chest": Slots(live=OLD)}
    planned = done(slots, job(), Conduct(fails={NEW[0]: JobState.SELFTEST}))
    assert planned[-1].told[0].code == "GOLDEN"
    assert states(planned)[-1] is JobState.FAILED
    assert all(not step.serves for step in planned)


@pytest.mark.req("R-FLEET-93")
def test_a_version_that_fails_while_it_soaks_goes_back_by_itself():
    slots = {"chest": Slots(live=OLD)}
    planned = done(slots, job(), Conduct(fails={NEW[0]: JobState.SOAKING}, code="ERROR_RATE"))
    assert states(planned)[-2:] == [JobState.SOAKING, JobState.ROLLED_BACK]
    assert [(one.version, one.state) for one in planned[-1].told[1:]] == [
        ("2.0.0", "withdrawn"),
        ("1.0.0", "rolled_back"),
    ]
    assert [one.version for one in package_states(slots)] == ["1.0.0"]


@pytest.mark.req("R-FLEET-93")
def test_alerts_come_at_the_rate_that_a_version_has_on_the_box():
    conduct, rng = Conduct(alerts={"2.0.0": 0.3}, usual_alerts=0.1, studies=200), random.Random(5)
    at = dt.datetime(2026, 3, 2, tzinfo=dt.timezone.utc)
    told = {version: results("chest", version, at, conduct, rng, hours=24) for version in ("1.0.0", "2.0.0")}
    rates = {version: one.flagged["finding"] / one.n for version, one in told.items()}
    assert (rates["1.0.0"], rates["2.0.0"]) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.3, abs=0.02))
    assert hour_of(told["1.0.0"]) == at
    assert told["1.0.0"].n == 24 * 200 == told["1.0.0"].nothing_flagged + told["1.0.0"].flagged["finding"]


def down(box, name, kind, document):
    box.hear(Publish(f"scanside/v1/{box.tenant}/{box.device}/dn/{name}", sign(kind, document.pack()[0], [generate()])))


@pytest.mark.req("R-FLEET-93")
def test_what_takes_time_is_told_step_by_step_and_the_desired_document_is_reported():
    conduct = Conduct(step_s=(1.0, 1.0))
    key = DeviceKey.generate()
    box = SimulatedBox("box-0000001", "hospital-01", key, 1, Figures(), conduct=conduct, slots={"chest": Slots(OLD)})
    box.record(equipment(1, ("DX", "SIEMENS", "Ysio Max")))
    down(box, "job", JOB_TYPE, job())
    chain = box.agenda.popleft()
    told = []
    while chain:
        box.do(chain)
        told.append([one.d for one in unpack(Batch, list(box.pending.values())[-1].message.payload).recs])
    assert [one[0].state for one in told][-1] == "SUCCEEDED"
    assert box.slots["chest"].live == NEW
    down(box, "twin", TWIN_TYPE, Twin(aud=box.device, dv=4, desired=Desired(held=True)))
    report = unpack(Reported, box.owed.popleft().payload)
    assert (report.applied_dv, report.desired.held) == (4, True)
    assert unpack(Get, box.get().payload).dv == 4
