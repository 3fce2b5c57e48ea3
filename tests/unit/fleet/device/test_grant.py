"""A job under a roll-out's grant on the box: what it opens, and how everything else ends."""

from __future__ import annotations

import pytest
from fleet_jobs_kit import ALWAYS, DIGEST, TENANT, JobBox, keys
from package_rows_kit import NAME, PERSON

from appliance.fleet.wire import Op
from appliance.fleet.wire_grant import GRANT_TYPE, Grant, grant_text
from appliance.store.database import new_ulid
from engines import signing

pytestmark = pytest.mark.req("R-FLEET-73")

HOUR = 3600.0
OPS = ("model.install", "model.rollback", "model.withdraw")


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock)
    made.serve("1.0.0")
    made.inbox.take_twin(made.twin(1, window=ALWAYS))
    yield made
    made.close()


def grant(box, *, sign=("release",), **changes):
    """What release keys signed for version 2.0.0."""
    given = {
        "id": new_ulid(box.clock.now()),
        "tenant": "vendor-001",
        "tenants": (TENANT,),
        "package": NAME,
        "version": "2.0.0",
        "digest": DIGEST["2.0.0"],
        "target": "toy-2.0.0.zip",
        "role": "live",
        "ops": OPS,
        "soak_h": 1.0,
        "soak_studies": 0,
        "nbf": box.ms(-1),
        "exp": box.ms(100),
    }
    text = Grant(**{**given, **changes}).model_dump_json()
    return grant_text(signing.sign(GRANT_TYPE, text.encode(), [keys()[name] for name in sign]))


def install(box, *, of=None, sign=("online",), **changes):
    """A job that the server's key alone has signed, under a grant."""
    return box.install_job(
        **{"sign": sign, "grant": grant(box) if of is None else of, "soak_h": 1.0, "soak_studies": 0, "role": "live"}
        | changes
    )


def end(box, job, hours=3):
    """Let it come to its end; state and code."""
    for _ in range(int(hours * 4)):
        box.run()
        box.clock.advance(HOUR / 4)
    return box.state(job)


def test_a_granted_installation_goes_to_its_end_without_a_release_key_under_the_job(box):
    assert end(box, install(box)) == "SUCCEEDED"
    assert box.packages() == {"1.0.0": "retired", "2.0.0": "live"}


def test_the_servers_key_alone_installs_nothing(box):
    job = box.install_job(sign=("online",), soak_h=1.0, soak_studies=0, role="live")
    assert box.state(job) == ("REJECTED", "SIGNATURES")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": "3.0.0"}, "GRANT_UNFIT"),
        ({"digest": DIGEST["3.0.0"]}, "GRANT_UNFIT"),
        ({"target": "other.zip"}, "GRANT_UNFIT"),
        ({"role": "shadow"}, "GRANT_UNFIT"),
        ({"soak_h": 0.0}, "GRANT_UNFIT"),
        ({"package": "other-package"}, "GRANT_UNFIT"),
    ],
    ids=str,
)
def test_a_grant_for_one_version_opens_no_other(box, changes, code):
    assert box.state(install(box, **changes)) == ("REJECTED", code)
    box.run()
    assert box.packages() == {"1.0.0": "live"}
    assert box.fetcher.calls == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tenants": ("tenant-0002",)}, "GRANT_UNFIT"),
        ({"sign": ("stranger",)}, "GRANT_FORGED"),
        ({"sign": ("online",)}, "GRANT_FORGED"),
        ({"exp": 1}, "GRANT_UNFIT"),  # the job would hold longer than it
        ({"ops": ("model.withdraw",)}, "GRANT_UNFIT"),
    ],
    ids=str,
)
def test_another_tenants_a_strangers_or_a_lesser_grant_opens_nothing(box, changes, code):
    assert box.state(install(box, of=grant(box, **changes))) == ("REJECTED", code)


def test_an_expired_grant_ends_in_a_refusal(box):
    old = grant(box, exp=box.ms(2))
    box.clock.advance(3 * HOUR)
    assert box.state(install(box, of=old, nbf=box.ms(-3), exp=box.ms(-1))) == ("REJECTED", "GRANT_EXPIRED")
    assert box.state(install(box, of=old)) == ("REJECTED", "GRANT_UNFIT")


def test_a_box_that_cannot_tell_the_time_takes_no_grant(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, clk="none")
    try:
        nonce = box.inbox.nonce()
        assert box.state(install(box, nonce=nonce)) == ("REJECTED", "NO_CLOCK")
        # Release keys under the job itself and the nonce still do.
        assert box.state(install(box, nonce=nonce, sign=("online", "release"))) == "ACCEPTED"
    finally:
        box.close()


def test_where_two_keys_must_sign_a_grant_of_one_opens_nothing(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, threshold=2, release=("release", "release-2"))
    try:
        assert box.state(install(box)) == ("REJECTED", "GRANT_FORGED")
        both = grant(box, sign=("release", "release-2"))
        assert box.state(install(box, of=both)) == "ACCEPTED"
    finally:
        box.close()


def test_no_grant_changes_whose_keys_count(box):
    job = box.give(Op.ROOT_UPDATE, sign=("online",), grant=grant(box))
    assert box.state(job) == ("REJECTED", "SIGNATURES")


def test_a_held_box_waits_and_then_refuses(box):
    box.inbox.take_twin(box.twin(2, window=ALWAYS, held=True))
    job = install(box, wait_h=1.0)
    assert end(box, job, hours=2) == "ACCEPTED"
    assert box.packages() == {"1.0.0": "live"}
    box.clock.advance(30 * HOUR)
    box.run()
    assert box.state(job) == ("REJECTED", "HELD")


def test_a_box_that_is_held_on_the_way_ends_in_a_refusal_that_says_so(box):
    job = install(box, wait_h=1.0)
    while box.row(job).state != "WAIT_IDLE":
        box.slow.step()
        box.quick.step()
        if box.row(job).state == "SELFTEST":
            box.inbox.take_twin(box.twin(2, window=ALWAYS, held=True))
    assert end(box, job) == ("REJECTED", "HELD")
    assert box.packages()["1.0.0"] == "live"


def test_a_site_that_declines_ends_in_a_refusal_that_says_so(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, approval="site")
    try:
        box.serve("1.0.0")
        job = install(box)
        box.run()
        assert box.state(job) == "WAIT_APPROVAL"
        box.store.fleet_jobs.refuse(str(job.ctr), PERSON, "not during the audit")
        assert box.state(job) == ("REJECTED", "REFUSED_BY_SITE")
    finally:
        box.close()


def test_the_way_back_under_a_grant_leads_away_from_its_version_alone(box):
    back = {"package": NAME, "version": "1.0.0", "sign": ("online",)}
    # Another version serves than the one that was granted: it stays.
    box.serve("3.0.0")
    job = box.give(Op.MODEL_ROLLBACK, grant=grant(box), **back)
    box.run()
    assert box.state(job) == ("FAILED", "VERSION")
    assert box.packages() == {"1.0.0": "retired", "3.0.0": "live"}
    to_itself = box.give(Op.MODEL_ROLLBACK, grant=grant(box), **{**back, "version": "2.0.0"})
    assert box.state(to_itself) == ("REJECTED", "GRANT_UNFIT")


def test_what_was_rolled_out_is_taken_back_under_the_same_grant(box):
    one = grant(box)
    assert end(box, install(box, of=one)) == "SUCCEEDED"
    back = box.give(Op.MODEL_ROLLBACK, grant=one, sign=("online",), package=NAME, version="1.0.0")
    box.run()
    assert box.state(back) == "SUCCEEDED"
    assert box.packages()["1.0.0"] == "live"
    out = {"package": NAME, "version": "2.0.0", "digest": DIGEST["2.0.0"]}
    box.give(Op.MODEL_WITHDRAW, grant=one, sign=("online",), **out)
    box.run()
    assert box.packages()["2.0.0"] == "withdrawn"
