"""The review page and the queue, asked without a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from web_kit import COOKIE, Browser, account, session

from appliance.config import Config, Review, Site
from appliance.records import SYSTEM, AlertState, Outcome
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.store.jsonable import dump
from appliance.web.passwords import Passwords

ELSEWHERE = {"elsewhere": 1}


@pytest.fixture
def serve(store, clock, scenes):
    """``with serve(role, ...) as client``: the pages of the store, without a server around them."""

    def start(role="radiologist", review=None, **site):
        config = Config(site=Site(**site), review=review or Review(organization="City Hospital"))
        app = screen_app(store, config, scenes.packages(), clock)
        client = Browser(app, session(store, role))
        client.headers["Origin"] = client.address
        return client

    return start


@pytest.fixture
def client(serve):
    with serve() as opened:
        yield opened


def post(client, path, body):
    if "scanside_csrf" not in client.cookies:
        client.get("/reviews", headers={"Accept": "text/html"})
    headers = {"X-CSRF-Token": client.cookies["scanside_csrf"], "Accept": "*/*"}
    return client.post(path, json=body, headers=headers)


def etag(page):
    return json.loads(page.text.split('data-facts="')[1].split('"')[0].replace("&#34;", '"'))["etag"]


@pytest.fixture
def flagged(store, write, scenes):
    """A study with an alert; returns its id."""
    return store.views.alert(write(scenes.urgent)).study_id


@pytest.fixture
def sign(client, flagged):
    """``sign(decision=...)`` as the page stands now."""

    def send(study=flagged, **given):
        page = client.get(f"/studies/{study}/review")
        body = {"decision": "agree", "etag": etag(page), "seen": ELSEWHERE} | given
        return post(client, f"/studies/{study}/review", body)

    return send


@pytest.mark.req("R-REVIEW-05")
def test_the_queue_offers_the_next_case_with_its_reason_and_does_not_open_it(client, flagged, store):
    page = client.get("/reviews").text
    assert f'data-study="{flagged}" data-why="flagged"' in page
    assert f'href="/studies/{flagged}/review"' in page
    assert len(store.journal.after(0, 99, (Kind.ACCESSED,))) == 1


def test_reading_first_tells_neither_why_a_case_waits_nor_what_was_found(client, flagged, write, scenes, store):
    page = client.get("/reviews?first=1").text
    assert "Suspected" not in page
    assert 'data-why=""' in page
    page = client.get(f"/studies/{flagged}/review?first=1").text
    assert 'id="ai" data-testid="ai-result" hidden' in page
    assert 'data-testid="opinion"' in page


def test_the_page_says_what_is_judged_and_every_look_is_a_fact(client, flagged, store):
    page = client.get(f"/studies/{flagged}/review").text
    assert "PID-88172355" in page
    assert page.count("disabled>") >= 5
    (fact,) = store.journal.after(0, 99, (Kind.ACCESSED,))
    assert (fact.study_id, fact.body["what"], fact.actor["role"]) == (flagged, "study", "radiologist")


@pytest.mark.req("R-REVIEW-01")
def test_a_signature_is_made_with_the_hospitals_name_and_decides_the_alert(sign, store, flagged):
    answer = sign()
    assert (answer.status_code, answer.json()) == (200, {"version": 1})
    (review,) = store.reviews.of_study(flagged)
    assert (review.reviewer, review.role, review.organization) == ("Rada Radiologist", "radiologist", "City Hospital")
    assert store.views.some([flagged])[flagged].alert.state is AlertState.DECIDED


@pytest.mark.req("R-REVIEW-04")
def test_a_stale_page_is_told_who_signed_and_when_and_signs_nothing(client, sign, flagged, store, clock):
    stale = etag(client.get(f"/studies/{flagged}/review"))
    assert sign().status_code == 200
    clock.advance(60)
    for given in WHOLE:
        answer = sign(etag=stale, **given)
        assert answer.status_code == 409, given
        told = answer.json()
        assert (told["conflict"], told["by"], told["version"]) == (True, "Rada Radiologist", 1)
        assert len(told["at"]) == 5
        assert len(store.reviews.of_study(flagged)) == 1


@pytest.mark.req("R-REVIEW-04")
def test_every_version_can_be_read_on_the_page(client, sign, flagged, clock):
    sign(decision="disagree", reason="artefact", note="<b>metal</b>")
    clock.advance(60)
    sign()
    page = client.get(f"/studies/{flagged}/review").text
    assert page.index('data-version="2"') < page.index('data-version="1"')
    assert "&lt;b&gt;metal&lt;/b&gt;" in page
    assert "Artefact" in page


#: A draft of every decision that could be signed.
WHOLE = (
    {"decision": "agree"},
    {"decision": "disagree", "reason": "artefact"},
    {"decision": "amend", "answers": [{"analysis": 1, "finding": "hyperdensity", "side": "left"}]},
    {"decision": "cannot_judge"},
)
REFUSED = (
    ({"decision": "disagree"}, 422),
    ({"decision": "amend"}, 422),
    ({"seen": {}}, 422),
    ({"note": "x" * 501}, 422),
    ({"decision": "yes"}, 400),
    ({"decision": "disagree", "reason": "mood"}, 400),
    ({"seen": {"1": "many"}}, 400),
    ({"seen": {"x": 1}}, 400),
    ({"opinion": "rumour"}, 400),
    ({"decision": "amend", "answers": [{"analysis": "1"}]}, 400),
    ({"decision": "amend", "answers": [{"analysis": 1, "code": "absent", "added": True}]}, 400),
    ({"decision": "amend", "answers": [{"analysis": 1, "finding": "hyperdensity", "side": "up"}]}, 400),
    ({"decision": "amend", "answers": [{"analysis": 1, "finding": "hyperdensity", "category": "1"}]}, 400),
    ({"decision": "amend", "answers": [{"analysis": 1, "finding": "hyperdensity", "region": {"series": 1}}]}, 400),
)


@pytest.mark.req("R-REVIEW-01")
def test_what_is_not_whole_or_not_of_the_page_is_refused_with_its_reason(sign, store, flagged):
    for given, status in REFUSED:
        answer = sign(**given)
        assert answer.status_code == status, (given, answer.text)
        assert answer.json()["error"]
    assert store.reviews.of_study(flagged) == ()


@pytest.mark.req("R-REVIEW-01")
def test_of_two_series_that_are_judged_one_seen_is_not_enough(sign, store, flagged, write, scenes):
    second = str(write(scenes.add_input, flagged, 1))
    (first,) = {str(series) for series in store.reviews.case(flagged).series} - {second}
    for seen in ({first: 5}, {second: 5}, {first: 1, second: 0}):
        answer = sign(seen=seen)
        assert (answer.status_code, "no image was shown of 1 of the series" in answer.text) == (422, True), seen
    assert store.reviews.of_study(flagged) == ()
    assert sign(seen={first: 1, second: 1}).status_code == 200


@pytest.mark.req("R-REVIEW-03")
def test_what_will_be_sent_is_shown_before_it_is_signed(client, flagged, store, write):
    def owed(tx):
        for kind, notes in (("sr", 0), ("seg", 0), ("gsps", None)):
            values = {"path": "results/1", "identity": "{}", "sop_instance_uid": f"2.25.{kind == 'sr':d}{notes}"}
            tx.insert(
                "delivery",
                destination="PACS",
                kind=kind,
                study_id=flagged,
                analysis_id=1,
                state="sent",
                next_at=tx.at,
                owed_at=tx.at,
                rejected_by=notes,
                **values,
            )

    nothing = post(client, f"/studies/{flagged}/review/preview", {"decision": "agree"}).text
    assert "sends-nothing" in nothing
    write(owed)
    shown = post(client, f"/studies/{flagged}/review/preview", {"decision": "disagree", "reason": "artefact"}).text
    assert "Suspected" in shown
    assert 'data-presence="absent"' in shown
    assert [shown.count(f'data-act="{act}"') for act in ("revise", "withdraw", "stays")] == [1, 1, 1]
    agreed = post(client, f"/studies/{flagged}/review/preview", {"decision": "agree"}).text
    assert agreed.count("data-act=") == 1
    assert post(client, f"/studies/{flagged}/review/preview", {"decision": "amend"}).status_code == 422


@pytest.mark.req("R-REVIEW-01")
def test_after_five_minutes_the_password_is_asked_for_again(serve, store, clock, flagged):
    account(store, "radiologist")
    number = store.accounts.by_name("radiologist")[0].id
    store.accounts.set_password(number, Passwords().hashed("correct horse battery"), SYSTEM, must_change=False)
    with serve() as client:
        body = {"decision": "agree", "etag": etag(client.get(f"/studies/{flagged}/review")), "seen": ELSEWHERE}
        address = f"/studies/{flagged}/review"
        clock.advance(301)
        first = post(client, address, body)
        assert (first.status_code, first.json()["proof"]) == (403, "password")
        wrong = post(client, address, body | {"password": "wrong horse"})
        assert (wrong.status_code, wrong.json()["proof"]) == (403, "wrong")
        assert store.reviews.of_study(flagged) == ()
        assert post(client, address, body | {"password": "correct horse battery"}).status_code == 200


def test_an_account_without_a_password_signs_in_again(sign, clock, store, flagged):
    clock.advance(301)
    answer = sign()
    assert (answer.status_code, answer.json()["proof"]) == (403, "sign-in")
    assert store.reviews.of_study(flagged) == ()


@pytest.mark.req("R-REVIEW-04")
def test_a_session_that_is_over_answers_401_and_writes_nothing(client, sign, store, clock, flagged):
    clock.advance(timedelta(hours=3).total_seconds())
    page = client.get(f"/studies/{flagged}/review", headers={"Accept": "text/html"})
    assert page.headers["location"].startswith("/sign-in?next=")
    for given in WHOLE:
        for address in (f"/studies/{flagged}/review", f"/studies/{flagged}/review/preview"):
            assert post(client, address, {"etag": "1-x", "seen": ELSEWHERE} | given).status_code == 401
    assert store.reviews.of_study(flagged) == ()


def test_nobody_but_a_radiologist_reviews(client, flagged, store):
    for role in ("technologist", "viewer", "administrator", "service", "screen"):
        client.cookies.set(COOKIE, session(store, role))
        assert client.get("/reviews").status_code == 403
        assert client.get(f"/studies/{flagged}/review").status_code == 403
        answer = post(client, f"/studies/{flagged}/review", {"decision": "agree", "etag": "", "seen": ELSEWHERE})
        assert answer.status_code == 403
    assert store.reviews.of_study(flagged) == ()


def test_a_technologist_asks_for_a_radiologists_word(store, write, scenes, client):
    study = write(scenes.nothing_flagged)
    client.get("/reviews")
    radiologist = client.cookies[COOKIE]
    client.cookies.set(COOKIE, session(store, "technologist"))
    given = {"csrf": client.cookies["scanside_csrf"]}
    assert client.post(f"/studies/{study}/review/ask", data=given).status_code == 303
    client.cookies.set(COOKIE, radiologist)
    page = client.get("/reviews").text
    assert "Theo Technologist" in page


def test_a_sampled_study_is_judged_by_saying_that_none_is_there(client, sign, store, write, scenes):
    study = write(scenes.nothing_flagged)

    def chosen(tx):
        result = replace(scenes.finding_result(tx, study), outcome=Outcome.NOTHING_FLAGGED)
        quiet = tuple(replace(one, flagged=False, score=0.1) for one in result.findings)
        tx.execute(
            "UPDATE analysis SET result = ? WHERE study_id = ?",
            (dump(replace(result, findings=quiet)), study),
        )
        tx.execute("INSERT INTO review_sample VALUES (?, ?, 0.02, NULL)", (study, tx.at))

    write(chosen)
    page = client.get(f"/studies/{study}/review").text
    assert "Agree: none is there" in page
    assert 'data-testid="disagree"' not in page
    assert sign(study).status_code == 200
    assert store.reviews.of_study(study)[0].findings[0].presence == "absent"


def test_a_test_accounts_review_counts_nowhere(serve, store, flagged):
    with serve(review=Review(test_accounts=("radiologist",))) as client:
        body = {"decision": "agree", "etag": etag(client.get(f"/studies/{flagged}/review")), "seen": ELSEWHERE}
        assert "this account is for tests" in post(client, f"/studies/{flagged}/review/preview", body).text
        assert post(client, f"/studies/{flagged}/review", body).status_code == 200
    assert store.db.one("SELECT counts FROM review")[0] == 0


def test_an_unknown_study_has_no_review_and_chinese_pages_are_chinese(client, flagged):
    assert client.get("/studies/999/review").status_code == 404
    client.get("/language?to=zh_Hans_CN&next=/reviews")
    page = client.get(f"/studies/{flagged}/review").text
    assert "疑似" in page
    assert "同意" in page
