"""Pages of models, roll-outs and holds: what they say, who may do what, and that reasons stand in the audit."""

from __future__ import annotations

import re

import pytest
from console_kit import OTHER_SITE, OURS, THEIRS, add_results
from console_rollouts import add_boxes, add_model, devices_of, drafted, drive, running, submitted, told
from fleet_kit import NOW, SITE
from sqlalchemy import select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import rollout_words
from appliance.fleet.server.console.drafts import NUMBERS, read_documents
from appliance.fleet.server.rollout.plan import BoxWord, Gate, LeftOut, Pause, RollOutState, Verdict, WaveState

pytestmark = pytest.mark.req("R-FLEET-79")


@pytest.fixture
def many(fleet):
    """Boxes of three makes, and a version that they can fetch."""
    with db.write(fleet) as connection:
        add_model(connection)
        add_boxes(connection, range(10, 30))
    return fleet


def state_of(engine, ident):
    with db.read(engine) as connection:
        return connection.execute(select(t.roll_out.c.state).where(t.roll_out.c.id == ident)).scalar_one()


def test_every_word_of_a_roll_out_has_its_text_and_every_state_of_a_box_a_shape():
    for words, kind in (
        (rollout_words.STATES, RollOutState),
        (rollout_words.SHAPES, RollOutState),
        (rollout_words.PAUSES, Pause),
        (rollout_words.WAVES, WaveState),
        (rollout_words.BOXES, BoxWord),
        (rollout_words.DRAWN, BoxWord),
        (rollout_words.LEFT_OUT, LeftOut),
    ):
        assert set(words) == set(map(str, kind))
    assert set(map(str, Gate)) <= set(rollout_words.GATES)
    bar = rollout_words.bar_of({BoxWord.WAITING: 3, BoxWord.SUCCEEDED: 1})
    assert [(part.word, part.x, part.width) for part in bar] == [("succeeded", 0, 25), ("waiting", 25, 75)]


@pytest.mark.parametrize("gate", list(Gate))
def test_a_gate_that_could_not_judge_says_what_is_missing_and_never_that_it_passed(gate):
    verdict = Verdict(gate=gate, word="not_judged", n=3, needed=10)
    text = rollout_words.sentence(verdict, str)
    assert "Nothing can be said" in text
    assert "10" in text
    judged = Verdict(gate=gate, word="failed", n=31, needed=10, value=0.5, bound=0.02, codes={"GOLDEN": 2})
    assert "31" in rollout_words.sentence(judged, str)
    assert "Nothing" not in rollout_words.sentence(judged, str)


def test_the_page_of_one_that_stopped_says_why_with_n_and_bound_and_what_canaries_cover(many, visit, keys):
    ident = running(many, keys)
    canaries = devices_of(many, ident)
    told(many, ident, dict.fromkeys(canaries[:4], ("FAILED", "DISK_FULL")))
    drive(many, keys)
    assert state_of(many, ident) == "PAUSED"
    text = visit("vendor").get(f"/rollouts/{ident}").text
    assert "too many boxes failed or went back" in text
    assert re.search(
        r"100\.0 percent of \d+ boxes that came to an end failed or went back; at most 2\.0 percent may", text
    )
    assert text.count("NOT JUDGED") >= 2
    for make in ("GE MEDICAL SYSTEMS Revolution", "SIEMENS SOMATOM Force", "UIH uCT 960+"):
        assert make in text
    for device in canaries[:4]:
        line = text.partition(f'data-testid="in-{device}"')[2].partition("</tr>")[0]
        assert "Failed" in line, device
        assert "DISK_FULL" in line, device
    assert "it stopped by itself" in text
    assert f'href="/rollouts/{ident}?wave=1&amp;word=failed#boxes"' in text, "what a bar counts leads to those boxes"
    assert visit("operator").get(f"/rollouts/{ident}?word=failed&wave=1").text.count('data-testid="in-box-') == 4
    listed = visit("vendor").get("/rollouts?package=ich-ct").text
    assert re.search(r"Failed</?[^<]*<b>4</b>|Failed <b>4</b>", listed), "counted by the database, with the same words"
    assert "Failed" not in visit("vendor").get("/rollouts?package=other").text


def test_figures_of_a_gate_are_told_without_powers_of_ten():
    verdict = Verdict(gate=Gate.ALERTS, word="passed", n=3, needed=2, figures={"n_before": 14400.0, "p": 0.68312})
    told_of_it = dict(rollout_words.figures(verdict, str))
    assert (told_of_it["n before"], told_of_it["p"]) == ("14400", "0.6831")


@pytest.mark.req("R-FLEET-80")
def test_the_maker_is_refused_and_a_second_person_approves_with_no_signature_given_here(many, visit):
    ident = submitted(many)
    path = f"/rollouts/{ident}/approve"
    own = visit("operator").form(path, why="I made it")
    assert own.status_code == 409
    assert "You made this roll-out, so you cannot approve it" in own.text
    assert state_of(many, ident) == "WAITING_APPROVAL"
    with db.read(many) as connection:
        assert connection.execute(select(t.roll_out.c.approved_by)).scalar() is None
    second = visit("vendor")
    page = second.get(f"/rollouts/{ident}").text
    assert f"scanside-fleet rollout approve {ident} --as NAME --key" in page
    assert "never given in a browser" in page
    assert second.form(path, why="").status_code == 400
    assert second.form(path, why="read the protocol").status_code == 303
    assert state_of(many, ident) == "WAITING_APPROVAL", "the release signature is still missing"
    page = second.get(f"/rollouts/{ident}").text
    assert "given by vendor" in page
    assert "read the protocol" in page
    assert second.form(f"/rollouts/{ident}/start", why="now", version="3.0.0").status_code == 409
    assert visit("reader").form(path, why="x").status_code == 403


def test_acts_follow_the_state_and_need_a_reason_and_the_version_where_they_cannot_be_undone(many, visit, keys):
    ident = running(many, keys)
    visitor = visit("operator")
    text = visitor.get(f"/rollouts/{ident}").text
    assert re.findall(r'data-testid="act-(\w+)"', text) == ["pause", "abort", "revert"]
    assert 'data-testid="act-' not in visit("reader").get(f"/rollouts/{ident}").text
    assert visitor.form(f"/rollouts/{ident}/pause", why=" ").status_code == 400
    assert visitor.form(f"/rollouts/{ident}/dance", why="x").status_code == 404
    assert visitor.form(f"/rollouts/{ident}/pause", why="a call from the vendor").status_code == 303
    assert visitor.form(f"/rollouts/{ident}/resume", why="all is well").status_code == 303
    assert visitor.form(f"/rollouts/{ident}/abort", why="enough", version="3.0").status_code == 400
    assert visitor.form(f"/rollouts/{ident}/abort", why="enough", version="3.0.0").status_code == 303
    assert visitor.form(f"/rollouts/{ident}/resume", why="again").status_code == 409
    assert visitor.form(f"/rollouts/{ident}/revert", why="take it away", version="3.0.0").status_code == 303
    assert state_of(many, ident) == "REVERTING"
    text = visitor.get(f"/rollouts/{ident}").text
    for told_why in ("a call from the vendor", "all is well", "enough", "take it away"):
        assert told_why in text


def test_the_waves_come_anew_by_themselves_and_the_page_with_them_where_the_state_changed(many, visit, keys):
    ident = running(many, keys)
    visitor = visit("reader")
    same = visitor.get(f"/rollouts/{ident}/progress?state=RUNNING")
    assert "HX-Refresh" not in same.headers
    assert 'data-testid="wave-1"' in same.text
    visit("operator").form(f"/rollouts/{ident}/pause", why="wait")
    assert visitor.get(f"/rollouts/{ident}/progress?state=RUNNING").headers["HX-Refresh"] == "true"


def test_a_draft_is_made_by_the_form_shown_sent_for_approval_or_thrown_away(many, visit):
    visitor = visit("dealer")
    fields = {"model": "ich-ct 3.0.0", "role": "silent", "tenant": "dealer-001", "canaries": "3", "max_failed": "5"}
    fields |= {"CT": "1", "countries": "", "lab": "box-0000010", "alpha": "0.02"}
    assert visitor.form("/rollouts", **fields).status_code == 409, "no site is in a market of the model"
    with db.write(many) as connection:
        connection.execute(t.site.update().where(t.site.c.id == SITE).values(country="CN"))
    answer = visitor.form("/rollouts", **fields)
    assert answer.status_code == 303
    path = answer.headers["location"]
    text = visitor.get(path).text
    assert "more than 5.0 % failed" in text
    assert "alpha 0.02" in text
    assert re.findall(r'data-testid="act-(\w+)"', text) == ["submit", "discard"]
    with db.read(many) as connection:
        row = connection.execute(select(t.roll_out)).one()
        assert (row.tenant, row.digest, row.chosen["modalities"]) == ("dealer-001", "a" * 64, ["CT"])
    assert visitor.form(f"{path}/submit", why="tested in the lab").status_code == 303
    assert visitor.form(f"{path}/discard", why="no").status_code == 409
    for query, n in (("", 1), ("?package=ich-ct", 1), ("?package=cxr", 0), ("?state=PAUSED", 0)):
        assert visitor.get(f"/rollouts{query}").text.count('data-testid="rollout-01') == n, query
    other = visitor.form("/rollouts", **fields).headers["location"]
    assert visitor.form(f"{other}/discard", why="a mistake").headers["location"] == "/rollouts"
    assert visitor.get(other).status_code == 404


def test_what_does_not_fit_in_the_form_is_said_at_its_field_and_makes_nothing(many, visit):
    visitor = visit("operator")
    fields = {"model": "ich-ct 3.0.0", "role": "silent", "tenant": "vendor-001"}
    for changes, status in (
        ({"canaries": "-1"}, 400),
        ({"alpha": "2"}, 400),
        ({"failed_from": "1.5"}, 400),
        ({"role": "king"}, 400),
        ({"sites": "../etc"}, 400),
        ({"model": "ich-ct 9.9.9"}, 409),
        ({"tenant": "hospital-99"}, 409),
        ({"devices": "box-9999999"}, 409),
    ):
        answer = visitor.form("/rollouts", **fields | changes)
        assert answer.status_code == status, changes
    assert visit("dealer").form("/rollouts", **fields).status_code == 409, "the vendor is above the dealer"
    with db.read(many) as connection:
        assert connection.execute(select(t.roll_out)).all() == []
    assert read_documents({**dict.fromkeys(NUMBERS, ""), "model": "a 1", "role": "live"})[1] == frozenset()


def test_a_hospital_sees_what_waits_for_its_administrator_and_where_to_answer_and_no_roll_out_of_others(
    many, visit, keys
):
    ident = running(many, keys)
    device = next(one for one in devices_of(many, ident) if one != THEIRS)
    told(many, ident, {device: ("WAIT_APPROVAL", "")})
    visitor = visit("hospital")
    text = visitor.get("/rollouts").text
    assert ident not in text
    line = text.partition(f'data-testid="coming-{device}"')[2].partition("</tr>")[0]
    assert "Waits for the administrator at the box" in line
    assert "ich-ct 3.0.0" in line
    page = visitor.get(f"/devices/{device}").text
    assert "given at the box, not here" in page
    assert 'data-testid="noted-asked_site"' in visitor.get("/").text
    assert f"/devices/{device}" in visitor.get("/?state=asked_site").text
    neighbour = visit("neighbour")
    assert f"coming-{device}" not in neighbour.get("/rollouts").text
    assert visitor.get(f"/rollouts/{ident}").status_code == 404


@pytest.mark.req("R-FLEET-81")
def test_models_are_counted_by_role_and_by_tenant_and_say_whether_they_can_be_fetched(many, visit):
    with db.write(many) as connection:
        add_model(connection, "1.0.0", withdrawn_at=NOW)
        add_results(connection, OURS, version="2.0.0", role="silent")
        add_results(connection, THEIRS, version="2.0.0")
    text = visit("operator").get("/models").text
    line = text.partition('data-testid="model-ich-ct-2.0.0"')[2].partition("</tr>")[0]
    assert re.findall(r'<td class="figure">(\d+|–)</td>', line) == ["21", "1", "–"]
    assert "22 of 22" in line
    assert "Withdrawn" in text.partition('data-testid="model-ich-ct-1.0.0"')[2].partition("</tr>")[0]
    own = visit("neighbour").get("/models/ich-ct").text
    assert "1 of 1" in own
    assert "hospital-01" not in own
    assert visit("operator").get("/models/nothing").status_code == 404


@pytest.mark.req("R-FLEET-82")
def test_a_hold_is_put_and_lifted_with_a_reason_and_seen_wherever_its_boxes_are(many, visit):
    visitor, reader = visit("dealer"), visit("reader")
    assert visitor.form(f"/sites/{SITE}/holds", why="", days="7").status_code == 400
    assert (
        visitor.form(f"/sites/{SITE}/holds", why="audit week", days="7").headers["location"] == f"/sites/{SITE}#holds"
    )
    for path in (f"/devices/{OURS}", f"/sites/{SITE}"):
        assert "audit week" in reader.get(path).text, path
    for path in ("/", "/?state=held"):
        row = reader.get(path).text.partition(f'data-testid="box-{OURS}"')[2].partition("</tr>")[0]
        assert "On hold" in row, path
    assert "<b>21</b>" in reader.get("/counts").text.partition('data-testid="noted-held"')[2].partition("</a>")[0]
    assert f"/devices/{THEIRS}" not in reader.get("/?state=held").text
    assert "audit week" in visit("hospital").get(f"/devices/{OURS}").text
    assert "No hold stands" in reader.get(f"/sites/{OTHER_SITE}").text
    with db.read(many) as connection:
        number = connection.execute(select(t.hold.c.number)).scalar_one()
    assert visitor.form(f"/holds/{number}/lift", why="").status_code == 400
    assert visitor.form(f"/holds/{number}/lift", why="audit is over").status_code == 303
    assert "No hold stands" in reader.get(f"/sites/{SITE}").text
    with db.read(many) as connection:
        acts = connection.execute(select(t.audit).where(t.audit.c.act.like("hold.%")).order_by(t.audit.c.number)).all()
    assert [(row.act, row.detail["why"]) for row in acts] == [
        ("hold.add", "audit week"),
        ("hold.lift", "audit is over"),
    ]
    assert visitor.form(f"/devices/{OURS}/holds", why=" ").headers["location"].endswith("?wrong=hold#holds")
    assert drafted(many)
