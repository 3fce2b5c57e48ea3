"""The demo, as a newcomer runs it: everything real, on loopback, ending by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import httpx
import pydicom
import pytest
from box_process import ROOT

#: Ctrl-C counts also where the tests themselves were started in the background, which a shell makes deaf to it.
WITHOUT_ORTHANC = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "import appliance.cli.demo_box as box; box.find_orthanc = lambda: None\nfrom appliance.cli import main; main()"
)
#: Besides, a fleet server that ends at once.
WITHOUT_FLEET = (
    "import appliance.cli.demo_fleet as fleet; fleet.SERVER = 'appliance.no_such_server'\n" + WITHOUT_ORTHANC
)


def demo(*arguments, program=("-m", "appliance.cli")):
    done = subprocess.run(
        [sys.executable, *program, "demo", "--once", "--json", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done, json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of all of it: process, document, and the folder that it kept."""
    kept = tmp_path_factory.mktemp("demo") / "kept"
    return *demo("--keep", kept), kept


@pytest.mark.req("R-DEMO-01")
@pytest.mark.req("R-DEMO-02")
@pytest.mark.req("R-DEMO-03")
def test_every_study_of_the_demo_ends_as_it_should_and_reaches_the_pacs(whole):
    done, document, kept = whole
    assert done.returncode == 0, done.stderr
    endings = [(study["outcome"], study["reason"]) for study in document["studies"]]
    assert sorted(endings, key=str) == [
        ("FINDING", None),
        ("FINDING", None),
        ("NOTHING_FLAGGED", None),
        ("NOTHING_FLAGGED", None),
        ("NOT_ANALYSED", "incomplete"),
        ("NOT_APPLICABLE", None),
        ("NOT_APPLICABLE", None),
    ]
    chests = {study["title"]: study for study in document["studies"] if study["title"].startswith("Chest")}
    flagged = {title: {f["id"] for f in study["findings"] if f["flagged"]} for title, study in chests.items()}
    assert flagged == {"Chest X-ray": set(), "Chest X-ray with an effusion": {"effusion"}}
    bleed = next(study for study in document["studies"] if study["findings"] and study["findings"][0]["key_slices"])
    (finding,) = bleed["findings"]
    assert finding["flagged"]
    assert 15 < finding["volume_ml"] < 30
    assert finding["key_slices"]
    assert bleed["looked_for"]
    assert bleed["not_looked_for"]
    assert set(document["sign_in"]) == {"url", "names", "password"}
    once = {"sent": 1, "owed": 1}
    assert bleed["pacs"] == {"images": {"sent": 33, "owed": 33}, "sr": once, "gsps": once, "ko": once, "sc": once}
    assert "http://127.0.0.1:" in done.stderr
    objects = [pydicom.dcmread(path, stop_before_pixels=True) for path in (kept / "pacs").glob("*.dcm")]
    assert (
        sum(ds.Modality == "SR" and ds.SOPClassUID.endswith("88.34") for ds in objects) >= 3
    )  # a bleed, a block missing, an effusion
    assert (kept / "scanside.db").exists()
    assert (kept / "scanside.log").exists()
    log = (kept / "scanside.log").read_text()
    assert "Traceback" not in log
    assert "SIM-000" not in log
    assert "PHANTOM" not in log
    assert document["sign_in"]["password"] not in log


@pytest.mark.req("R-FLEET-60")
def test_the_box_of_the_demo_is_in_a_fleet_with_its_results_and_its_health(whole):
    done, document, kept = whole
    fleet = document["fleet"]
    if "mosquitto" in (fleet["left_out"] or ""):
        pytest.skip(fleet["left_out"])
    assert fleet["left_out"] is None, (kept / "fleet-server.log").read_text()
    assert fleet["state"] == "online"
    assert fleet["health"] == {"mode": "evaluation", "ai": "ready"}
    assert fleet["acked"] > 0
    analyses = sum(len(study["looked_for"]) for study in document["studies"])
    assert fleet["records"] > fleet["results"] >= analyses > 0
    assert {"head-ct-hyperdensity", "cxr-triage"} <= set(fleet["packages"])
    assert fleet["device"] in done.stderr
    assert "The fleet server has this box: online" in done.stderr


@pytest.mark.req("R-DEMO-04")
@pytest.mark.req("R-DEMO-06")
@pytest.mark.req("R-FLEET-60")
def test_own_files_are_sent_instead_and_a_pacs_of_ours_stands_in_for_orthanc(tmp_path):
    from appliance.simulate.dicomize import save
    from appliance.simulate.scenarios import SCENARIOS

    save(next(one for one in SCENARIOS if one.name == "knee_xray").build("own"), tmp_path / "own")
    (tmp_path / "own" / "notes.txt").write_text("not DICOM")
    done, document = demo("--send", tmp_path / "own", "--keep", tmp_path / "kept", program=("-c", WITHOUT_FLEET))
    assert done.returncode == 0, done.stderr
    # A fleet that cannot be had is told in a line, and nothing else misses it.
    assert document["fleet"] == {"left_out": "its server did not start; see the log", "device": None, "acked": 0}
    assert "Fleet:         left out: its server did not start; see the log" in done.stderr
    assert [study["outcome"] for study in document["studies"]] == ["NOT_APPLICABLE"]
    assert len(list((tmp_path / "kept" / "pacs").glob("*.dcm"))) == 1


@pytest.mark.req("R-DEMO-07")
def test_one_click_opens_the_alert_screen_of_the_demo_and_each_role_can_sign_in(tmp_path):
    from appliance.simulate.dicomize import save
    from appliance.simulate.scenarios import SCENARIOS

    save(next(one for one in SCENARIOS if one.name == "knee_xray").build("own"), tmp_path / "own")
    running = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_ORTHANC, "demo", "--send", tmp_path / "own"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    try:
        said = "".join(running.stdout.readline() for _ in range(4))
        address, ticket = re.search(r"(http://127\.0\.0\.1:\d+)(/pair\?ticket=\S+)", said).groups()
        names, password = re.search(r"as ([a-z, ]+); password (\S+)", said).groups()
        with httpx.Client(base_url=address, timeout=60) as kiosk:
            assert kiosk.get(ticket).status_code == 200
            assert kiosk.get("/alert").status_code == 200
        with httpx.Client(base_url=address, timeout=60) as late:
            assert late.get(ticket).status_code == 422
        assert names.split(", ") == ["viewer", "technologist", "radiologist", "administrator", "service"]
        for name, path in (("viewer", "/account"), ("administrator", "/settings/site")):
            with httpx.Client(base_url=address, headers={"Origin": address}, timeout=60) as desk:
                desk.get("/sign-in")
                given = {"csrf": desk.cookies["scanside_csrf"], "name": name, "password": password}
                assert desk.post("/sign-in", data=given).headers["location"] == "/"
                assert desk.get(path).status_code == 200
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)


def test_folder_that_is_not_empty_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", "demo", "--once", "--keep", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "not empty" in done.stderr
