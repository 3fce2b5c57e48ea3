"""The worklist as a page, asked without a browser."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from asgi_kit import AsgiClient
from web_kit import COOKIE, session

from appliance.config import Config, PackageChoice, Site
from appliance.records import Outcome, Reason
from appliance.screen import screen_app, told
from appliance.store.database import iso
from appliance.store.facts import Kind
from appliance.store.worklist import Wanted

#: What a scanner, or whoever stands between it and the box, may have written into any field.
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=a()>{{7*7}}%(name)s%s</bdi></td>"
ESCAPED = (
    "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&lt;img src=x onerror=a()&gt;{{7*7}}%(name)s%s&lt;/bdi&gt;"
)


@pytest.fixture
def serve(store, clock, scenes):
    """``with serve(role) as client``: the pages of the store as they stand now, without a server around them."""
    apps = {}

    @contextmanager
    def served(role="radiologist", config=None, **site):
        config = config or Config(site=Site(**site))
        known = config.model_dump_json()
        if known not in apps:
            apps[known] = screen_app(store, config, scenes.packages(), clock)
        yield AsgiClient(apps[known], {COOKIE: session(store, role)})

    return served


def rows_of(page):
    """(study, level, status) of every row, in their order."""
    found = re.findall(r'<tr id="study-(\d+)".*?data-level="([\w-]+)" data-status="([\w-]+)"', page)
    return [(int(study), level, status) for study, level, status in found]


def row_of(page, study):
    """The row of one study."""
    return re.search(rf'<tr id="study-{study}".*?</tr>', page, re.DOTALL)[0]


def shown(page, place):
    """The text of the element with that test id."""
    inner = re.search(rf'data-testid="{place}"[^>]*>(.*?)</(?:span|b|p|div)>', page, re.DOTALL)[1]
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", "", inner)).strip()


@pytest.mark.req("R-STUDIES-01", "R-STUDIES-06")
def test_every_state_of_a_study_has_its_place_word_and_shape(serve, write, scenes):
    urgent = write(scenes.urgent)
    write(scenes.priority)
    missed = write(scenes.not_analysed, Reason.FAILED)
    knee = write(scenes.add_study, scenes.DOE, outcome=Outcome.NOT_APPLICABLE, description="Knee", modality="DX")
    quiet = write(scenes.nothing_flagged)
    warned = write(scenes.warned)
    running = write(scenes.add_study)
    write(scenes.add_analysis, running, None)
    coming = write(scenes.add_study, is_open=True, images=124)
    with serve() as client:
        page = client.get("/studies").text
        chinese = client.get("/studies?lang=zh_Hans_CN").text
    assert {study: (level, status) for study, level, status in rows_of(page)} == {
        urgent: ("urgent", "done"),
        2: ("priority", "done"),
        missed: ("not-analysed", "failed"),
        knee: ("quiet", "not-applicable"),
        quiet: ("nothing-flagged", "done"),
        warned: ("quality", "done"),
        running: ("open", "in-progress"),
        coming: ("open", "submitted"),
    }
    assert [study for study, _, _ in rows_of(page)][:2] == [urgent, 2]
    for study, english, zh in (
        (urgent, "URGENT", "紧急"),
        (urgent, "Not acknowledged", "尚未确认"),
        (urgent, "Suspected bleed in the head", "疑似颅内出血"),
        (missed, "Failed", "失败"),
        (missed, "Not analysed", "未分析"),
        (missed, "The AI stopped while it worked on this study", "AI 在分析此检查时中断"),
        (knee, "Not applicable", "不适用"),
        (quiet, "Not flagged", "未提示"),
        (warned, "Image quality", "图像质量"),
        (running, "In progress", "进行中"),
        (coming, "receiving, 124 images", "正在接收，124 幅"),
    ):
        assert english in row_of(page, study)
        assert zh in row_of(chinese, study)
    assert 'class="loud"' in row_of(page, missed)
    assert 'class="loud"' not in row_of(page, knee)
    for word in ("normal", "negative", "正常", "阴性"):
        assert word not in re.sub("<[^>]*>", "", page + chinese).lower()


@pytest.mark.req("R-STUDIES-02")
def test_the_count_of_what_a_filter_hides_is_what_is_there_less_what_is_shown(serve, write, scenes):
    write(scenes.urgent)
    for _ in range(3):
        write(scenes.nothing_flagged, source="DX-2")
    with serve() as client:
        for query, matching, hidden in (
            ("", 4, 0),
            ("?urgent=1", 1, 3),
            ("?state=NOTHING_FLAGGED", 3, 1),
            ("?q=nobody", 0, 4),
            ("?source=DX-2&state=FINDING", 0, 4),
        ):
            page = client.get(f"/studies{query}").text
            assert shown(page, "matching") == str(matching)
            assert shown(page, "hidden") == f"{hidden} hidden by filter"
            assert len(rows_of(page)) == matching
        unseen = client.get("/studies?state=NOTHING_FLAGGED").text
        assert "1 study with an alert that nobody has acknowledged is not in this list." in unseen
        assert "urgent-elsewhere" not in client.get("/studies").text
        assert "筛选隐藏 3 条" in client.get("/studies?urgent=1&lang=zh_Hans_CN").text


def test_days_and_spans_and_nonsense_in_the_address(serve, store, write, scenes, clock):
    today = clock.now().astimezone()
    write(scenes.nothing_flagged, ago_s=1.0)
    old = write(scenes.nothing_flagged, ago_s=86_400.0 * 5)
    day = (today - timedelta(days=5)).strftime("%Y-%m-%d")
    with serve() as client:
        count = lambda query: len(rows_of(client.get(f"/studies?{query}").text))  # noqa: E731
        assert [count(q) for q in ("", "span=7d", "span=all", "span=what", "from=yesterday")] == [1, 2, 2, 1, 1]
        assert rows_of(client.get(f"/studies?from={day}&to={day}").text)[0][0] == old
        assert count(f"from={day}&to={day}&after=9.x") == 1
        assert count("to=9999-12-31") == count("from=0001-01-01") == 1
        assert count("urgent=2&state=%00&source=%F0%9F%92%89") == 0
        assert count(f"from={day.replace('-', '')}&to={day}") == 1


def test_a_day_that_is_none_is_told_at_its_field_and_the_list_comes_all_the_same(serve, write, scenes):
    write(scenes.nothing_flagged)
    with serve() as client:
        wrong = {"en": "Not a day. Give it as 2026-01-31.", "zh_Hans_CN": "日期无效，格式应为 2026-01-31。"}
        for language, words in wrong.items():
            page = client.get(f"/studies?span=days&from=11%2F22%2F2026&to=2026-1-11&lang={language}").text
            assert page.count(words) == 2
            assert 'value="11/22/2026"' in page
            assert len(rows_of(page)) == 1
            assert 'type="date"' not in page
            assert words not in client.get(f"/studies?lang={language}").text


@pytest.mark.req("R-STUDIES-07")
def test_an_empty_list_names_the_last_image(serve, write, scenes, clock):
    with serve() as client:
        assert "No image has come yet." in client.get("/studies").text
    write(scenes.nothing_flagged, ago_s=86_400.0 * 2)
    at = (clock.now() - timedelta(days=2)).astimezone().strftime("%Y-%m-%d %H:%M")
    with serve() as client:
        page = client.get("/studies").text
        assert "No studies in the last 24 hours." in page
        assert f"Last image: {at} from CT-1" in page
        assert "今日暂无检查。" in client.get("/studies?span=today&lang=zh_Hans_CN").text


@pytest.mark.req("R-STUDIES-08")
def test_hostile_text_in_every_field_is_text(serve, store, write, scenes):
    identity = replace(
        scenes.DOE, patient_name=HOSTILE, patient_id=HOSTILE, accession_number=HOSTILE, patient_birth_date=HOSTILE
    )
    write(scenes.urgent, identity, study_values={"description": HOSTILE, "modality": HOSTILE, "source": HOSTILE})
    with store.db.write() as tx:
        tx.execute(
            "UPDATE series SET body_part = ?, header = json_set(header, '$.view_position', ?)", (HOSTILE, HOSTILE)
        )
        scenes.add_delivery(tx, 1, HOSTILE, state="parked")
        tx.execute(
            "UPDATE alert SET state = 'acknowledged', acknowledged_at = ?, acknowledged_by = ?", (tx.at, HOSTILE)
        )
    with serve(name=HOSTILE) as client:
        page = client.get("/studies").text
        rows = client.get("/api/worklist?ids=1").text
    for text in (page, rows):
        assert "<script>alert" not in text
        assert "<img" not in text
        # Name, id, accession, part and view, description, modality, source, destination, who acknowledged.
        assert row_of(text, 1).count(ESCAPED) >= 9


def test_names_are_written_as_the_reader_reads_them(serve, write, scenes):
    write(scenes.nothing_flagged, scenes.WANG)
    with serve() as client:
        assert "WANG, XIAOMING" in client.get("/studies").text
        assert "王晓明" in client.get("/studies?lang=zh_Hans_CN").text


@pytest.mark.req("R-STUDIES-03")
def test_the_list_is_for_people_who_see_patients_and_a_look_at_it_is_a_fact(serve, store, write, scenes, clock):
    write(scenes.nothing_flagged)
    looks = lambda: [fact.actor["role"] for fact in store.journal.after(0, 100, (Kind.ACCESSED,))]  # noqa: E731
    for role, status in (("service", 403), ("screen", 403), ("viewer", 200), ("technologist", 200)):
        with serve(role) as client:
            assert client.get("/studies").status_code == status
            assert client.get("/api/worklist?ids=1").status_code == status
            assert client.get("/studies?q=x").status_code == status
    assert looks() == ["viewer", "technologist"]
    with serve() as client:
        client.get("/studies")
        clock.advance(601)
        client.get("/api/worklist?ids=1")
        assert looks() == ["viewer", "technologist", "radiologist", "radiologist"]
        client.cookies.clear()
        assert client.get("/studies", headers={"Accept": "text/html"}).headers["location"].startswith("/sign-in")
        assert client.get("/api/worklist?ids=1").status_code == 401


@pytest.mark.req("R-STUDIES-09")
def test_rows_of_an_open_page_come_alone_with_whether_the_filter_lets_them_pass(serve, write, scenes):
    quiet = write(scenes.nothing_flagged)
    write(scenes.urgent)
    with serve() as client:
        answer = client.get(f"/api/worklist?urgent=1&ids={quiet},2,999,x,-1,1e9,{'9' * 40}").text
    assert [study for study, _, _ in rows_of(answer)] == [quiet, 2]
    assert 'data-matches="false"' in row_of(answer, quiet)
    assert 'data-matches="true"' in row_of(answer, 2)
    assert "<html" not in answer


@pytest.mark.req("R-STUDIES-10")
def test_deliveries_are_told_by_the_worst_of_each_destination(serve, store, write, scenes):
    study = write(scenes.nothing_flagged)
    for destination, states in {
        "PACS": ("sent", "owed", "parked"),
        "HIS": ("held", "owed", "sent"),
        "Archive": ("sent", "replaced"),
        "Old": ("replaced",),
    }.items():
        for state in states:
            write(scenes.add_delivery, study, destination, state=state)
    with serve() as client:
        row = row_of(client.get("/studies").text, study)
    found = re.findall(r'data-state="(\w+)".*?<bdi>(\w+)</bdi> <span class="[\w ]*">([^<]*)<', row, re.DOTALL)
    assert found == [("parked", "PACS", "refused"), ("owed", "HIS", "waiting (2)"), ("sent", "Archive", "sent")]


@pytest.mark.req("R-STUDIES-11")
def test_a_technologist_is_told_as_much_as_the_site_says(serve, store, write, scenes):
    write(scenes.urgent)
    write(scenes.priority)
    config = Config(
        site=Site(profile="us"), packages=(PackageChoice(name=scenes.CHEST, technologist_detail="finding"),)
    )
    with serve("technologist", config) as client:
        page = client.get("/studies").text
    assert "Prioritised by the AI" in row_of(page, 1)
    assert "Suspected bleed" not in page
    assert "Suspected pleural effusion" in row_of(page, 2)
    with serve("radiologist", config) as client:
        assert "Suspected bleed" in client.get("/studies").text


@pytest.mark.req("R-STUDIES-11")
@pytest.mark.parametrize("role", ["technologist", "viewer", "administrator"])
def test_the_priority_alone_is_told_to_everybody_but_radiologists_as_on_the_alert_screen(serve, write, scenes, role):
    write(scenes.urgent)
    with serve(role, Config(site=Site(profile="us"))) as client:
        pages = [client.get(address) for address in ("/studies", "/studies/1", "/alert")]
    for page in pages:
        assert page.status_code == 200
        assert "Suspected bleed" not in page.text, page.url
    assert "Prioritised by the AI" in row_of(pages[0].text, 1)


def test_paging_keeps_the_filter(serve, write, scenes):
    write(scenes.many, 160)
    with serve() as client:
        page = client.get("/studies?state=NOTHING_FLAGGED&span=30d").text
        assert len(rows_of(page)) == 50
        link = re.search(r'href="([^"]*)" data-testid="older"', page)[1].replace("&amp;", "&")
        assert "state=NOTHING_FLAGGED" in link
        further = rows_of(client.get(link).text)
        assert not {study for study, _, _ in rows_of(page)} & {study for study, _, _ in further}


@pytest.mark.req("R-STUDIES-04")
def test_ten_times_the_studies_make_no_larger_page(serve, write, scenes):
    sizes = []
    with serve() as client:
        for more in (60, 540):
            write(scenes.many, more)
            page = client.get("/studies?span=all").text
            assert len(rows_of(page)) == 50
            sizes.append(len(page))
    assert sizes[1] < 1.1 * sizes[0]


def test_a_settled_row_is_not_asked_for_again_and_an_unsettled_one_is(serve, store, write, scenes):
    settled = write(scenes.nothing_flagged)
    owed = write(scenes.nothing_flagged)
    write(scenes.add_delivery, owed, state="owed")
    coming = write(scenes.add_study, is_open=True)
    with serve() as client:
        page = client.get("/studies").text
    assert ["data-settled" in row_of(page, study) for study in (settled, owed, coming)] == [True, False, False]


def test_rank_of_the_page_is_the_rank_of_the_store(store, write, scenes):
    for more in (
        {},
        {"category": 2},
        {"active": 0},
        {"state": "acknowledged", "acknowledged_at": iso(store.db.clock.now())},
    ):
        write(scenes.urgent, **more)
    ids = store.worklist.page(Wanted()).study_ids
    ranks = {study: told.rank_of(store.views.some([study])[study].alert) for study in ids}
    assert [ranks[study] for study in ids] == sorted(ranks.values())
    assert sorted(ranks.values()) == [1, 2, 9, 9]
