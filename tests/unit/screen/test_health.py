"""The page of the box's health, and the support bundle."""

from __future__ import annotations

import csv
import io
import json
import threading
import zipfile
from datetime import timedelta

import pytest
from admin_kit import FakeTools, served

from appliance.config import Config
from appliance.records import Actor, ActorKind, Identity, Severity
from appliance.store.facts import Kind
from appliance.store.facts.box import DaemonStarted
from appliance.store.facts.intake import Refused
from appliance.store.health_samples import Sample

pytestmark = pytest.mark.req("R-ADMIN-02")


def test_the_first_sentence_says_since_when_all_works_and_is_never_green(store, clock, scenes, write):
    write(lambda tx: tx.journal(DaemonStarted(version="1", mode="evaluation")))
    at = clock.now().astimezone().strftime("%Y-%m-%d %H:%M")
    with served(store, clock, scenes.packages()) as somebody:
        page = somebody("service").get("/health").text
        assert f"All working since {at}" in page
        clock.advance(600)
        store.issues.raise_("DISK_RESERVE", "spool", Severity.FAULT)
        page = somebody("service").get("/health").text
    assert "1 problem: Disk full" in page
    assert "which destination has not taken its objects" in page
    assert "green" not in page


def test_an_issue_that_ended_moves_the_begin_of_all_working(store, clock, scenes):
    store.issues.raise_("DISK_RESERVE", "spool", Severity.FAULT)
    clock.advance(3600)
    store.issues.clear("DISK_RESERVE", "spool")
    at = clock.now().astimezone().strftime("%Y-%m-%d %H:%M")
    clock.advance(3600)
    with served(store, clock, scenes.packages()) as somebody:
        assert f"All working since {at}" in somebody("administrator").get("/health").text


def test_numbers_come_as_columns_as_a_table_and_as_csv(store, clock, scenes):
    for minute in range(10, 0, -1):
        store.health.add(clock.now() - timedelta(minutes=minute), Sample(studies=1, cpu_percent=10.0 + minute))
    with served(store, clock, scenes.packages()) as somebody:
        service = somebody("service")
        data = service.get("/health/series?range=1h").json()
        assert data["cpu_percent"] == [20.0, 19, 18, 17, 16, 15, 14, 13, 12, 11]
        assert set(data["studies"]) == {60.0}  # a study a minute is sixty an hour
        table = list(csv.DictReader(io.StringIO(service.get("/health/series.csv?range=1h").text)))
        assert [row["studies_per_hour"] for row in table[:2]] == ["60.0", "60.0"]
        assert ">60<" in service.get("/health?range=1h").text
        assert service.get("/health/series?range=9y").status_code == 400


#: Twenty things that tell of a patient, each in a place of its own.
PHI = [f"SEED{number:02d}PHI" for number in range(20)]


@pytest.mark.req("R-ADMIN-06")
def test_the_support_bundle_holds_none_of_twenty_seeded_patient_strings_and_no_address(
    store, clock, scenes, write, tmp_path
):
    """M9."""
    who = Actor(kind=ActorKind.PERSON, name=PHI[19], role="technologist")
    identity = Identity(
        study_instance_uid=PHI[0],
        patient_id=PHI[1],
        patient_name=PHI[2],
        patient_birth_date=PHI[3],
        accession_number=PHI[4],
        patient_sex="M",
    )

    def seed(tx):
        study = scenes.add_study(tx, identity, description=PHI[5], source=PHI[6])
        tx.execute("UPDATE series SET protocol_name = ?, body_part = ?", (PHI[7], PHI[8]))
        tx.execute("INSERT INTO source_fact VALUES ('CT-1', 'protocol', ?, 1, ?)", (PHI[9], tx.at))
        tx.insert(
            "delivery",
            destination="PACS",
            kind="sr",
            study_id=study,
            sop_instance_uid=PHI[10],
            path=PHI[11],
            state="parked",
            next_at=tx.at,
            owed_at=tx.at,
            error=f"status 0xC000: {PHI[12]}",
        )
        tx.journal(Refused(source=PHI[13], status=0xC000, message=PHI[14]), study_id=study, actor=who)

    write(seed)
    store.issues.raise_("DELIVERY_PARKED", PHI[15], Severity.FAULT, {"error": PHI[16]})
    store.destinations.pause("PACS", PHI[17], who)
    store.destinations.tested("PACS", ok=False, ms=1, words=PHI[18], actor=who)
    config = Config.model_validate(
        {
            "destinations": [
                {"kind": "dicom", "name": "PACS", "host": "pacs.hospital.example", "port": 104, "ae_title": "A"},
                {
                    "kind": "webhook",
                    "name": "W",
                    "url": "http://board.hospital.example/x?token=t0ps3cret",
                    "secret_path": "/etc/secret-file",
                },
            ],
            "sources": [{"name": "CT-1", "ae_title": "CT", "addresses": ["10.1.2.3"]}],
            "site": {"mode": "evaluation", "name": "Ward of Seed", "radiologist_phone": "+49 30 5550100"},
            "review": {"organization": "Seed Clinic", "test_accounts": ["seed.tester"]},
            "screen": {
                "names": ["box.seed"],
                "oidc": {
                    "issuer": "https://idp.seed",
                    "client_id": "seed-client",
                    "roles": {"CN=Seed Radiology": "radiologist"},
                },
            },
        }
    )
    with served(store, clock, scenes.packages(), config=config, tools=FakeTools()) as somebody:
        answer = somebody("service").get("/health/bundle.zip")
    files = {name: zipfile.ZipFile(io.BytesIO(answer.content)).read(name).decode() for name in _names(answer)}
    assert set(files) == {
        *("config.yaml", "status.json", "issues.json", "doctor.json", "journal.jsonl", "versions.json"),
    }
    whole = "\n".join(files.values())
    assert [one for one in PHI if one in whole] == []
    for secret in ("hospital.example", "t0ps3cret", "secret-file", "10.1.2.3", "10.9.8.7", "5550100", "seed", "Seed"):
        assert secret not in whole
    assert "review: '***'" in files["config.yaml"]
    # And it is of use.
    assert "ae_title: CT" in files["config.yaml"]
    assert "mode: evaluation" in files["config.yaml"]
    assert json.loads(files["status.json"])["deliveries"][0]["parked"] == 1
    assert json.loads(files["issues.json"])[0]["code"] == "DESTINATION_PAUSED"
    assert '"destination_paused"' in files["journal.jsonl"]
    assert json.loads(files["doctor.json"])["ok"]
    (fact,) = store.journal.after(0, 100, (Kind.ACCESSED,))
    assert fact.body["what"] == "support bundle"


@pytest.mark.req("R-ADMIN-06")
def test_what_takes_minutes_takes_no_thread_from_the_alert_screens(store, clock, scenes):
    pacs = {"kind": "dicom", "name": "PACS", "host": "10.1.2.10", "port": 104, "ae_title": "A", "send": ["original"]}
    threads = []

    class Watched(FakeTools):
        def doctor(self):
            threads.append(threading.current_thread().name)
            return super().doctor()

        def probe(self, destination):
            threads.append(threading.current_thread().name)
            return super().probe(destination)

    with served(
        store, clock, scenes.packages(), config=Config.model_validate({"destinations": [pacs]}), tools=Watched()
    ) as somebody:
        ada = somebody("administrator")
        assert ada.get("/health/bundle.zip").status_code == 200
        assert ada.post("/destinations/PACS/test").status_code == 200
        assert ada.post("/setup/pacs/test").status_code == 200
    assert [name.rpartition("_")[0] for name in threads] == ["web-probe"] * 3


def _names(answer):
    return zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
