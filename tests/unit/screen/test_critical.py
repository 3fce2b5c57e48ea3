"""The register of critical values: who has it, what stands in it, and what leaves it."""

from __future__ import annotations

import csv
import io

import pytest
from web_kit import Browser, session

from appliance.config import Config, Site
from appliance.screen import screen_app
from appliance.screen.critical import PAGE_LINES
from appliance.store.facts import Kind
from appliance.web.spreadsheet import safe


@pytest.fixture
def reader(store, clock, scenes):
    """``reader(role)``: somebody at the pages."""
    apps = {}

    def sit(role="radiologist", **site):
        key = tuple(sorted(site.items()))
        if key not in apps:
            apps[key] = screen_app(store, Config(site=Site(**site)), scenes.packages(), clock)
        return Browser(apps[key], session(store, role))

    return sit


def lines_of(answer):
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


@pytest.mark.req("R-ALERT-04")
def test_the_register_shows_what_was_told_and_of_what_nobody_was_told(reader, write, scenes, store):
    told = write(scenes.urgent)
    write(scenes.was_told, told, evaluation=False)
    open_ = write(scenes.urgent, scenes.LI)
    write(scenes.priority)
    page = reader().get("/critical-values", params={"lang": "zh_Hans_CN"}).text
    assert "危急值登记" in page
    assert page.count("<tr data-line") == 1
    for words in (
        "王晓明",
        scenes.WANG.patient_id,
        scenes.WANG.accession_number,
        "疑似颅内出血",
        "Li Wei",
        "Dr Chen",
        "已复述",
    ):
        assert words in page, words
    missing = page[page.index('data-testid="missing"') : page.index("</section>")]
    assert f'data-alert="{open_}"' in missing
    assert "李娜" in missing
    assert missing.count("<tr data-alert") == 1
    assert [fact.body["what"] for fact in store.journal.after(0, 100, (Kind.ACCESSED,))] == ["register"]


@pytest.mark.req("R-ALERT-04")
def test_the_export_is_csv_that_spreadsheets_read_and_run_nothing_of(reader, write, scenes, store, clock):
    hostile = scenes.Identity(
        study_instance_uid="1.2",
        patient_id="-2+3",
        patient_name='+HYPERLINK("http://evil";"x")',
        accession_number="@A1",
    )
    write(scenes.was_told, write(scenes.urgent, hostile), received_by='Dr "Quote", Li\nSecond')
    write(scenes.was_told, write(scenes.urgent))
    answer = reader().get("/critical-values.csv", params={"lang": "zh_Hans_CN"})
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    day = clock.now().astimezone().date().isoformat()
    assert answer.headers["content-disposition"].endswith(f'_{day}.csv"')
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert answer.content.count(b"\r\n") == 3
    head, first, second = lines_of(answer)
    assert (head[0], head[1], head[11]) == ("序号", "患者", "接收人")
    assert (first[1][:12], first[4], first[5]) == ("'+HYPERLINK(", "'-2+3", "'@A1")
    assert first[11] == 'Dr "Quote", Li\nSecond'
    assert (second[1], second[2], second[3], second[8], second[13], second[14]) == (
        "王晓明", "男", "66", "疑似颅内出血", "电话", "是"
    )  # fmt: skip
    assert second[16] == "演示", "what was recorded in evaluation mode is marked for good"
    exports = [fact for fact in store.journal.after(0, 100, (Kind.ACCESSED,)) if "export" in fact.body["what"]]
    assert [fact.actor["name"] for fact in exports] == ["Rada Radiologist"]


def test_a_cell_that_would_be_a_formula_is_text():
    for cell in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1", "＋1", "－1", "＠x", "  =1"):
        assert safe(cell).startswith("'"), cell
    assert safe("Dr - Li = 2") == "Dr - Li = 2"
    assert safe("a\x00b\x1bc") == "abc"


@pytest.mark.req("R-ALERT-04")
@pytest.mark.parametrize(
    ("role", "status"),
    [
        *((role, 200) for role in ("technologist", "radiologist", "administrator")),
        *((role, 403) for role in ("viewer", "service", "screen")),
    ],
)
def test_who_has_the_register(reader, role, status):
    for path in ("/critical-values", "/critical-values.csv"):
        assert reader(role).get(path).status_code == status


def test_a_range_of_days_is_kept_and_one_that_cannot_be_is_refused(reader, write, scenes, clock):
    write(scenes.was_told, write(scenes.urgent))
    clock.advance(8 * 86_400)
    write(scenes.was_told, write(scenes.urgent, scenes.LI), received_by="Dr Sun")
    client = reader()
    usual = client.get("/critical-values").text
    assert ("Dr Sun" in usual, "Dr Chen" in usual) == (True, False)
    older = client.get("/critical-values", params={"from": "2025-12-31", "to": "2026-01-02"}).text
    assert ("Dr Sun" in older, "Dr Chen" in older) == (False, True)
    assert 'href="/critical-values.csv?from=2025-12-31&amp;to=2026-01-02"' in older
    assert len(lines_of(client.get("/critical-values.csv", params={"from": "2025-12-31", "to": "2026-02-02"}))) == 3
    for wrong in ({"from": "soon"}, {"from": "2026-02-02", "to": "2026-01-01"}, {"from": "2020-01-01"}):
        assert client.get("/critical-values", params=wrong).status_code == 400


def test_a_long_register_is_cut_on_the_page_and_whole_in_the_export(reader, write, scenes):
    alert = write(scenes.urgent)
    with_many = PAGE_LINES + 5

    def tell_all(tx):
        for _ in range(with_many):
            scenes.was_told(tx, alert)

    write(tell_all)
    client = reader()
    page = client.get("/critical-values").text
    assert page.count("<tr data-line") == PAGE_LINES
    assert 'data-testid="cut"' in page
    assert len(lines_of(client.get("/critical-values.csv"))) == with_many + 1


def test_under_priority_only_a_technologist_finds_no_finding_of_what_is_open(reader, write, scenes):
    write(scenes.urgent)
    assert "Suspected bleed" not in reader("technologist", profile="us").get("/critical-values").text
    assert "Priority study" in reader("technologist", profile="us").get("/critical-values").text
    assert "Suspected bleed" in reader("radiologist", profile="us").get("/critical-values").text


def test_under_priority_only_a_technologist_finds_no_finding_of_what_was_told(reader, write, scenes):
    write(scenes.was_told, write(scenes.urgent))
    theo, rada = reader("technologist", profile="us"), reader("radiologist", profile="us")
    page = theo.get("/critical-values").text
    assert page.count("<tr data-line") == 1
    assert ("Suspected bleed" in page, "Priority study" in page) == (False, True)
    assert lines_of(theo.get("/critical-values.csv"))[1][8] == "Priority study"
    assert "Suspected bleed" in rada.get("/critical-values").text
    assert lines_of(rada.get("/critical-values.csv"))[1][8] == "Suspected bleed in the head"
