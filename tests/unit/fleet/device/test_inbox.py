"""Jobs that come: what the server has not signed does nothing, and what it has is taken once, in order, in time."""

from __future__ import annotations

import json

import pytest
from fleet_jobs_kit import JobBox, keys
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import StoreError
from appliance.fleet.wire import JOB_TYPE, TWIN_TYPE, Op, WireError
from engines import signing
from engines.errors import SignatureError


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock)
    yield made
    made.close()


def told(box):
    """States and codes of all jobs that the server hears of."""
    facts = box.store.journal.after(0, 10_000)
    return [(f.body["ctr"], f.body["state"], f.body["code"]) for f in facts if f.kind == "fleet_job_step"]


@pytest.mark.req("R-FLEET-40")
def test_signed_job_is_kept_with_its_counter_before_anything_of_it_is_done(box):
    job = box.give(Op.RESTART)
    assert (job.state, job.ctr, box.inbox.ctr) == ("ACCEPTED", 1, 1)
    assert box.acts.calls == []
    assert told(box) == [(1, "ACCEPTED", "")]


@pytest.mark.req("R-FLEET-40")
def test_row_and_counter_come_together_or_not_at_all(box, monkeypatch):
    """A counter that rose without its job would refuse the job for ever; a job without it could be played again."""
    envelope = box.job()
    with box.store.db.write() as tx:
        tx.execute("CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(StoreError):
        box.inbox.take_job(envelope)
    assert (box.inbox.ctr, box.store.fleet_jobs.all()) == (0, [])
    with box.store.db.write() as tx:
        tx.execute("DROP TRIGGER full")
    assert box.inbox.take_job(envelope).state == "ACCEPTED"


@pytest.mark.req("R-FLEET-40")
@pytest.mark.parametrize(
    "forge",
    [
        lambda box: box.job(sign=("stranger",)),
        lambda box: box.job(sign=("release",)),
        lambda box: signing.sign(TWIN_TYPE, b"{}", [keys()["online"]]),
        lambda box: box.job().replace(b'"payload": "', b'"payload": "AAAA'),
        lambda _: b"no envelope at all",
        lambda _: b'{"payload": "", "payloadType": 1, "signatures": []}',
    ],
    ids=["stranger", "release key alone", "another type", "altered", "garbage", "no envelope"],
)
def test_what_the_server_has_not_signed_raises_an_issue_and_leaves_no_row(box, forge):
    with pytest.raises(SignatureError):
        box.inbox.take_job(forge(box))
    assert "FLEET_FORGED" in box.issues()
    assert (box.store.fleet_jobs.all(), box.inbox.ctr, box.inbox.refused["FORGED"]) == ([], 0, 1)


@pytest.mark.req("R-FLEET-40")
def test_issue_of_a_forgery_ends_when_nobody_forged_for_a_day(box, clock):
    with pytest.raises(SignatureError):
        box.inbox.take_job(box.job(sign=("stranger",)))
    clock.advance(23 * 3600)
    box.run()
    assert "FLEET_FORGED" in box.issues()
    clock.advance(2 * 3600)
    box.run()
    assert "FLEET_FORGED" not in box.issues()


@pytest.mark.req("R-FLEET-40")
def test_job_for_another_device_is_counted_and_takes_no_counter_of_ours(box):
    with pytest.raises(WireError):
        box.give(aud="box-99999999", ctr=77)
    assert (box.store.fleet_jobs.all(), box.inbox.ctr, box.inbox.refused["AUDIENCE"]) == ([], 0, 1)


@pytest.mark.req("R-FLEET-40")
def test_same_job_again_is_done_once(box):
    envelope = box.job(Op.RESTART)
    box.inbox.take_job(envelope)
    box.run()
    assert box.inbox.take_job(envelope) is None
    box.restart()
    assert box.inbox.take_job(envelope) is None
    box.run()
    (job,) = box.store.fleet_jobs.all()
    assert (job.state, box.inbox.refused["REPEATED"]) == ("SUCCEEDED", 1)


@pytest.mark.req("R-FLEET-40")
def test_job_that_another_overtook_is_told_as_replayed_and_never_done(box):
    old = box.job(Op.RESTART, ctr=4)
    box.give(ctr=5)
    with pytest.raises(WireError):
        box.inbox.take_job(old)
    box.run()
    assert box.acts.calls == []
    assert (4, "REJECTED", "REPLAYED") in told(box)
    assert box.inbox.ctr == 5


@pytest.mark.req("R-FLEET-40")
def test_two_jobs_with_one_counter_only_the_first_is_anything(box):
    box.give(ctr=5)
    with pytest.raises(WireError):
        box.give(Op.RESTART, ctr=5)
    assert [job.op for job in box.store.fleet_jobs.all()] == ["ping"]


@pytest.mark.req("R-FLEET-40")
def test_replay_after_its_row_is_a_year_old_is_refused_by_the_counter(box, clock):
    envelope = box.job(Op.RESTART, exp=box.ms(24 * 1000))
    box.inbox.take_job(envelope)
    box.run()
    box.restart()
    box.run()
    clock.advance(367 * 86_400)
    box.run()
    assert box.store.fleet_jobs.all() == []
    with pytest.raises(WireError):
        box.inbox.take_job(envelope)
    assert (box.store.fleet_jobs.all()[0].state, box.inbox.ctr) == ("REJECTED", 1)


@pytest.mark.req("R-FLEET-40")
def test_counter_outlives_a_database_that_lost_its_marks(box):
    """A database that is built anew has the journal and nothing else."""
    envelope = box.job(Op.RESTART)
    box.inbox.take_job(envelope)
    with box.store.db.write() as tx:
        tx.execute("DELETE FROM fleet_state")
        tx.execute("DELETE FROM fleet_job")
    assert box.inbox.ctr == 1
    with pytest.raises(WireError):
        box.inbox.take_job(envelope)
    box.run()
    assert box.acts.calls == []


@pytest.mark.req("R-FLEET-41")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"op": Op.AGENT_UPDATE}, "NOT_PERMITTED"),
        ({"op": Op.OS_UPDATE}, "NOT_PERMITTED"),
        ({"op": Op.ROOT_UPDATE, "sign": ("online",)}, "SIGNATURES"),
        ({"op": Op.MODEL_WITHDRAW, "package": "p", "version": "1", "sign": ("online",)}, "SIGNATURES"),
        ({"op": Op.RESTART, "exp": 1}, "EXPIRED"),
        ({"op": Op.RESTART, "nbf": 4_000_000_000_000}, "NOT_YET"),
        ({"op": Op.RESEND}, "ARGS"),
        ({"op": Op.PING, "after_seq": 1}, "ARGS"),
    ],
)
def test_signed_job_that_is_refused_tells_the_server_why_and_is_not_done(box, changes, code):
    job = box.give(**changes)
    box.run()
    assert box.state(job) == ("REJECTED", code)
    assert box.acts.calls == []
    assert told(box) == [(1, "REJECTED", code)]


@pytest.mark.req("R-FLEET-41")
@pytest.mark.parametrize("changes", [{"op": "wipe"}, {"shell": "rm"}, {"args": {"dry_run": True}}])
def test_job_of_a_newer_server_is_rejected_rather_than_half_understood(box, changes):
    document = json.loads(signing.verify(box.job(), JOB_TYPE, [keys()["online"].public]).payload)
    envelope = signing.sign(JOB_TYPE, json.dumps({**document, **changes}).encode(), [keys()["online"]])
    assert box.inbox.take_job(envelope).code == "NOT_UNDERSTOOD"


@pytest.mark.req("R-FLEET-41")
def test_key_in_both_roles_is_one_word_and_not_two(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, release=("online", "release"))
    job = box.give(Op.MODEL_WITHDRAW, package="p", version="1", sign=("online",))
    assert box.state(job) == ("REJECTED", "SIGNATURES")
    assert box.give(Op.MODEL_WITHDRAW, package="p", version="1").state == "ACCEPTED"
    box.close()


@pytest.mark.req("R-FLEET-41")
def test_as_many_release_keys_must_sign_as_the_box_was_told(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, release=("release", "release-2"), threshold=2)
    withdraw = {"op": Op.MODEL_WITHDRAW, "package": "p", "version": "1"}
    assert box.give(**withdraw).code == "SIGNATURES"
    assert box.give(**withdraw, sign=("online", "release", "release-2")).state == "ACCEPTED"
    assert box.give(**withdraw, sign=("release", "release-2", "online")).state == "ACCEPTED"
    with pytest.raises(SignatureError):
        box.give(**withdraw, sign=("release", "release-2"))
    box.close()


@pytest.mark.req("R-FLEET-41")
def test_box_that_cannot_tell_the_time_changes_nothing_without_the_nonce_of_its_session(box):
    box.clk = "none"
    assert box.give(Op.PING, exp=1).state == "ACCEPTED"
    assert box.give(Op.RESTART).code == "NONCE"
    assert box.give(Op.RESTART, nonce="ab" * 16).code == "NONCE"
    box.store.fleet.new_session("cd" * 16)
    assert box.give(Op.RESTART, nonce="ab" * 16).code == "NONCE"
    assert box.give(Op.RESTART, nonce="cd" * 16, exp=1).state == "ACCEPTED"
    box.store.fleet.new_session("ef" * 16)
    assert box.give(Op.RESTART, nonce="cd" * 16).code == "NONCE"


@pytest.mark.req("R-FLEET-41")
def test_clock_of_a_box_may_be_some_minutes_behind_the_server(box):
    assert box.give(nbf=box.ms(0.05)).state == "ACCEPTED"
    assert box.give(nbf=box.ms(0.2)).code == "NOT_YET"


@pytest.mark.req("R-FLEET-41")
@pytest.mark.fault("T35")
def test_clock_that_is_set_back_lets_no_old_counter_in(box, clock):
    envelope = box.job(Op.RESTART)
    box.give()
    clock.jump(-400 * 86_400)
    with pytest.raises(WireError):
        box.inbox.take_job(envelope)


@pytest.mark.req("R-FLEET-41")
def test_flood_of_signed_jobs_is_bounded(box):
    rows = [box.give(Op.DRAIN) for _ in range(52)]
    assert [row.code for row in rows[-3:]] == ["", "TOO_MANY", "TOO_MANY"]
    assert box.give(Op.MODEL_WITHDRAW, package="toy", version="1.0.0").code == "", "it would keep in what does harm"
    assert box.give(Op.ROOT_UPDATE).code == "", "by which a key that floods is taken away"
    assert box.give().code == "TOO_MANY"


@pytest.mark.req("R-FLEET-41")
def test_one_job_of_the_highest_number_does_not_keep_all_later_ones_out(box):
    box.give()
    with pytest.raises(WireError):
        box.give(ctr=2**53)
    assert box.give().code == ""
    with pytest.raises(WireError):
        box.inbox.take_twin(box.twin(2**53))
    box.inbox.take_twin(box.twin(1))
    assert box.inbox.dv == 1


@pytest.mark.req("R-FLEET-40")
@given(data=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: json.dumps({"payload": text}).encode()))
def test_any_bytes_are_refused_in_words_of_ours(shared_box, data):
    with pytest.raises((WireError, SignatureError)):
        shared_box.inbox.take_job(data)
    with pytest.raises((WireError, SignatureError)):
        shared_box.inbox.take_twin(data)


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory):
    made = JobBox(tmp_path_factory.mktemp("box"))
    yield made
    made.close()


@pytest.mark.req("R-FLEET-40")
@given(ctr=st.integers(min_value=-(2**70), max_value=2**70).filter(lambda n: not 1 <= n <= 2**53))
def test_counter_that_no_database_holds_locks_nobody_out(shared_box, ctr):
    document = json.loads(signing.verify(shared_box.job(), JOB_TYPE, [keys()["online"].public]).payload)
    envelope = signing.sign(JOB_TYPE, json.dumps({**document, "ctr": ctr}).encode(), [keys()["online"]])
    with pytest.raises(WireError):
        shared_box.inbox.take_job(envelope)
    assert shared_box.inbox.ctr == 0


@pytest.mark.req("R-FLEET-40")
def test_envelope_that_is_too_large_is_not_even_opened(box):
    with pytest.raises(WireError):
        box.inbox.take_job(b" " * (256 * 1024 + 1))
    assert "FLEET_FORGED" not in box.issues()
