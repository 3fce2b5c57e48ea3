"""Jobs and desired documents: counters, the second signature, what goes to whom and when, what is lost and restored."""

from __future__ import annotations

import datetime as dt

import pytest
from fleet_kit import HOSPITAL, NOW, PLATFORM, ulid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import (
    approve_job,
    cancel_job,
    expire_jobs,
    lift_counters,
    make_job,
    set_desired,
    waiting_jobs,
)
from appliance.fleet.server.db import read, write
from appliance.fleet.server.ingest import Asked, Ingest
from appliance.fleet.server.key_rotation import changed_at
from appliance.fleet.server.many import boxes_for
from appliance.fleet.server.post import Post
from appliance.fleet.server.server_keys import ServerKeys, add_key, keys_of, retire_key, trust
from appliance.fleet.wire import JOB_TYPE, TWIN_TYPE, Address, Desired, Down, Get, Job, JobArgs, Op, Twin
from appliance.fleet.wire_grant import GRANT_TYPE, Grant, why_not_granted
from engines.errors import SignatureError
from engines.signing import generate, sign, verify

pytestmark = pytest.mark.req("R-FLEET-23")

EVERYTHING = registry.Scope.everything()
MODEL = JobArgs(package="ich-ct", version="2.0.0", digest="0123456789abcdef", target="models/ich-ct-2.0.0.zip")
MINUTE, DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)


class Office:
    """Who makes jobs, and the broker's side of sending them."""

    def __init__(self, engine, box, keys):
        self.engine, self.box, self.keys = engine, box, keys
        self.release = generate("approver")
        self.post = Post(keys)
        self.address = Address(HOSPITAL, box.device)
        with write(engine) as connection:
            add_key(connection, keys.online.public, "online", "server", now=NOW)
            add_key(connection, self.release.public, "release", "approver", now=NOW)

    def make(self, op=Op.PING, args=None, *, now=NOW, **more):
        with write(self.engine) as connection:
            return make_job(connection, self.keys, EVERYTHING, self.box.device, op, args, now=now, **more)

    def approve(self, job, key=None, *, now=NOW, **more):
        with write(self.engine) as connection:
            return approve_job(connection, self.keys, EVERYTHING, job, key or self.release, now=now, **more)

    def hear(self, *messages, now=NOW):
        with write(self.engine) as connection:
            return Ingest().apply(connection, messages, now)

    def due(self, now=NOW, post=None):
        with write(self.engine) as connection:
            return [self.read(one) for one in (post or self.post).due(connection, now)]

    def answer(self, *, ctr=0, dv=0, now=NOW, post=None):
        get = Get(sess=1, stream=ulid(1), dv=dv, ctr=ctr, seq=0, last_seq=0)
        with write(self.engine) as connection:
            found = (post or self.post).answer(connection, Asked(self.address, get), now)
        return [self.read(one) for one in found]

    def read(self, letter):
        """What a box would make of it."""
        assert letter.address == self.address
        if letter.name is Down.TWIN:
            return Twin.unpack(verify(letter.payload, TWIN_TYPE, [self.keys.online.public]).payload)
        return Job.unpack(verify(letter.payload, JOB_TYPE, [self.keys.online.public]).payload)

    def row(self, job):
        with read(self.engine) as connection:
            return connection.execute(select(t.job).where(t.job.c.id == job.id)).one()


@pytest.fixture
def office(engine, box, tmp_path):
    return Office(engine, box, ServerKeys.open(tmp_path / "keys"))


@pytest.fixture
def there(office):
    """The box is online."""
    office.hear(office.box.birth())
    return office


def test_counters_rise_with_every_job_and_with_what_the_box_says_that_it_has(office):
    assert [office.make().ctr, office.make().ctr] == [1, 2]
    office.hear(office.box.get(ctr=40))
    assert office.make().ctr == 41


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(acts=st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=12))
def test_whatever_a_box_says_the_next_counter_is_above_all_before(office, acts):
    highest = 0
    with read(office.engine) as connection:
        highest = connection.execute(select(t.device_counter.c.ctr)).scalar_one_or_none() or 0
    for told in acts:
        if told is None:
            made = office.make()
            assert made.ctr > highest
            highest = made.ctr
        else:
            office.hear(office.box.get(ctr=told))
            highest = max(highest, told)


def test_a_job_goes_out_once_to_a_box_that_is_there(there):
    job = there.make(Op.RESTART)
    assert there.due() == [job]
    assert there.due() == []
    assert (job.aud, job.op, job.nonce) == (there.box.device, Op.RESTART, "")
    assert job.nbf < int(NOW.timestamp() * 1000) < job.exp


@pytest.mark.req("R-TUF-03")
def test_a_change_of_keys_is_asked_of_each_box_that_lacks_it_and_of_none_twice(there):
    late, later = NOW + MINUTE, NOW + 2 * MINUTE

    def asked(op=Op.ROOT_UPDATE, now=later):
        with read(there.engine) as connection:
            return boxes_for(connection, op, EVERYTHING, now)

    with read(there.engine) as connection:
        assert changed_at(connection) == NOW
    assert asked() == [], "it enrolled with these keys"
    there.make(Op.ROOT_UPDATE)
    with write(there.engine) as connection:
        add_key(connection, generate("second").public, "release", "second", now=late)
    assert asked() == [there.box.device], "what it was asked before brings the keys of before"
    job = there.make(Op.ROOT_UPDATE, now=later)
    assert asked() == []
    assert asked(now=later + 8 * DAY) == [there.box.device], "it was away until the job had expired"
    with write(there.engine) as connection:
        connection.execute(update(t.job).where(t.job.c.id == job.id).values(state="REJECTED"))
    assert asked() == [there.box.device]
    with write(there.engine) as connection:
        connection.execute(update(t.job).where(t.job.c.id == job.id).values(state="SUCCEEDED"))
    assert (asked(), asked(Op.PING)) == ([], [there.box.device])


def test_what_was_made_before_the_server_s_key_changed_is_read_by_boxes_that_know_the_new_one_alone(there, tmp_path):
    job = there.make()
    with write(there.engine) as connection:
        set_desired(connection, there.keys, EVERYTHING, there.box.device, Desired(health_every_s=30), now=NOW)
    old, there.keys = there.keys, ServerKeys.open(tmp_path / "next")
    found = there.answer(post=Post(there.keys))
    assert [type(one) for one in found] == [Job, Twin]
    assert found[0] == job
    there.keys = old
    assert len(there.answer(post=Post(ServerKeys.open(tmp_path / "next")))) == 2, "nor is one that knows the old alone"


def test_a_box_that_is_away_is_written_to_when_it_comes_back(office):
    first, second = office.make(), office.make(Op.SELF_TEST)
    assert office.due() == []
    assert office.answer() == [first, second]
    assert office.answer(ctr=first.ctr) == [second]
    assert office.answer(ctr=second.ctr) == []


def test_what_was_sent_and_lost_goes_again_on_the_next_connect(there):
    job = there.make()
    assert there.due() == [job]
    assert there.answer(ctr=0) == [job]


def test_an_expired_job_goes_to_nobody_and_is_given_up(there):
    job = there.make(life=MINUTE)
    late = NOW + 2 * MINUTE
    assert (there.due(late), there.answer(now=late)) == ([], [])
    with write(there.engine) as connection:
        assert expire_jobs(connection, late) == 0  # the box may have taken it at the last moment
        assert expire_jobs(connection, NOW + DAY) == 1
    assert (there.row(job).state, there.row(job).code) == ("TIMED_OUT", "EXPIRED")


@pytest.mark.req("R-FLEET-24")
def test_what_changes_models_waits_for_a_release_key(there):
    job = there.make(Op.MODEL_INSTALL, MODEL)
    assert (there.due(), there.answer()) == ([], [])
    with read(there.engine) as connection:
        assert [row.id for row in waiting_jobs(connection, EVERYTHING, NOW)] == [job.id]
    assert there.approve(job.id)
    (sent,) = there.due()
    assert (sent.id, sent.args) == (job.id, MODEL)
    envelope = there.row(job).envelope
    assert verify(envelope, JOB_TYPE, [there.release.public]).payload
    with read(there.engine) as connection:
        assert waiting_jobs(connection, EVERYTHING, NOW) == []


@pytest.mark.req("R-FLEET-24")
def test_a_job_that_waited_is_newer_than_what_went_meanwhile(there):
    job = there.make(Op.MODEL_WITHDRAW, JobArgs(package="ich-ct", version="1.0.0"))
    ping = there.make()
    there.approve(job.id)
    assert [(one.id, one.ctr) for one in there.due()] == [(ping.id, 2), (job.id, 3)]


@pytest.mark.req("R-FLEET-24")
def test_no_other_key_approves_and_nothing_is_approved_twice_or_too_late(there):
    job = there.make(Op.MODEL_INSTALL, MODEL)
    stranger = generate("stranger")
    with pytest.raises(ConflictError, match="no box trusts"):
        there.approve(job.id, stranger)
    with pytest.raises(ConflictError, match="no box trusts"):
        there.approve(job.id, there.keys.online)  # the server's own is not the second person's
    with pytest.raises(ConflictError, match="expired"):
        there.approve(job.id, now=NOW + 8 * DAY)
    ping = there.make()
    with pytest.raises(ConflictError, match="waits for no signature"):
        there.approve(ping.id)
    there.approve(job.id)
    there.due()
    with pytest.raises(ConflictError, match="waits for no signature"):
        there.approve(job.id)
    with write(there.engine) as connection:
        retire_key(connection, there.release.public.keyid, now=NOW)
        assert keys_of(connection, "release") == ()
    again = there.make(Op.MODEL_INSTALL, MODEL)
    with pytest.raises(ConflictError, match="no box trusts"):
        there.approve(again.id)


@pytest.mark.req("R-FLEET-24")
def test_where_two_must_approve_one_is_not_enough_and_the_same_twice_is_one(there):
    second = generate("second")
    with write(there.engine) as connection:
        add_key(connection, second.public, "release", "second", now=NOW)
        assert trust(connection, 2).release_threshold == 2
    there.post = Post(there.keys, threshold=2)
    job = there.make(Op.MODEL_INSTALL, MODEL)
    assert not there.approve(job.id, threshold=2)
    assert not there.approve(job.id, threshold=2)
    assert there.due() == []
    assert there.approve(job.id, second, threshold=2)
    assert [one.id for one in there.due()] == [job.id]
    found = verify(there.row(job).envelope, JOB_TYPE, [there.release.public, second.public], threshold=2)
    assert len(found.keyids) == 2


@pytest.mark.req("R-FLEET-24")
def test_between_two_approvals_another_job_may_go_and_then_the_first_approver_signs_again(there):
    second = generate("second")
    with write(there.engine) as connection:
        add_key(connection, second.public, "release", "second", now=NOW)
    there.post = Post(there.keys, threshold=2)
    job = there.make(Op.MODEL_INSTALL, MODEL)
    there.approve(job.id, threshold=2)
    ping = there.make()
    assert [one.id for one in there.due()] == [ping.id]
    assert not there.approve(job.id, second, threshold=2)  # the first was of a counter that is too low by now
    assert there.due() == []
    assert there.approve(job.id, threshold=2)
    assert [(one.id, one.ctr) for one in there.due()] == [(job.id, ping.ctr + 1)]


@pytest.mark.req("R-FLEET-23")
def test_jobs_that_wait_for_a_signature_keep_no_other_from_going(there, monkeypatch):
    monkeypatch.setattr("appliance.fleet.server.post._MOST_AT_ONCE", 1)
    there.post = Post(there.keys, threshold=2)
    there.approve(there.make(Op.MODEL_INSTALL, MODEL).id, threshold=2)  # one of two
    ping, restart = there.make(), there.make(Op.RESTART)
    assert [one.id for one in there.due()] == [ping.id]
    assert [one.id for one in there.due()] == [restart.id]


def test_only_what_has_not_gone_can_be_taken_back(there):
    kept, gone = there.make(Op.MODEL_INSTALL, MODEL), there.make()
    there.due()
    with write(there.engine) as connection:
        cancel_job(connection, EVERYTHING, kept.id, now=NOW)
        with pytest.raises(ConflictError, match="cannot be taken back"):
            cancel_job(connection, EVERYTHING, gone.id, now=NOW)
    assert there.row(kept).state == "CANCELED"
    with pytest.raises(ConflictError):
        there.approve(kept.id)


def test_a_box_that_cannot_tell_the_time_is_given_its_nonce_where_something_changes(office):
    office.hear(office.box.birth(clk="none", nonce="ab12"))
    assert (office.make(Op.RESTART).nonce, office.make(Op.PING).nonce) == ("ab12", "")


def test_arguments_are_those_of_the_op_and_a_box_that_is_heard_no_more_is_told_nothing(there):
    for op, args in ((Op.PING, MODEL), (Op.MODEL_INSTALL, None), (Op.RESEND, JobArgs())):
        with pytest.raises(ConflictError, match="arguments"):
            there.make(op, args)
    job = there.make()
    with write(there.engine) as connection:
        registry.disable_device(connection, EVERYTHING, there.box.device, now=NOW)
    assert (there.due(), there.answer()) == ([], [])
    with pytest.raises(ConflictError, match="told nothing"):
        there.make()
    assert there.row(job).state == "QUEUED"


@pytest.mark.req("R-FLEET-27")
def test_another_tenant_makes_approves_sees_and_cancels_nothing(there):
    job = there.make(Op.MODEL_INSTALL, MODEL)
    with write(there.engine) as connection:
        kind = registry.TenantKind.HOSPITAL
        registry.add_tenant(connection, "hospital-02", "Other", kind, parent=PLATFORM, now=NOW)
        theirs = registry.Scope.of(connection, "hospital-02")
        with pytest.raises(NotFoundError):
            make_job(connection, there.keys, theirs, there.box.device, Op.PING, now=NOW)
        with pytest.raises(NotFoundError):
            approve_job(connection, there.keys, theirs, job.id, there.release, now=NOW)
        with pytest.raises(NotFoundError):
            cancel_job(connection, theirs, job.id, now=NOW)
        with pytest.raises(NotFoundError):
            set_desired(connection, there.keys, theirs, there.box.device, Desired(), now=NOW)
        assert waiting_jobs(connection, theirs, NOW) == []


# A restored server ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-26")
def test_after_a_restore_what_was_made_too_low_gets_a_counter_above_the_box(office):
    """The backup knew of counter 1; the box has taken 9 since. A job made before the box was heard has 2."""
    office.make()
    low = office.make(Op.RESTART)
    model = office.make(Op.MODEL_INSTALL, MODEL)
    office.approve(model.id)
    office.hear(office.box.get(ctr=9))
    sent = office.answer(ctr=9)
    assert [(one.op, one.ctr) for one in sent] == [(Op.PING, 10), (Op.RESTART, 11)]
    assert sent[1].id == low.id  # the box would know it again
    with read(office.engine) as connection:
        assert [row.id for row in waiting_jobs(connection, EVERYTHING, NOW)] == [model.id]  # signed for another counter
    office.approve(model.id)
    assert [one.ctr for one in office.answer(ctr=11)] == [12]


@pytest.mark.req("R-FLEET-26")
def test_a_server_that_was_restored_writes_to_nobody_before_it_has_heard_what_the_box_has(there):
    """The backup knew of counter 1; the box, back at once, has 9, and would refuse a 2 as a replay, for good."""
    there.post = Post(there.keys, hears_first=True)
    first, second = there.make(), there.make(Op.RESTART)
    assert there.due() == []
    there.hear(there.box.get(ctr=9))
    sent = there.answer(ctr=9)
    assert [(one.id, one.ctr) for one in sent] == [(first.id, 10), (second.id, 11)]
    assert [one.ctr for one in (there.make(), *there.due())] == [12, 12]


@pytest.mark.req("R-FLEET-26")
def test_a_server_that_was_restored_is_obeyed_also_where_what_the_box_has_got_lost(there):
    """The backup knew of counter 1 and document 1; the box has 9 of each, and what it says of that never comes."""
    there.make()
    with write(there.engine) as connection:
        set_desired(connection, there.keys, EVERYTHING, there.box.device, Desired(), now=NOW)
    with write(there.engine) as connection:
        lift_counters(connection, NOW)  # the server starts
    job = there.make(Op.RESTART)
    with write(there.engine) as connection:
        dv = set_desired(connection, there.keys, EVERYTHING, there.box.device, Desired(held=True), now=NOW)
    assert min(job.ctr, dv) > 9
    with write(there.engine) as connection:
        lift_counters(connection, NOW - 400 * DAY)  # a clock that went back takes nothing back
    assert there.make().ctr == job.ctr + 1
    # Restored once more, an hour later: above what that life of it gave too.
    with write(there.engine) as connection:
        connection.execute(update(t.device_counter).values(ctr=1, dv=1))
        lift_counters(connection, NOW + 60 * MINUTE)
    assert there.make().ctr > job.ctr + 1


def test_a_box_that_was_told_nothing_yet_has_its_counters_lifted_too(office):
    with write(office.engine) as connection:
        lift_counters(connection, NOW)
    assert office.make().ctr > 9


def test_a_box_whose_word_got_lost_while_the_broker_started_is_not_waited_for_long(there):
    there.post = Post(there.keys, hears_first=True)
    job = there.make()
    assert there.due() == []
    assert there.due(now=NOW + MINUTE / 6) == []
    assert [one.id for one in there.due(now=NOW + MINUTE / 3)] == [job.id]


@pytest.mark.req("R-FLEET-26")
def test_after_a_restore_a_job_under_a_grant_gets_a_counter_above_the_box_and_needs_no_key_again(office):
    until = int((NOW + 5 * DAY).timestamp() * 1000)
    grant = Grant(
        id=ulid(9),
        tenant=HOSPITAL,
        package=MODEL.package,
        version=MODEL.version,
        digest=MODEL.digest,
        target=MODEL.target,
        role="silent",
        ops=("model.install",),
        soak_h=24,
        soak_studies=50,
        nbf=int(NOW.timestamp() * 1000),
        exp=until,
    )
    signed = sign(GRANT_TYPE, grant.model_dump_json(exclude_none=True).encode(), [office.release])
    args = MODEL.model_copy(update={"role": "silent", "soak_h": 24, "soak_studies": 50})
    made = office.make(Op.MODEL_INSTALL, args, grant=signed)
    assert made.exp == until
    office.hear(office.box.get(ctr=9))
    (sent,) = office.answer(ctr=9)
    assert (sent.id, sent.ctr, sent.exp) == (made.id, 10, until)
    assert why_not_granted(sent, [office.release.public], 1, HOSPITAL, until - 1000) == ""
    with read(office.engine) as connection:
        assert waiting_jobs(connection, EVERYTHING, NOW) == []


@pytest.mark.req("R-FLEET-26")
def test_a_job_that_is_on_its_way_is_not_given_another_counter(there):
    job = there.make()
    there.due()
    there.hear(there.box.get(ctr=job.ctr))
    assert there.answer(ctr=job.ctr, now=NOW + MINUTE) == []  # taken; its first step comes with the next batch
    again = there.answer(ctr=job.ctr, now=NOW + 11 * MINUTE)  # never came
    assert [(one.id, one.ctr) for one in again] == [(job.id, job.ctr + 1)]


@pytest.mark.req("R-FLEET-26")
def test_after_a_restore_the_next_document_is_newer_than_what_the_box_has(office):
    with write(office.engine) as connection:
        assert set_desired(connection, office.keys, EVERYTHING, office.box.device, Desired(), now=NOW) == 1
    office.hear(office.box.get(dv=30))
    assert office.answer(dv=30) == []
    with write(office.engine) as connection:
        held = Desired(held=True)
        assert set_desired(connection, office.keys, EVERYTHING, office.box.device, held, now=NOW) == 31
    (twin,) = office.answer(dv=30)
    assert (twin.dv, twin.desired.held, twin.aud) == (31, True, office.box.device)


# Desired documents ---------------------------------------------------------------------------------------------------


def test_a_document_goes_once_to_a_box_that_is_there_and_again_when_it_connects_without_it(there):
    with write(there.engine) as connection:
        set_desired(connection, there.keys, EVERYTHING, there.box.device, Desired(health_every_s=30), now=NOW)
    with read(there.engine) as connection:
        assert there.post.waits(connection)
    (twin,) = there.due()
    assert twin.desired.health_every_s == 30
    assert there.due() == []
    with read(there.engine) as connection:
        assert not there.post.waits(connection)
    assert len(there.answer(dv=0)) == 1
    assert there.answer(dv=1) == []
    assert len(there.due(post=Post(there.keys))) == 1  # a server that was started anew
    there.hear(there.box.report(rv=1, applied_dv=1))
    assert there.due(post=Post(there.keys)) == []


def test_every_act_is_in_the_audit_and_the_chain_holds(there):
    job = there.make(Op.MODEL_INSTALL, MODEL, actor="li")
    there.approve(job.id, actor="wang")
    with write(there.engine) as connection:
        set_desired(connection, there.keys, EVERYTHING, there.box.device, Desired(), now=NOW, actor="li")
        rows = connection.execute(select(t.audit.c.act, t.audit.c.actor).order_by(t.audit.c.number)).all()
        assert rows == [("job.make", "li"), ("job.approve", "wang"), ("twin.set", "li")]
        assert registry.broken_audit(connection) is None
        connection.execute(update(t.audit).where(t.audit.c.act == "job.approve").values(actor="li"))
        assert registry.broken_audit(connection) == 2


def test_the_server_key_is_one_file_for_its_owner_and_signs_nothing_for_others(tmp_path):
    keys = ServerKeys.open(tmp_path / "keys")
    assert (tmp_path / "keys" / "online.key").stat().st_mode & 0o077 == 0
    again = ServerKeys.open(tmp_path / "keys")
    assert again.online.public == keys.online.public
    with pytest.raises(SignatureError):
        verify(keys.sign(JOB_TYPE, b"x"), TWIN_TYPE, [keys.online.public])
