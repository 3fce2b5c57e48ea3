"""The API as a scanner's console and a monitoring system use it, and studies opened from a RIS."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from click.testing import CliRunner
from web_kit import COOKIE, session

from appliance.cli import main
from appliance.config import Config
from appliance.records import SYSTEM, UserRole
from appliance.screen import api_models as models
from appliance.screen import screen_app
from appliance.screen.in_context import InContextPages
from appliance.store.facts import Kind
from appliance.web.access import Guarded
from appliance.web.server import WebServer


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config(), scenes.packages(), clock)


@pytest.fixture
def address(app):
    server = WebServer(app, port=0)
    yield f"http://127.0.0.1:{server.start()}"
    server.stop()


@pytest.fixture
def program(store, address):
    """``with program(role, *sources) as client``: asks with a token of its own, no cookie, no origin."""

    @contextmanager
    def opened(role=UserRole.SCREEN, *sources, **more):
        name = f"console {len(store.tokens.all())}"
        token = store.tokens.add(name, role, sources, SYSTEM, **more)
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
            client.name = name
            yield client

    return opened


@pytest.mark.req("R-API-01")
def test_the_document_names_every_address_and_every_answer_is_as_it_says(app, program, write, scenes):
    alert = write(scenes.urgent)
    with program() as console:
        document = console.get("/api/v1/openapi.json").json()
        served = {
            (re.sub(r":int", "", route.path), method.lower())
            for route in app.routes
            if isinstance(route, Guarded) and route.path.startswith("/api/v1/")
            for method in route.methods - {"HEAD"}
        }
        said = {(path, method) for path, item in document["paths"].items() for method in item}
        assert said == served - {("/api/v1/openapi.json", "get")}
        models.Health.model_validate(console.get("/api/v1/health").json())
        answer = models.Alerts.model_validate(console.get("/api/v1/alerts").json())
        assert [one.id for one in answer.alerts] == [alert]
        study = models.Study.model_validate(console.get(f"/api/v1/studies/{answer.alerts[0].study}").json())
        assert study.alert == alert
        refused = console.get("/api/v1/studies")
        assert refused.status_code == 400
        models.Error.model_validate(refused.json())
    assert document["components"]["schemas"]["Alert"]["required"]


@pytest.mark.req("R-API-01")
def test_a_site_that_tells_technologists_the_priority_only_tells_a_console_no_more(store, write, scenes, clock):
    write(scenes.urgent)
    token = store.tokens.add("console", UserRole.SCREEN, (), SYSTEM)
    config = Config.model_validate({"site": {"technologist_detail": "priority_only"}})
    server = WebServer(screen_app(store, config, scenes.packages(), clock), port=0)
    try:
        address = f"http://127.0.0.1:{server.start()}"
        told = httpx.get(f"{address}/api/v1/alerts", headers={"Authorization": f"Bearer {token}"}, timeout=60).json()
    finally:
        server.stop()
    (finding,) = told["alerts"][0]["findings"]
    assert (finding["id"], finding["title"]["en"]) == ("", "Priority study")


@pytest.mark.req("R-API-02")
def test_a_console_acknowledges_in_the_name_of_a_person(program, write, scenes, store):
    alert = write(scenes.urgent)
    with program() as console:
        nobody = console.post(f"/api/v1/alerts/{alert}/acknowledge", json={})
        assert nobody.status_code == 400
        seen = console.post(f"/api/v1/alerts/{alert}/acknowledge", json={"name": "Li Wei"}).json()
    assert (seen["state"], seen["acknowledged_by"]) == ("acknowledged", "Li Wei")
    (fact,) = store.journal.after(0, 100, (Kind.ALERT_ACKNOWLEDGED,))
    assert fact.actor["name"] == "Li Wei"


@pytest.mark.fault("T42")
def test_a_program_may_what_its_role_may_and_sees_its_sources_alone(program, write, scenes, store):
    alert = write(scenes.urgent)
    study = store.views.alert(alert).study_id
    with program(UserRole.SERVICE) as service:
        assert service.get("/api/v1/health").status_code == 200
        assert service.get("/api/v1/alerts").status_code == 403
    with program(UserRole.VIEWER) as viewer:
        assert viewer.post(f"/api/v1/alerts/{alert}/acknowledge", json={"name": "x"}).status_code == 403
    with program(UserRole.SCREEN, "DX-9") as elsewhere:
        assert elsewhere.get("/api/v1/alerts").json()["alerts"] == []
        assert elsewhere.get(f"/api/v1/studies/{study}").status_code == 404
        assert elsewhere.post(f"/api/v1/alerts/{alert}/acknowledge", json={"name": "x"}).status_code == 404
    assert store.views.alert(alert).is_open


@pytest.mark.fault("T42")
def test_a_program_has_the_api_alone_and_no_page_whatever_its_role(program, app, write, scenes, store):
    alert = write(scenes.urgent)
    study = store.views.alert(alert).study_id
    for role in (UserRole.SCREEN, UserRole.VIEWER, UserRole.SERVICE):
        with program(role) as client:
            for path in scenes.addresses(app, store, UserRole(role)):
                route = next(one for one in app.routes if re.sub(r"\{\w+(:\w+)?\}", str(study), one.path) == path)
                if route.roles is not None:
                    assert client.get(path).status_code == 403, (role, path)
            assert client.get(f"/studies/{study}/identity").status_code == 403


@pytest.mark.req("R-API-02")
def test_a_storm_elsewhere_hides_no_open_alert_of_a_console(program, write, scenes, store):
    write(scenes.urgent)
    for _ in range(205):
        write(scenes.urgent, study_values={"source": "CT-9"})
    with program(UserRole.SCREEN, "CT-1") as console:
        assert [one["source"] for one in console.get("/api/v1/alerts").json()["alerts"]] == ["CT-1"]
    with program() as console:
        assert len(console.get("/api/v1/alerts").json()["alerts"]) == 206


@pytest.mark.fault("T42")
def test_a_token_that_is_wrong_revoked_or_over_is_refused_and_never_kept(program, address, store, clock):
    for given in ("Bearer x", "Bearer", "Basic eA=="):
        answer = httpx.get(f"{address}/api/v1/health", headers={"Authorization": given}, timeout=60)
        assert answer.status_code == 401
    with program(life=timedelta(days=1)) as console:
        token = console.headers["Authorization"].removeprefix("Bearer ")
        assert console.get("/api/v1/health").status_code == 200
        assert token not in json.dumps([dict(row) for row in store.db.all("SELECT * FROM api_token")])
        clock.advance(2 * 86400)
        assert console.get("/api/v1/health").status_code == 401
    with program() as console:
        store.tokens.revoke(console.name, SYSTEM)
        assert console.get("/api/v1/health").status_code == 401


@pytest.mark.fault("T42")
def test_a_browser_cannot_be_made_to_act_by_a_header_of_a_program(address, store, write, scenes):
    alert = write(scenes.urgent)
    cookies = {COOKIE: session(store, "technologist")}
    forged = {"Authorization": "Bearer x", "Origin": "https://evil.example"}
    with httpx.Client(base_url=address, headers=forged, cookies=cookies, timeout=60) as page:
        assert page.post(f"/api/v1/alerts/{alert}/acknowledge", json={"name": "x"}).status_code == 401
    assert store.views.alert(alert).is_open


@pytest.mark.req("R-API-03")
def test_a_study_is_found_by_its_uid_and_its_order_and_says_nothing_of_a_patient(program, write, scenes):
    study = write(scenes.nothing_flagged)
    write(scenes.not_analysed)
    with program() as console:
        by_uid = console.get(
            "/api/v1/studies", params={"study_instance_uid": f"{scenes.DOE.study_instance_uid}.1"}
        ).json()
        by_order = console.get("/api/v1/studies", params={"accession_number": scenes.LI.accession_number}).json()
        assert console.get("/api/v1/studies", params={"accession_number": str(study)}).json()["studies"] == []
    (found,) = by_uid["studies"]
    assert (found["id"], found["outcome"]) == (study, "NOTHING_FLAGGED")
    assert found["text"] == {
        "en": "Nothing flagged. The images still need to be read.",
        "zh_Hans": "AI 未作提示。图像仍需阅片。",
    }
    assert by_order["studies"][0]["text"]["en"] == "Images are missing"
    whole = json.dumps([by_uid, by_order], ensure_ascii=False)
    for secret in ("DOE", "JANE", "PID-", "19820901"):
        assert secret not in whole


@pytest.mark.req("R-API-04")
def test_alerts_come_as_events_and_one_that_was_missed_comes_again(program, write, scenes, store):
    before = store.journal.last_seq()
    alert = write(scenes.urgent)
    with (
        program() as console,
        console.stream("GET", "/api/v1/events", headers={"Last-Event-ID": str(before)}) as stream,
    ):
        told = events(stream, 1)
        write(scenes.priority)
        told += events(stream, 1)
    assert [one["state"] for one in told] == ["raised", "raised"]
    assert told[0]["id"] == alert
    assert told[0]["findings"][0]["title"]["zh_Hans"].startswith("疑似")


def events(stream, count):
    """The data of the next alert events."""
    found, name = [], ""
    lines = stream.lines = getattr(stream, "lines", None) or stream.iter_lines()
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name == "alert":
            found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == count:
                return found
    return found


@pytest.mark.fault("T42")
def test_numbers_and_bodies_that_cannot_be_ours_are_refused_in_words(address, store):
    with httpx.Client(base_url=address, cookies={COOKIE: session(store, "technologist")}, timeout=60) as page:
        page.get("/account")
        token = {"Origin": address, "X-CSRF-Token": page.cookies["scanside_csrf"]}
        assert page.get(f"/studies/{10**30}").status_code == 404
        assert page.get("/studies/" + "9" * 5000).status_code == 414
        nested = {"Content-Type": "application/json", **token}
        assert page.post("/alerts/1/acknowledge", content=b"[" * 10_000, headers=nested).status_code == 400


@pytest.mark.req("R-API-05")
def test_a_study_opens_in_context_by_the_parameters_of_ihe_invoke_image_display(address, store, write, scenes):
    study = write(scenes.nothing_flagged)

    def ask(role="viewer", **parameters):
        with httpx.Client(base_url=address, cookies={COOKIE: session(store, role)}, timeout=60) as reader:
            answer = reader.get("/IHEInvokeImageDisplay", params=parameters)
            return answer.headers.get("location") or answer.status_code

    uid, order = f"{scenes.DOE.study_instance_uid}.1", scenes.DOE.accession_number
    assert ask(requestType="STUDY", studyUID=uid) == f"/studies/{study}"
    assert ask(requestType="STUDY", accessionNumber=order) == f"/studies/{study}"
    assert ask(role="radiologist", requestType="STUDY", studyUID=uid, page="review") == f"/studies/{study}/review"
    assert ask(requestType="STUDY", studyUID=uid, page="review") == f"/studies/{study}"
    assert ask(requestType="PATIENT", patientID="PID-1^^^H") == "/studies?q=PID-1"
    assert ask(requestType="STUDY", studyUID="1.2.3") == 404
    assert ask(requestType="STUDY", studyUID=str(study)) == 404
    assert ask(requestType="STUDY") == ask(studyUID=uid) == 400
    assert ask(requestType="STUDY", studyUID=",".join([uid] * 100)) == f"/studies/{study}"
    assert ask(requestType="STUDY", studyUID=",".join(f"1.2.{n}" for n in range(21))) == 400
    asked = {"params": {"studyUID": uid}, "headers": {"Accept": "text/html"}, "timeout": 60}
    nobody = httpx.get(f"{address}/IHEInvokeImageDisplay", **asked)
    assert nobody.headers["location"].startswith("/sign-in?next=%2FIHEInvokeImageDisplay%3FstudyUID%3D")


@pytest.mark.fault("T42")
def test_whoever_is_bound_to_a_source_opens_counts_and_hears_of_its_studies_alone(
    address, app, program, write, scenes, store
):
    study = write(scenes.nothing_flagged)
    write(scenes.add_study, scenes.LI, is_open=True)
    before = store.journal.last_seq()
    write(scenes.urgent)

    def seen(source):
        opened = InContextPages(app.state.context)._found([f"{scenes.DOE.study_instance_uid}.1"], (source,))
        with program(UserRole.SCREEN, source) as console:
            receiving = console.get("/api/v1/health").json()["receiving"]
        with (
            httpx.Client(base_url=address, cookies={COOKIE: session(store, sources=(source,))}, timeout=60) as screen,
            screen.stream("GET", "/events/page", headers={"Last-Event-ID": str(before)}) as stream,
        ):
            lines = stream.iter_lines()
            assert any(line == "event: facts" for line in lines)
            told = next(json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
        return opened, receiving, told["studies"]

    assert seen("CT-1") == ([study], 1, [study + 2])
    assert seen("DX-9") == ([], 0, [])


@pytest.mark.req("R-API-01")
def test_tokens_are_made_listed_and_revoked_on_the_command_line(tmp_path, store):
    config = tmp_path / "box.yaml"
    config.write_text(
        f"state_path: {store.db.path.parent}\nsources: [{{name: CT-1, ae_title: CT1}}]\n", encoding="utf-8"
    )

    def call(*arguments):
        return CliRunner().invoke(main, ["token", *arguments, "--config", str(config)])

    made = call("add", "console", "--source", "CT-1", "--json")
    view = store.tokens.find(json.loads(made.stdout)["token"])
    assert (view.name, view.role, view.sources) == ("console", UserRole.SCREEN, ("CT-1",))
    assert call("add", "console").exit_code != 0
    assert call("add", "other", "--source", "CT-9").exit_code != 0
    assert [one["name"] for one in json.loads(call("list", "--json").stdout)["tokens"]] == ["console"]
    assert call("revoke", "console").exit_code == 0
    assert store.tokens.all() == []
    changes = [fact.body["change"] for fact in store.journal.after(0, 100, (Kind.TOKEN_CHANGED,))]
    assert changes == ["added", "revoked"]
