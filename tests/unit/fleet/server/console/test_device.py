"""The page of one box and acts on it."""

from __future__ import annotations

import re

import pytest
from console_kit import DAY, HOUR, OURS, REF, add_results, fill_box
from fleet_kit import NOW, SITE, ulid
from sqlalchemy import insert, select

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


def test_a_download_is_one_step_of_its_job_with_how_far_it_came_and_a_job_shows_no_digest(full, visit):
    said = [(20, "DOWNLOADING", 40.0), (21, "DOWNLOADING", 100.0), (22, "VERIFIED", None)]
    row = {"device": OURS, "stream": ulid(1), "k": "job", "ts": 0, "rx_at": NOW}
    told = {"k": "job", "job": ulid(7), "ctr": 1}
    rows = [
        {**row, "seq": n, "body": {**told, "state": state, "version": n, "percent": percent}}
        for n, state, percent in said
    ]
    install = {"package": "ich-ct", "version": "3.0.0", "digest": "d" * 64, "target": "models/ich-ct/3.0.0.zip"}
    with db.write(full) as connection:
        connection.execute(insert(t.record), rows)
        connection.execute(t.job.update().values(args=install, op="model.install"))
    visitor = visit("vendor")
    jobs = visitor.get(f"/devices/{OURS}").text.partition('data-testid="jobs"')[2].partition("</table>")[0]
    steps = re.findall(r"<li>([^<]*)", jobs)
    assert [step.strip() for step in steps] == ["Taken by the box", "Succeeded", "Downloading 100 %", "Verified"]
    assert "version: 3.0.0" in jobs
    assert "dddd" not in jobs
    assert "Job 1: Downloading 40 %" in visitor.get(f"/devices/{OURS}/timeline").text, "the record tells all of it"


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


@pytest.mark.req("R-FLEET-82")
def test_logs_are_asked_for_by_a_job_whose_token_nobody_sees_and_given_out_when_they_came(fleet, visit, tmp_path):
    visitor = visit("dealer")
    assert visitor.form(f"/devices/{OURS}/jobs", op="collect_logs", why="it restarts").status_code == 303
    with db.read(fleet) as connection:
        row = connection.execute(select(t.job)).one()
    token = row.args["upload"]
    text = visitor.get(f"/devices/{OURS}").text
    assert token not in text
    assert "Not yet" in text
    assert visitor.get(f"/devices/{OURS}/logs/{row.id}").status_code == 404
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / f"{row.id}.zip").write_bytes(b"PK" * 70_000)
    with db.write(fleet) as connection:
        connection.execute(t.upload.update().values(received_at=NOW, sha256="0" * 64, size=140_000))
    assert f"/devices/{OURS}/logs/{row.id}" in visitor.get(f"/devices/{OURS}").text
    hospital = visit("hospital").get(f"/devices/{OURS}").text
    assert f"/logs/{row.id}" not in hospital
    assert "137 KiB" in hospital
    answer = visitor.get(f"/devices/{OURS}/logs/{row.id}")
    assert answer.content == b"PK" * 70_000
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/zip", "no-store")
    with db.read(fleet) as connection:
        taken = connection.execute(select(t.audit).where(t.audit.c.act == "upload.take")).one()
    assert (taken.actor, taken.subject) == ("dealer", row.id)


@pytest.mark.req("R-FLEET-26")
def test_a_document_that_a_restored_server_does_not_know_is_not_taken_for_the_wanted_one(full, visit):
    visitor = visit("operator")
    pages = (f"/devices/{OURS}", "/?state=other_settings")
    for applied, (here, listed) in ((2, (True, True)), (3, (False, False)), (5, (True, True))):
        with db.write(full) as connection:
            connection.execute(t.twin.update().values(applied_dv=applied))
        page, listing = (visitor.get(path).text.partition("<main")[2] for path in pages)
        assert ("Not yet the wanted one" in page, OURS in listing) == (here, listed), applied


@pytest.mark.req("R-FLEET-82")
def test_a_box_in_evaluation_mode_says_so_on_its_page_its_site_the_overview_and_the_results(fleet, visit):
    with db.write(fleet) as connection:
        add_results(connection, OURS, mode="evaluation")
    visitor = visit("hospital")
    for path in (f"/devices/{OURS}", f"/sites/{SITE}", "/", "/?state=evaluation", "/results"):
        assert "Evaluation, not for patient care" in visitor.get(path).text, path
    with db.write(fleet) as connection:
        connection.execute(t.health_now.update().values(mode="clinical"))
    for path in (f"/devices/{OURS}", f"/sites/{SITE}", "/", "/?state=evaluation", "/results"):
        assert "Evaluation, not for patient care" not in visitor.get(path).text.partition("<main")[2], path


def test_a_changed_audit_row_is_found(fleet, visit):
    operator = visit("operator")
    operator.form(f"/devices/{OURS}/jobs", op="ping", why="first")
    assert "Nothing was changed" in operator.form("/audit/chain").text
    with db.write(fleet) as connection:
        connection.execute(t.audit.update().where(t.audit.c.act == "job.why").values(actor="somebody else"))
    assert "the audit was changed" in operator.form("/audit/chain").text
