"""A Chinese name in every character set that scanners send, followed to every surface of the running box."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest
import yaml
from box_kit import Box, box_config
from pydicom import dcmread
from web_kit import COOKIE, session

from appliance.records import Outcome
from appliance.simulate.bleed import Bleed
from appliance.simulate.dicomize import ct_series
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.pacs import Pacs
from appliance.simulate.study import Order, Patient, Study

#: name of the case: (character set, source, Patient's Name, as read in Chinese, masked, masked in English).
CASES = {
    "UTF-8": ("ISO_IR 192", "CT-1", "Wang^XiaoDong=王^小东", "王小东", "王*东", "W. X."),
    # The given name has four bytes a character: GBK cannot say it.
    "GB18030": ("GB18030", "CT-1", "Zhang^Wei=张^㐂", "张㐂", "张*", "Z. W."),
    "GBK": ("GBK", "CT-1", "Li^Ming=李^明", "李明", "李*", "L. M."),
    "undeclared GBK": ("undeclared GBK", "CT-GBK", "赵^丽颖", "赵丽颖", "赵*颖", "赵*颖"),
    "ISO 2022 IR 58": ("ISO 2022 IR 58", "CT-1", "Zhang^XiaoDong=张^小东", "张小东", "张*东", "Z. X."),
}
DESCRIPTION = "头颅平扫"
#: What must stand nowhere: escape sequences, replacement characters, and the names above read as Latin-1.
SPOILT = ("\x1b", "$)A", "\ufffd", "Íõ", "ÕÅ", "ÕÔ")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with Pacs(tmp_path_factory.mktemp("charsets") / "pacs") as running:
        yield running


@pytest.fixture(scope="module")
def box(pacs, tmp_path_factory):
    """A box that has received one head with a bleed per character set, each by its scanner."""
    sources = [
        {"name": "CT-1", "ae_title": "CT-1"},
        {"name": "CT-GBK", "ae_title": "CT-GBK", "assume_charset": "GBK"},
    ]
    config = box_config(tmp_path_factory.mktemp("charsets") / "state", pacs.port, sources=sources)
    head = head_ct(11, bleeds=[Bleed(kind="IPH", volume_ml=22)], scan=HeadScan(matrix=256, slices=22, thickness_mm=7))
    with Box(config) as running:
        for number, (case, (charset, source, name, *_)) in enumerate(CASES.items()):
            study = Study(
                seed=f"charsets/{case}",
                patient=Patient(name=name, patient_id=f"CS{number}", birth_date="", age="060Y"),
                order=Order(study_description=DESCRIPTION, accession_number=f"ACC{number}"),
                charset=charset,
            )
            running.send(ct_series(head, study), source)
        for case in CASES:
            assert running.ended(uid_of(case)).outcome is Outcome.FINDING
        yield running


def uid_of(case):
    return str(Study(seed=f"charsets/{case}").study_instance_uid)


@pytest.fixture(scope="module")
def config_path(box, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "appliance.yaml"
    path.write_text(yaml.safe_dump(box.config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def screen(box):
    """A browser's requests in Chinese."""
    base = f"http://127.0.0.1:{box.daemon.screen_port}"
    with httpx.Client(base_url=base, cookies={COOKIE: session(box.store)}, follow_redirects=True, timeout=60) as client:
        assert client.get("/language", params={"to": "zh_Hans_CN", "next": "/alert"}).status_code == 200
        yield client


def scanside(*words):
    """What a command prints, as one JSON document; also where the terminal speaks no UTF-8."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", *map(str, words), "--json"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    text = done.stdout.decode("utf-8")
    assert not any(spoilt in text for spoilt in SPOILT)
    return json.loads(text)


pytestmark = pytest.mark.req("R-INTAKE-09")


@pytest.mark.parametrize("case", CASES)
def test_name_and_description_are_right_in_the_store(box, case):
    view = box.study(uid_of(case))
    assert view.identity.patient_name == CASES[case][2]
    assert view.description == DESCRIPTION


def test_names_are_right_in_the_list_of_studies(config_path):
    listed = scanside("study", "list", "--config", config_path)["studies"]
    names = {one["study_instance_uid"]: one["identity"]["patient_name"] for one in listed}
    assert names == {uid_of(case): CASES[case][2] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_name_is_right_where_one_study_is_shown(box, config_path, case):
    shown = scanside("study", "show", box.study(uid_of(case)).id, "--config", config_path)["study"]
    assert (shown["identity"]["patient_name"], shown["description"]) == (CASES[case][2], DESCRIPTION)


@pytest.mark.parametrize("case", CASES)
def test_name_is_masked_rightly_on_the_board_and_whole_for_who_asks(box, screen, case):
    _, _, _, whole, masked, masked_en = CASES[case]
    study_id = box.study(uid_of(case)).id
    answer = screen.get("/api/board")
    board = answer.json()
    assert not any(spoilt in answer.text for spoilt in SPOILT)
    card = next(card for card in [board["hero"], *board["items"]] if card["study_id"] == study_id)
    assert card["person"]["name"] == {"zh_Hans": masked, "en": masked_en}
    assert DESCRIPTION in card["about"]
    assert screen.get(f"/studies/{study_id}/identity").json()["name"] == whole


def test_alert_page_shows_every_name_masked_and_none_whole(screen):
    page = screen.get("/alert")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'lang="zh-Hans-CN"' in page.text
    assert not any(spoilt in page.text for spoilt in SPOILT)
    for _, _, _, whole, masked, _ in CASES.values():
        assert masked in page.text
        assert whole not in page.text
    assert DESCRIPTION in page.text


@pytest.mark.parametrize("case", CASES)
def test_report_in_the_pacs_carries_the_name_in_unicode(box, pacs, case, wait_until):
    report = wait_until(lambda: report_of(pacs, case), 60)
    ds = dcmread(report)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == CASES[case][2]
    assert ds.StudyDescription == DESCRIPTION
    assert CASES[case][2].encode() in report.read_bytes()


def report_of(pacs, case):
    paths = [arrival.path for arrival in pacs.arrivals]
    return next((path for path in paths if dcmread(path).StudyInstanceUID == uid_of(case)), None)


@pytest.mark.req("R-HOUSE-22")
def test_journal_names_no_patient(box):
    rows = box.store.db.all("SELECT subject || body AS text FROM journal")
    told = "".join(row["text"] for row in rows)
    assert not any(word in told for _, _, name, *_ in CASES.values() for word in (name, *name.split("=")))


def test_undeclared_bytes_of_a_source_that_nobody_described_are_a_visible_hole_and_no_other_name(box):
    patient = Patient(name="赵^丽颖", patient_id="CS-9")
    study = Study(seed="charsets/hole", patient=patient, charset="undeclared GBK")
    (image,) = ct_series(head_ct(1, scan=HeadScan(matrix=128, slices=1)), study)
    box.send([image])
    assert set(box.ended(image.StudyInstanceUID).identity.patient_name) == {"\ufffd", "^"}
