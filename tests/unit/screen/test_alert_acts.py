"""What is done at the alert screen, and which of it a screen of other sources may see or do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from web_kit import Browser, session

from appliance.config import Config, LightSink, PackageChoice, Site, Source
from appliance.records import Actor, ActorKind, SourceMode
from appliance.screen import screen_app
from appliance.store.facts import Kind

SOURCES = (Source(name="CT-1", ae_title="CT1"), Source(name="DX-2", ae_title="DX2"))
TOLD = {"method": "phone", "read_back": True, "received_by": "Dr Chen", "name": "Li Wei", "at": ""}
LI = Actor(kind=ActorKind.PERSON, name="Li Wei")


class Reader(Browser):
    """Asks as the script of the page does."""

    def page(self, address="/alert", **query):
        return self.get(address, params=query)

    def act(self, address, body=None):
        if "scanside_csrf" not in self.cookies:
            self.get("/alert")
        headers = {"X-CSRF-Token": self.cookies["scanside_csrf"], "Origin": self.address, "Accept": "*/*"}
        return self.post(address, json=body or {}, headers=headers)

    def ask(self, address, **query):
        return self.get(address, params=query, headers={"Accept": "*/*"})


@pytest.fixture
def reader(store, clock, scenes):
    """``reader(role, ...)``: somebody at the pages of one application."""
    apps = {}

    def sit(role="screen", config=None, **screen):
        config = config or Config(sources=SOURCES)
        app = apps.setdefault(id(config), (config, screen_app(store, config, scenes.packages(), clock)))[1]
        return Reader(app, session(store, role, **screen))

    return sit


@pytest.fixture
def rows(store):
    return lambda *kinds: store.journal.after(0, 1000, kinds)


@pytest.mark.req("R-ALERT-02")
def test_the_form_shows_the_whole_patient_and_its_six_fields_stand_in_the_register(
    reader, store, write, scenes, rows, clock
):
    alert = write(scenes.urgent)
    at_scanner = reader()
    form = at_scanner.ask(f"/alerts/{alert}/communication", lang="zh_Hans_CN").json()
    assert form["identity"] == {
        "name": "王晓明", "patient_id": "PID-88172355", "birth_date": "1959-03-14",
        "accession_number": "ACC20260100474711",
    }  # fmt: skip
    assert form["findings"] == ["疑似颅内出血"]
    looks = [fact for fact in rows(Kind.ACCESSED) if fact.body["what"] == "communication"]
    assert [(fact.actor["role"], fact.study_id) for fact in looks] == [("screen", 1)]
    clock.advance(300)
    at = clock.now().astimezone().strftime("%H:%M")
    clock.advance(60)
    assert at_scanner.act(f"/alerts/{alert}/communications", TOLD | {"at": at}).status_code == 204
    (fact,) = rows(Kind.ALERT_COMMUNICATED)
    assert (fact.actor["name"], fact.body["received_by"], fact.body["received_at"][14:16]) == (
        "Li Wei",
        "Dr Chen",
        "05",
    )
    told = at_scanner.page(lang="en").text
    assert "Dr Chen told at" in told
    assert "read back" in told
    assert at_scanner.ask(f"/alerts/{alert}/communication").json()["told"][0]["received_by"] == "Dr Chen"


@pytest.mark.parametrize(
    "wrong",
    [{"method": "pigeon"}, {"received_by": " "}, {"read_back": "yes"}, {"name": ""}, {"at": "25:00"}, {"at": "soon"}],
)
def test_a_form_that_lacks_something_records_nothing(reader, write, scenes, rows, wrong):
    alert = write(scenes.urgent)
    assert reader().act(f"/alerts/{alert}/communications", TOLD | wrong).status_code == 400
    assert not rows(Kind.ALERT_COMMUNICATED, Kind.ALERT_ACKNOWLEDGED)


def test_nobody_is_told_before_the_finding_was_there(reader, write, scenes, clock):
    alert = write(scenes.urgent)
    an_hour_ago = f"{(clock.now().astimezone().hour - 1) % 24:02}:00"
    assert reader().act(f"/alerts/{alert}/communications", TOLD | {"at": an_hour_ago}).status_code == 409


@pytest.mark.req("R-ALERT-01")
@pytest.mark.fault("T45")
def test_who_is_signed_in_acknowledges_by_their_own_name_and_two_screens_record_one(reader, store, write, scenes, rows):
    alert = write(scenes.urgent)
    assert reader("technologist").act(f"/alerts/{alert}/acknowledge", {"name": "Somebody Else"}).status_code == 204
    assert reader().act(f"/alerts/{alert}/acknowledge", {"name": "Zhao Lei"}).status_code == 204
    (fact,) = rows(Kind.ALERT_ACKNOWLEDGED)
    assert fact.actor == {"kind": "person", "name": "Theo Technologist", "role": "technologist"}


@pytest.mark.parametrize("role", ["viewer", "administrator"])
def test_who_only_watches_answers_nothing_and_counts_as_nobody_who_saw_it(reader, store, write, scenes, role):
    alert = write(scenes.urgent)
    watching = reader(role)
    assert watching.page().status_code == 200
    for act in ("acknowledge", "presented", "communications"):
        assert watching.act(f"/alerts/{alert}/{act}", TOLD).status_code == 403
    assert watching.ask(f"/alerts/{alert}/communication").status_code == 403
    assert str(store.views.alert(alert).state) == "raised"


# Sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-ALERT-07")
def test_a_screen_shows_the_studies_of_its_sources_alone(reader, write, scenes, store):
    write(scenes.urgent)
    write(scenes.warned)
    write(scenes.not_analysed, source="CT-9")
    write(scenes.add_study, is_open=True, source="CT-1")
    write(scenes.add_analysis, write(scenes.add_study, source="CT-1", ago_s=3.0), None)
    ct, dx, everything = (reader(name=name, sources=of) for name, of in (("a", ("CT-1",)), ("b", ("DX-2",)), ("c", ())))
    boards = [one.ask("/api/board").json() for one in (ct, dx, everything)]
    assert [board["state"] for board in boards] == ["urgent", "quality", "urgent"]
    assert [board["open_alerts"] for board in boards] == [1, 0, 1]
    assert [board["open_warnings"] for board in boards] == [0, 1, 1]
    assert [(len(board["receiving"]), len(board["analysing"])) for board in boards] == [(1, 1), (0, 0), (1, 1)]
    assert [board["counts"].get("NOT_ANALYSED", 0) for board in boards] == [0, 0, 1]
    assert [board["counts"].get("FINDING", 0) for board in boards] == [1, 0, 1]
    assert [board["counts"].get("NOTHING_FLAGGED", 0) for board in boards] == [0, 1, 1]
    assert {item["source"] for item in boards[1]["items"]} == {"DX-2"}


@pytest.mark.req("R-ALERT-07")
def test_what_is_of_another_source_cannot_be_seen_or_acted_on(reader, store, write, scenes, rows):
    shown = store.spool.write_blob("pictures", scenes.picture(16), suffix=".png")
    alert = write(scenes.urgent, pictures=(shown,))
    warned = write(scenes.warned, source="CT-1")
    stranger, own = reader(name="b", sources=("DX-2",)), reader(name="a", sources=("CT-1",))
    for address in (f"/alerts/{alert}/picture", f"/alerts/{alert}/communication", "/studies/1/identity"):
        assert (stranger.ask(address).status_code, own.ask(address).status_code) == (404, 200), address
    analyses = [1]
    answer = {"choice": "accepted_as_is", "reason": "motion", "analyses": analyses, "name": "Li"}
    for address, body in (
        (f"/alerts/{alert}/acknowledge", {"name": "Li"}),
        (f"/alerts/{alert}/presented", {}),
        (f"/alerts/{alert}/communications", TOLD),
        (f"/studies/{warned}/quality", answer),
    ):
        assert stranger.act(address, body).status_code == 404, address
    assert str(store.views.alert(alert).state) == "raised"
    assert [fact.study_id for fact in rows(Kind.ACCESSED)] == [1, 1]
    assert own.act(f"/alerts/{alert}/acknowledge", {"name": "Li"}).status_code == 204


@pytest.mark.req("R-ALERT-07")
def test_a_further_screen_may_answer_what_was_passed_on_to_it(reader, store, write, scenes):
    config = Config(site=Site(mode="clinical"), sources=SOURCES, screen={"escalation": {"screens": ["reading-room"]}})
    alert = write(scenes.urgent)
    further = reader(config=config, name="reading-room", sources=("DX-2",))
    assert further.act(f"/alerts/{alert}/acknowledge", {"name": "Li"}).status_code == 404
    write(scenes.steps_taken, alert, scenes.AlertStep.TELL)
    board = further.ask("/api/board").json()
    if board["state"] != "urgent":  # made before the step; the feed's thread does not run here
        further = reader(config=Config.model_validate(config.model_dump()), name="reading-room", sources=("DX-2",))
        board = further.ask("/api/board").json()
    assert (board["state"], board["hero"]["alert_id"]) == ("urgent", alert)
    assert further.act(f"/alerts/{alert}/acknowledge", {"name": "Li"}).status_code == 204


# Tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-ALERT-06")
def test_a_test_alert_is_shown_where_it_was_asked_for_and_counted_nowhere(reader, store, write, scenes, rows):
    write(scenes.nothing_flagged)
    config = Config(sources=SOURCES, alert_sinks=(LightSink(kind="light", name="lamp", device_path="/dev/null"),))
    before = reader("administrator", config).ask("/api/board").json()["counts"]
    test = reader("administrator", config).act("/alerts/test", {"source": "CT-1"})
    assert test.status_code == 201
    number = test.json()["test"]
    config = Config.model_validate(config.model_dump())  # a fresh application: the feed's thread does not run here
    ct, dx = reader(config=config, name="a", sources=("CT-1",)), reader(config=config, name="b", sources=("DX-2",))
    shown, other = ct.ask("/api/board").json(), dx.ask("/api/board").json()
    assert (shown["state"], shown["chime"], shown["open_alerts"]) == ("test", [f"t{number}"], 0)
    assert (other["chime"], other["tests"]) == ([], [])
    page = ct.page(lang="zh_Hans_CN").text
    assert page.count("测试") > 10, "a watermark all over it"
    assert reader("viewer", config).ask("/api/board").json()["counts"] == before
    assert [one.step for one in store.escalations.owed("lamp", store.db.clock.now())] == ["test"]
    assert dx.act(f"/alerts/test/{number}/acknowledge", {"name": "Li"}).status_code == 404
    assert ct.act(f"/alerts/test/{number}/presented").status_code == 204
    assert ct.act(f"/alerts/test/{number}/acknowledge", {"name": ""}).status_code == 400
    assert ct.act(f"/alerts/test/{number}/acknowledge", {"name": "Li Wei"}).status_code == 204
    assert rows(Kind.TEST_ALERT_ACKNOWLEDGED)[0].actor["name"] == "Li Wei"
    assert not rows(Kind.ALERT_RAISED, Kind.ALERT_ACKNOWLEDGED)
    assert not store.alert_tests.open()


@pytest.mark.req("R-ALERT-06")
def test_a_real_alert_comes_before_a_test_and_the_test_stays_listed(reader, store, write, scenes):
    write(scenes.urgent)
    store.alert_tests.begin("", LI)
    page, board = reader().page().text, reader().ask("/api/board").json()
    assert board["state"] == "urgent"
    assert 'data-testid="test-row"' in page


def test_only_a_technologist_or_an_administrator_begins_a_test_of_a_source_that_is_there(reader, store):
    for role, source, status in (
        ("radiologist", "", 403),
        ("viewer", "", 403),
        ("technologist", "CT-7", 400),
        ("technologist", "DX-2", 201),
        ("administrator", "DX-2", 409),
    ):
        assert reader(role).act("/alerts/test", {"source": source}).status_code == status, role
    assert reader().act("/alerts/test", {"source": ""}).status_code == 403
    page = {role: reader(role).page().text for role in ("technologist", "radiologist")}
    assert 'data-testid="test"' in page["technologist"]
    assert 'data-testid="test"' not in page["radiologist"]


def test_signed_in_people_find_the_other_pages_and_a_paired_screen_finds_none(reader):
    signed_in, paired = reader("technologist").page().text, reader().page().text
    assert 'href="/critical-values"' in signed_in
    assert 'data-testid="elsewhere"' not in paired
    assert 'name="name"' in paired
    assert 'id="tell-name"' not in signed_in


# What a technologist is told --------------------------------------------------------------------------------------

US = Config(site=Site(profile="us"), sources=SOURCES)


@pytest.mark.req("R-ALERT-09")
@pytest.mark.parametrize("role", ["screen", "technologist", "viewer", "administrator"])
def test_priority_only_says_neither_words_nor_place_nor_picture(reader, store, write, scenes, role):
    shown = store.spool.write_blob("pictures", scenes.picture(16), suffix=".png")
    alert = write(scenes.urgent, pictures=(shown,))
    someone = reader(role, US)
    for locale, title, advice in (
        ("en", "Priority study", "Tell the radiologist now."),
        ("zh_Hans_CN", "优先检查", "请立即通知诊断医师。"),
    ):
        page = someone.page(lang=locale).text
        board = page[page.index('<main id="board"') : page.index("</main>")]
        assert title in board
        assert advice in board
        for word in ("bleed", "blood", "出血", "12 mL", "slice", "第 14 层", "/picture"):
            assert word not in board, word
    told = someone.ask("/api/board").text
    assert "bleed" not in told[: told.index('"looked_for":', told.index('"items"'))]
    assert someone.ask(f"/alerts/{alert}/picture").status_code == 404
    if role in {"screen", "technologist"}:
        form = someone.ask(f"/alerts/{alert}/communication", lang="zh_Hans_CN").json()
        assert form["findings"] == ["优先检查"]
        someone.act(f"/alerts/{alert}/communications", TOLD)
        assert store.communications.of_alerts([alert])[alert][0].titles == (
            {"en": "Priority study", "zh_Hans": "优先检查"},
        )


@pytest.mark.req("R-ALERT-09")
def test_a_radiologist_is_told_the_finding_and_so_is_a_technologist_where_the_site_says_so(
    reader, store, write, scenes
):
    write(scenes.urgent)
    own_word = Config(site=Site(profile="us", technologist_detail="finding"), sources=SOURCES)
    of_package = Config(
        site=Site(profile="us"), packages=(PackageChoice(name=scenes.HEAD, technologist_detail="finding"),)
    )
    for role, config in (
        ("radiologist", US),
        ("technologist", own_word),
        ("technologist", of_package),
        ("technologist", Config(site=Site(profile="cn"))),
        ("screen", Config()),
    ):
        page = reader(role, config).page
        assert "Suspected bleed in the head" in page(lang="en").text, (role, config.site)
        assert "疑似颅内出血" in page(lang="zh_Hans_CN").text, (role, config.site)


def test_one_package_may_be_priority_only_where_the_others_are_told(reader, write, scenes):
    write(scenes.priority)
    config = Config(packages=(PackageChoice(name=scenes.CHEST, technologist_detail="priority_only"),))
    page = reader("technologist", config).page().text
    assert "Suspected pleural effusion" not in page
    assert "Tell the radiologist." in page


# What the screen vouches for --------------------------------------------------------------------------------------


def test_a_quiet_screen_says_which_sources_it_watches(reader):
    for locale, words in (("en", "This screen watches: CT-1, DX-2"), ("zh_Hans_CN", "此屏幕监看：CT-1、DX-2")):
        assert words in reader(sources=("CT-1", "DX-2"), name="bound").page(lang=locale).text
    assert "This screen watches" not in reader(name="of all").page(lang="en").text


def test_a_box_without_a_live_package_never_says_ready(store, clock, scenes):
    silent = {name: replace(package, live=False) for name, package in scenes.packages().items()}
    for packages, state in (({}, "none"), (silent, "none"), (scenes.packages(), "ready")):
        app = screen_app(store, Config(), packages, clock)
        page = Reader(app, session(store)).page(lang="en").text
        assert f'data-ai="{state}"' in page
        assert "No AI package" in page
        board = page[page.index('<main id="board"') : page.index("</main>")]
        assert ("<h1>Ready</h1>" in board) is (state == "ready")


# What stands on the card ------------------------------------------------------------------------------------------


@pytest.mark.req("R-ALERT-08")
def test_a_repeat_finding_is_said_passively_and_still_calls(reader, write, scenes, clock, store):
    first = write(scenes.urgent)
    store.alerts.acknowledge(first, LI)
    at = clock.now().astimezone().strftime("%H:%M")
    clock.advance(7200)
    again = write(scenes.urgent)
    page, board = reader().page(lang="en").text, reader().ask("/api/board").json()
    assert f"Flagged before at {at}" in page
    assert (board["state"], board["hero"]["alert_id"], board["chime"]) == ("urgent", again, [str(again)])
    clock.advance(7 * 86_400)
    write(scenes.urgent)
    fresh = reader(config=Config(site=Site(name="later")))
    day = (clock.now().astimezone().date()).isoformat()
    said = fresh.page(lang="en").text
    assert "Flagged before at 2026-01-01 " in said
    assert f"Flagged before at {day}" not in said


def test_images_that_are_not_in_the_pacs_yet_are_said_where_that_is_true(reader, write, scenes):
    write(scenes.urgent)
    assert "not-in-pacs" not in reader().page().text

    def owe(tx):
        tx.insert(
            "delivery", destination="PACS", kind="original", study_id=1, sop_instance_uid="1.2", state="owed",
            next_at=tx.at, owed_at=tx.at,
        )  # fmt: skip

    write(owe)
    assert "Images not yet in PACS" in reader(config=Config(site=Site(name="x"))).page().text
    write(lambda tx: tx.execute("UPDATE delivery SET state = 'sent'"))
    assert "not-in-pacs" not in reader(config=Config(site=Site(name="y"))).page().text


def test_a_pacs_that_takes_nothing_is_loud_where_images_go_through_the_box(reader, write, scenes):
    pacs = {"kind": "dicom", "name": "PACS", "host": "127.0.0.1", "port": 104, "ae_title": "PACS"}
    through = (SOURCES[0].model_copy(update={"mode": SourceMode.INLINE}), SOURCES[1])
    config = Config(sources=through, destinations=(pacs,), site=Site(service_phone="400 820 1234"))
    write(scenes._issue, "DESTINATION_UNREACHABLE", "PACS", scenes.Severity.WARNING, 60)
    inline, parallel = (reader(config=config, name=n, sources=(s,)) for n, s in (("a", "CT-1"), ("b", "DX-2")))
    assert "Images are NOT reaching the PACS" in inline.page(lang="en").text
    assert "图像未能送达 PACS" in inline.page(lang="zh_Hans_CN").text
    assert "400 820 1234" in inline.page(lang="en").text
    assert "pacs-down" not in parallel.page(lang="en").text


def test_what_was_decided_and_when_the_images_were_taken_stand_on_the_card(reader, write, scenes, store):
    alert = write(scenes.urgent)
    write(lambda tx: tx.execute("UPDATE study SET study_time = '141503.2'"))
    assert "taken 14:15" in reader().page(lang="en").text
    write(
        lambda tx: tx.execute(
            "UPDATE alert SET state = 'decided', decided_by = 'Dr Sun', decided_at = ?, acknowledged_at = ?,"
            " acknowledged_by = 'Li' WHERE id = ?",
            (tx.at, tx.at, alert),
        )
    )
    page = reader(config=Config(site=Site(name="z"))).page(lang="en").text
    assert "Decided by Dr Sun" in page
    assert 'data-testid="tell"' not in page


@pytest.mark.req("R-ALERT-02")
def test_a_touch_on_the_patient_is_a_fact_of_the_journal_once_in_ten_minutes(reader, write, scenes, rows, clock):
    write(scenes.urgent)
    for _ in range(2):
        assert reader().ask("/studies/1/identity").json()["patient_id"] == scenes.WANG.patient_id
    assert len(rows(Kind.ACCESSED)) == 1
    clock.advance(601)
    reader().ask("/studies/1/identity")
    (first, _) = rows(Kind.ACCESSED)
    assert (first.body["what"], first.actor["name"], first.study_id) == ("identity", "CT1-screen", 1)
