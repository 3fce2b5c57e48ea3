"""The page of one box and acts on it."""

from __future__ import annotations

import pytest
from console_kit import DAY, HOUR, OURS, REF, fill_box
from fleet_kit import NOW
from sqlalchemy import select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import words
from appliance.fleet.server.console.sentences import sentence
from appliance.fleet.server.registry import broken_audit
from appliance.fleet.wire import JOB_TYPE, Job, Op
from appliance.fleet.wire_jobs import JobState
from appliance.fleet.wire_records import Told
from engines.signing import verify

pytestmark = pytest.mark.req("R-FLEET-53")


@pytest.fixture
def full(fleet):
    with db.write(fleet) as connection:
        fill_box(connection, OURS)
    return fleet


def test_results_are_counts_beside_what_they_are_of_and_claim_no_more(full, visit):
    text = visit("hospital").get(f"/devices/{OURS}").text
    for told in ("72 of 480", "360 of 480", "48 of 480", "72 of 96"):
        assert told in text
    words_of_it = text.partition("<body")[2]
    for word in ("accura", "sensitivity", "specificity", "correct", "normal", "negative", "healthy"):
        assert word not in words_of_it.lower()


def test_the_timeline_is_sentences_the_latest_first_and_goes_back_by_pages(full, visit):
    visitor = visit("reader")
    text = visitor.get(f"/devices/{OURS}/timeline").text
    assert text.index("Trouble began: Disk full") < text.index("software started 0.1.0")
    assert "Health over" not in text
    assert "Health over 5 minutes: 2 studies" in visitor.get(f"/devices/{OURS}/timeline?all=1").text
    assert "Trouble began" not in visitor.get(f"/devices/{OURS}/timeline?before=1.10").text
    assert visitor.get(f"/devices/{OURS}/timeline?before=x.y").status_code == 200


def test_every_kind_of_record_has_a_sentence_and_every_code_a_word():
    kinds = [part.model_fields["k"].default for part in Told.__origin__.__args__]
    assert not [kind for kind in kinds if "A record of kind" in _sentence_of(kind)]
    assert set(words.OPS) == {"", *map(str, Op)}
    assert set(words.JOB_STATES) == set(map(str, JobState))


def _sentence_of(kind):
    body = {"package": "p", "version": "1", "n": 1, "hour": "h", "minutes": 5, "state": "", "code": "X", "ctr": 1}
    body |= {"seq": 1, "first_seq": 1, "last_seq": 2, "source": 1, "modality": "CT", "make": "m", "model": "m"}
    states = {"issue": "raised", "daemon": "started", "package": "live", "engine": "ready", "job": "ACCEPTED"}
    return sentence(kind, body | {"state": states.get(kind, "")}, str)


def test_plots_leave_a_gap_where_the_box_said_nothing(full, visit):
    told = visit("reader").get(f"/devices/{OURS}/points?range=day").json()
    gap = next(n for n, value in enumerate(told["cpu"]) if value is None)
    assert told["at"][gap + 1] - told["at"][gap] > 7200
    assert len(told["at"]) == len(told["p95"])
    assert told["at"] == sorted(told["at"])
    month = visit("reader").get(f"/devices/{OURS}/points?range=month").json()
    assert month["to"] - month["from"] == 30 * 86400


@pytest.mark.parametrize("op", [str(op) for op in words.ACTS])
def test_an_act_is_a_signed_job_with_its_reason_in_the_audit(fleet, visit, keys, op):
    visitor = visit("dealer")
    fields = {"op": op, "why": "the hospital called", **({"after_seq": "12"} if op == "resend" else {})}
    assert visitor.form(f"/devices/{OURS}/jobs", **fields).status_code == 303
    with db.read(fleet) as connection:
        row = connection.execute(select(t.job)).one()
        why = connection.execute(select(t.audit).where(t.audit.c.act == "job.why")).one()
        assert broken_audit(connection) is None
    job = Job.model_validate_json(verify(row.envelope, JOB_TYPE, [keys.online.public]).payload)
    assert (job.op, job.aud) == (Op(op), OURS)
    assert (why.actor, why.subject, why.detail["why"]) == ("dealer", row.id, "the hospital called")


@pytest.mark.parametrize(
    "fields",
    [{"op": "ping", "why": " "}, {"op": "resend", "why": "x", "after_seq": "-1"}, {"op": "model.withdraw", "why": "x"}],
)
def test_no_job_without_a_reason_a_number_or_an_act_that_is_offered(fleet, visit, fields):
    assert visit("operator").form(f"/devices/{OURS}/jobs", **fields).status_code == 400
    with db.read(fleet) as connection:
        assert connection.execute(select(t.job)).all() == []


def test_an_issue_is_seen_and_put_off_here_and_stands_until_the_box_says_otherwise(fleet, visit, clock):
    visitor = visit("dealer")
    path = f"/devices/{OURS}/issues/{REF}"
    assert visitor.form(f"{path}/seen").status_code == 303
    assert "Seen by Dealer" in visitor.get("/issues").text
    assert visitor.form(f"{path}/later", hours="24", why="disk is ordered").status_code == 303
    assert visitor.form(f"{path}/later", hours="9999", why="never").status_code == 400
    assert "Put off until" in visitor.get(f"/devices/{OURS}").text
    with db.write(fleet) as connection:
        row = connection.execute(select(t.issue_state).where(t.issue_state.c.ref == REF)).one()
        assert (row.cleared_at, row.shelved_until) == (None, NOW + DAY)
        connection.execute(t.issue_state.update().values(cleared_at=NOW + HOUR))
    assert visitor.form(f"{path}/seen").status_code == 409


def test_a_changed_audit_row_is_found(fleet, visit):
    operator = visit("operator")
    operator.form(f"/devices/{OURS}/jobs", op="ping", why="first")
    assert "Nothing was changed" in operator.form("/audit/chain").text
    with db.write(fleet) as connection:
        connection.execute(t.audit.update().where(t.audit.c.act == "job.why").values(actor="somebody else"))
    assert "the audit was changed" in operator.form("/audit/chain").text
