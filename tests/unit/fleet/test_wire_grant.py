"""What a grant opens, and everything else that it does not."""

from __future__ import annotations

import pytest
from fleet_kit import ulid
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.fleet.wire import JOB_TYPE, Job, JobArgs, Op, WireError
from appliance.fleet.wire_grant import (
    GRANT_TYPE,
    MAX_GRANT,
    Grant,
    grant_envelope,
    grant_text,
    open_grant,
    payload_of,
    why_not_granted,
    why_unfit,
)
from engines.errors import SignatureError
from engines.signing import generate, sign

pytestmark = pytest.mark.req("R-FLEET-73")

RELEASE, OTHER, STRANGER = generate("release"), generate("other"), generate("stranger")
TRUSTED = [RELEASE.public, OTHER.public]
NOW = 1_800_000_000_000
GRANT = {
    "id": ulid(1),
    "tenant": "vendor-001",
    "tenants": ("hospital-01",),
    "package": "ich-ct",
    "version": "2.0.0",
    "digest": "bb" * 32,
    "target": "models/ich-ct/2.0.0.zip",
    "role": "live",
    "ops": ("model.install", "model.rollback", "model.withdraw"),
    "soak_h": 24.0,
    "soak_studies": 50,
    "nbf": NOW - 1000,
    "exp": NOW + 1_000_000,
}
ARGS = {name: GRANT[name] for name in ("package", "version", "digest", "target", "role", "soak_h", "soak_studies")}
WITHDRAW = {name: GRANT[name] for name in ("package", "version", "digest")}


def granted(*keys, payload_type=GRANT_TYPE, **changes):
    text = Grant(**{**GRANT, **changes}).model_dump_json()
    return grant_text(sign(payload_type, text.encode(), keys or [RELEASE]))


def job(op=Op.MODEL_INSTALL, args=None, *, grant=None, **changes):
    base = {"id": ulid(2), "aud": "box-0000001", "ctr": 1, "nbf": NOW, "exp": NOW + 500_000}
    return Job(**{**base, "op": op, "args": JobArgs(**(ARGS if args is None else args)), "grant": grant, **changes})


def why(one, *, threshold=1, tenant="hospital-01", now=NOW):
    return why_not_granted(one, TRUSTED, threshold, tenant, now)


def test_it_opens_the_very_job_that_was_approved():
    text = granted()
    assert why(job(grant=text)) == ""
    assert why(job(Op.MODEL_WITHDRAW, WITHDRAW, grant=text)) == ""
    assert why(job(Op.MODEL_ROLLBACK, {"package": "ich-ct", "version": "1.0.0"}, grant=text)) == ""
    assert why(job(Op.MODEL_ROLLBACK, {"package": "ich-ct"}, grant=text)) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.0.0"},
        {"digest": "cc" * 32},
        {"digest": "bb" * 16},
        {"package": "other"},
        {"target": "models/other.zip"},
        {"role": "shadow"},
        {"soak_h": 0.0},
        {"soak_h": None},
        {"soak_studies": 0},
    ],
    ids=str,
)
def test_it_opens_no_other_version_contents_package_role_or_shorter_soak(change):
    assert why(job(args={**ARGS, **change}, grant=granted())) == "GRANT_UNFIT"


@pytest.mark.parametrize(
    "one",
    [
        job(Op.ROOT_UPDATE, {}),
        job(Op.MODEL_ROLLBACK, {"package": "ich-ct", "version": "2.0.0"}),
        job(Op.MODEL_ROLLBACK, {"package": "other"}),
        job(Op.MODEL_WITHDRAW, {**WITHDRAW, "version": "1.0.0"}),
        job(Op.MODEL_WITHDRAW, {**WITHDRAW, "digest": None}),
        job(exp=GRANT["exp"] + 1),
    ],
    ids=["root.update", "back to itself", "another's way back", "another version's end", "any contents", "longer"],
)
def test_it_opens_no_change_of_roots_and_no_way_but_away_from_its_version(one):
    assert why(one.model_copy(update={"grant": granted()})) == "GRANT_UNFIT"


def test_it_opens_what_it_names_and_nothing_more():
    install_alone = granted(ops=("model.install",))
    assert why(job(grant=install_alone)) == ""
    assert why(job(Op.MODEL_WITHDRAW, WITHDRAW, grant=install_alone)) == "GRANT_UNFIT"
    with pytest.raises(ValidationError):
        Grant(**{**GRANT, "ops": ("root.update",)})


def test_it_opens_nothing_at_another_tenant_unless_it_is_for_all():
    assert why(job(grant=granted()), tenant="hospital-02") == "GRANT_UNFIT"
    assert why(job(grant=granted(tenants=())), tenant="hospital-02") == ""


@pytest.mark.parametrize("now", [GRANT["exp"] + 1, GRANT["nbf"] - 300_001], ids=["late", "early"])
def test_it_opens_nothing_outside_its_time(now):
    assert why(job(grant=granted()), now=now) == "GRANT_EXPIRED"


def test_it_opens_nothing_where_nobody_knows_the_time_and_that_is_no_expiry():
    assert why(job(grant=granted()), now=None) == "NO_CLOCK"


def test_it_counts_keys_and_not_signatures():
    assert why(job(grant=granted(RELEASE)), threshold=2) == "GRANT_FORGED"
    assert why(job(grant=granted(RELEASE, RELEASE)), threshold=2) == "GRANT_FORGED"
    assert why(job(grant=granted(RELEASE, STRANGER)), threshold=2) == "GRANT_FORGED"
    assert why(job(grant=granted(RELEASE, OTHER)), threshold=2) == ""


def test_a_stranger_another_type_or_rubbish_opens_nothing():
    assert why(job(grant=granted(STRANGER))) == "GRANT_FORGED"
    assert why(job(grant=granted(payload_type=JOB_TYPE))) == "GRANT_FORGED"
    assert why(job(grant="AAAA")) == "GRANT_FORGED"
    assert why(job()) == "SIGNATURES"


def test_what_a_newer_grant_narrows_is_not_read_past():
    text = Grant(**GRANT).model_dump_json()[:-1] + ',"only_hardware":"orin"}'
    assert why(job(grant=grant_text(sign(GRANT_TYPE, text.encode(), [RELEASE])))) == "GRANT_UNFIT"


@given(st.binary(max_size=300))
def test_any_bytes_in_place_of_an_envelope_are_refused(rubbish):
    with pytest.raises((SignatureError, WireError)):
        open_grant(grant_text(rubbish), TRUSTED, 1)
    with pytest.raises(WireError):
        payload_of(rubbish)


@given(st.text(max_size=200))
def test_any_text_in_place_of_a_grant_is_refused(text):
    with pytest.raises((SignatureError, WireError)):
        open_grant(text, TRUSTED, 1)


def test_a_job_has_room_for_so_much_and_no_more():
    with pytest.raises(WireError, match="has room"):
        grant_text(b"x" * MAX_GRANT)
    with pytest.raises(ValidationError):
        job(grant="A" * (MAX_GRANT + 4))
    assert grant_envelope(grant_text(b"abc")) == b"abc"


@given(
    st.sampled_from(["package", "version", "digest", "target", "role", "soak_h", "soak_studies", "exp", "tenants"]),
    st.sampled_from([Op.MODEL_INSTALL, Op.MODEL_WITHDRAW]),
)
def test_a_grant_for_anything_else_does_not_fit(name, op):
    """One field of the grant is another: an installation sees every one of them."""
    other = {
        "package": "other-ct",
        "version": "3.0.0",
        "digest": "cc" * 32,
        "target": "models/x",
        "role": "silent",
        "soak_h": 1.0,
        "soak_studies": 1,
        "exp": NOW + 1,
        "tenants": ("hospital-02",),
    }
    one = job(op, ARGS if op is Op.MODEL_INSTALL else WITHDRAW)
    grant = Grant(**{**GRANT, name: other[name]})
    about_installing = name in {"target", "role", "soak_h", "soak_studies"}
    assert bool(why_unfit(grant, one, "hospital-01")) is not (about_installing and op is Op.MODEL_WITHDRAW)
