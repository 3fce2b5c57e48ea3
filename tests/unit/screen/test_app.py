"""The addresses of the alert screen, asked without a browser."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager

import httpx
import pytest
from markupsafe import escape
from web_kit import COOKIE, Browser, session

from appliance.config import Config, Site
from appliance.dicom.geometry import SlicePlace, sort_slices
from appliance.errors import NotAnalysable
from appliance.records import Actor, ActorKind, Detail, ReviewDecision, ReviewReason
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading
from appliance.triage.stack_checks import refuse_gaps
from appliance.web.server import WebServer


@contextmanager
def _served(app, store):
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    cookies = {COOKIE: session(store)}
    try:
        with httpx.Client(
            base_url=address, headers={"Origin": address}, cookies=cookies, follow_redirects=True, timeout=60
        ) as client:
            yield client
    finally:
        server.stop()


@pytest.fixture
def serve(store, clock, scenes):
    """``with serve() as client``: the screen of the store as it stands now."""
    return lambda **site: _served(screen_app(store, Config(site=Site(**site)), scenes.packages(), clock), store)


@pytest.fixture
def client(serve):
    with serve(name="CT <1>") as opened:
        yield opened


@pytest.fixture
def post(client):
    """``post(path, body)`` as the page does: with origin and token."""

    def send(path, body, **headers):
        if "scanside_csrf" not in client.cookies:
            client.get("/alert")
        return client.post(path, json=body, headers={"X-CSRF-Token": client.cookies["scanside_csrf"]} | headers)

    return send


@pytest.fixture
def rows(store):
    """``rows(kind)``: journal rows of a kind."""
    return lambda kind: store.journal.after(0, 100, (kind,))


def test_the_page_is_whole_without_the_script_and_says_that_it_is_not_connected(client):
    page = client.get("/alert").text
    assert 'data-connection="none"' in page
    assert "CONNECTION LOST" in page
    assert "CT &lt;1&gt;" in page


def test_the_front_door_leads_to_the_alert_page(client):
    answer = client.get("/", follow_redirects=False)
    assert answer.headers["location"] == "/alert"


@pytest.mark.req("R-SCREEN-05")
def test_a_choice_of_language_is_remembered(client):
    assert "Evaluation, not for patient care" in client.get("/alert").text
    assert "评估模式，不得用于诊疗" in client.get("/alert?lang=zh_Hans_CN").text
    assert "Evaluation, not for patient care" in client.get("/alert").text
    page = client.get("/language?to=zh_Hans_CN&next=/alert")
    assert "评估模式，不得用于诊疗" in page.text
    assert 'lang="zh-Hans-CN"' in page.text
    assert page.headers["content-language"] == "zh-Hans-CN"


@pytest.mark.req("R-SCREEN-05")
def test_what_is_said_of_missing_slices_is_chinese_on_a_chinese_screen(serve, write, scenes):
    there = [SlicePlace((0, 0, 5.0 * n), (1, 0, 0, 0, 1, 0), 5.0) for n in range(12) if n not in {4, 5, 9}]
    with pytest.raises(NotAnalysable) as caught:
        refuse_gaps(sort_slices(there))
    write(scenes.not_analysed, caught.value.reason, caught.value.details)
    with serve() as client:
        said, english = (_detail(client.get(f"/alert?lang={locale}").text) for locale in ("zh_Hans_CN", "en"))
    assert said == "缺少 3 层图像：第 5-6, 10 层（共 12 层，按位置顺序计数）"
    assert not re.search("[A-Za-z]", said)
    assert english == "3 slices are missing: 5-6, 10 of 12, counted along the series"


@pytest.mark.req("R-SCREEN-05")
def test_several_details_are_one_line_and_an_unknown_one_stands_in_english(serve, write, scenes):
    write(scenes.not_analysed, details=(Detail("{count} slices are not covered", {"count": 4}), Detail("100 % new")))
    with serve() as client:
        assert _detail(client.get("/alert?lang=zh_Hans_CN").text) == "层数 4 超出适用范围；100 % new"


def _detail(page):
    return re.search('data-testid="detail">([^<]*)<', page)[1]


def test_an_unknown_language_is_the_sites(client):
    assert "Evaluation, not for patient care" in client.get("/alert?lang=xx").text


def test_clinical_mode_has_no_band_and_no_demonstration(serve, write, scenes):
    write(scenes.urgent)
    with serve(mode="clinical") as client:
        page = client.get("/alert").text
    assert "Evaluation" not in page
    assert "Demonstration" not in page


def test_evaluation_mode_marks_every_open_alert_as_demonstration(serve, store, scenes):
    scenes.fill(store, "several")
    with serve() as client:
        page = client.get("/alert").text
    # Three open ones and one withdrawn.
    assert page.count("Demonstration") == 4


@pytest.mark.req("R-SCREEN-03")
def test_an_acknowledgement_stands_in_the_journal_with_the_name(post, rows, write, scenes, store):
    alert = write(scenes.urgent)
    assert post(f"/alerts/{alert}/acknowledge", {"name": " Li Wei "}).status_code == 204
    (fact,) = rows(Kind.ALERT_ACKNOWLEDGED)
    assert fact.actor == {"kind": "person", "name": "Li Wei", "role": "screen"}
    assert store.views.alert(alert).acknowledged_by == "Li Wei"


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb", None])
def test_an_acknowledgement_needs_a_name(post, rows, write, scenes, name):
    alert = write(scenes.urgent)
    answer = post(f"/alerts/{alert}/acknowledge", {} if name is None else {"name": name})
    assert answer.status_code == 400
    assert not rows(Kind.ALERT_ACKNOWLEDGED)


def test_acknowledging_what_is_not_there_or_was_withdrawn_is_told(post, write, scenes):
    alert = write(scenes.urgent, state="withdrawn", withdrawn_why="superseded")
    assert post("/alerts/999/acknowledge", {"name": "Li"}).status_code == 404
    assert post(f"/alerts/{alert}/acknowledge", {"name": "Li"}).status_code == 409


@pytest.mark.parametrize(
    "headers", [{"Origin": "null"}, {"Origin": "http://evil.example"}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x" * 32}]
)
def test_an_act_from_elsewhere_is_refused(post, rows, write, scenes, headers):
    alert = write(scenes.urgent)
    assert post(f"/alerts/{alert}/acknowledge", {"name": "Li"}, **headers).status_code == 403
    assert not rows(Kind.ALERT_ACKNOWLEDGED)


def test_presented_is_recorded_with_the_screens_name(post, rows, write, scenes):
    alert = write(scenes.urgent)
    # Whose screen it is says the session, not the page.
    for _ in range(2):
        assert post(f"/alerts/{alert}/presented", {"screen": "another"}).status_code == 204
    assert [fact.body for fact in rows(Kind.ALERT_PRESENTED)] == [{"alert": alert, "screen": "CT1-screen"}]


def test_the_picture_of_a_detection_package_is_served_and_of_a_triage_package_not(client, store, write, scenes, rows):
    shown = store.spool.write_blob("pictures", scenes.picture(16), suffix=".png")
    alert = write(scenes.urgent, pictures=(shown,))
    answer = client.get(f"/alerts/{alert}/picture")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == scenes.picture(16)
    assert rows(Kind.ACCESSED) == [], "of a screen the journal has what it showed"
    study = write(scenes.add_study)
    result = write(scenes.finding_result, study, finding="effusion", pictures=(shown,))
    triage = write(scenes.add_alert, study, write(scenes.add_analysis, study, result, package=scenes.CHEST))
    assert client.get(f"/alerts/{triage}/picture").status_code == 404
    assert client.get("/alerts/999/picture").status_code == 404


def test_a_picture_that_is_none_or_lies_outside_the_spool_is_not_served(client, store, write, scenes):
    page = store.spool.write_blob("pictures", b"<html><script>", suffix=".png")
    for path, status in ((page, 404), ("../scanside.db", 503), ("/etc/passwd", 503)):
        alert = write(scenes.urgent, pictures=(path,))
        assert client.get(f"/alerts/{alert}/picture").status_code == status


def test_the_whole_name_comes_only_when_it_is_asked_for(serve, write, scenes):
    write(scenes.urgent)
    with serve() as client:
        shown = client.get("/alert").text + client.get("/api/board").text
        assert "4711" in shown
        assert "XIAOMING" not in shown
        assert client.get("/studies/1/identity").json()["name"] == "WANG, XIAOMING"
        assert client.get("/studies/99/identity").status_code == 404


def test_the_board_as_json_says_the_same(serve, store, scenes):
    scenes.fill(store, "several")
    with serve() as client:
        board = client.get("/api/board").json()
    assert (board["state"], board["open_alerts"], board["stream"]) == ("urgent", 3, store.db.stream)
    assert board["hero"]["lines"][0]["volume_ml"] == pytest.approx(12.4)
    assert board["hero"]["person"]["name"]["zh_Hans"] == "王*明"
    json.dumps(board)


@pytest.mark.req("R-FAULT-T23")
@pytest.mark.fault("T23")
def test_hostile_text_is_text(serve, write, scenes):
    hostile = scenes.Identity(
        study_instance_uid="1.2",
        patient_name='<img src=x onerror="alert(1)">^Jane',
        accession_number='"><script>alert(2)',
    )
    alert = write(
        scenes.urgent, hostile, study_values={"description": "</main><script>alert(3)</script>", "source": "<b>CT"}
    )
    write(scenes.not_analysed, details=(Detail("<svg onload=alert(4)>"),), identity=hostile)
    write(lambda tx: tx.execute("UPDATE alert SET acknowledged_by = '<i>x' WHERE id = ?", (alert,)))
    with serve() as client:
        page = client.get("/alert").text
    for raw in ("<script>alert", "<img src", "<svg onload", "<b>CT", "<i>x"):
        assert raw not in page
    assert "&lt;/main&gt;&lt;script&gt;alert(3)" in page


@pytest.mark.req("R-FAULT-T23")
@pytest.mark.fault("T23")
def test_hostile_text_is_text_where_studies_are_judged_and_where_it_stands_who_was_told(store, clock, scenes, write):
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=a()>{{7*7}}%(name)s</td>"
    escaped = str(escape(hostile))
    identity = scenes.Identity(
        study_instance_uid="1.2", patient_name=hostile, patient_id=hostile, accession_number=hostile
    )
    values = {"description": hostile, "modality": hostile, "source": hostile}
    open_one, told_of = (write(scenes.urgent, identity, study_values=values) for _ in range(2))
    write(scenes.was_told, told_of, received_by=hostile)
    study = store.views.alert(open_one).study_id
    with store.db.write() as tx:
        tx.execute("UPDATE communication SET told_by = ?, age = ?, titles = ?", (hostile, hostile, _titled(hostile)))
        scenes.add_delivery(tx, study, hostile, state="sent", analysis_id=1)
    author = Actor(kind=ActorKind.PERSON, name=hostile, role="radiologist")
    store.reviews.ask(study, author)
    draft = Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT, note=hostile)
    etag, reading = store.reviews.case(study).etag, Reading(seen={ELSEWHERE: 1})
    store.reviews.sign(study, draft, etag, author, reading, organization=hostile)
    store.reviews.ask(study, author)
    app = screen_app(store, Config(site=Site(name=hostile[:32])), scenes.packages(), clock)
    with Browser(app, session(store, "radiologist")) as browser:
        for path, least in (("/reviews", 4), (f"/studies/{study}/review", 5), ("/critical-values", 8)):
            page = browser.get(path).text
            for raw in ("<script>alert", "<img src=x", "49%(name)s"):
                assert raw not in page, path
            assert page.count(escaped) >= least, (path, page.count(escaped))


def _titled(text):
    return json.dumps([{"en": text, "zh_Hans": text}])
