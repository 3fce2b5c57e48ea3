"""The page of the box's health, and the support bundle."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
import zipfile
from datetime import timedelta
from typing import Literal, get_args, get_origin

import pytest
from admin_kit import FakeTools, served
from pydantic import BaseModel

from appliance.config import Config
from appliance.records import Actor, ActorKind, Identity, Severity
from appliance.screen.bundle import _SHOWN
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


#: What the bundle does not say of the configuration, by why.
WITHHELD = {
    "who and where": (
        *("site.name", "site.radiologist_phone", "site.service_phone", "review.organization", "review.test_accounts"),
        *("dicom.host", "sources.addresses", "sources.commitment_host", "worklist.host", "destinations.host"),
        *("destinations.url", "destinations.user", "alert_sinks.url", "kserve.address", "screen.host", "screen.names"),
        "fleet.proxy_url",
        *("screen.frames", "screen.escalation.screens", "screen.oidc.issuer", "screen.oidc.client_id"),
        *("screen.oidc.roles", "screen.oidc.scope", "screen.oidc.claim", "trusted_keys"),
        *(f"destinations.{side}_{what}" for side in ("sending", "receiving") for what in ("application", "facility")),
        *(f"{peer}.tls.server_name" for peer in ("destinations", "alert_sinks", "kserve", "worklist")),
        "sources.commitment_tls.server_name",
    ),
    "what a site makes up": ("destinations.fields",),
    "places of files, whose names people choose": (
        *("state_path", "runtime_path", "site.logo_path", "alert_sinks.device_path", "alert_sinks.secret_path"),
        *(f"destinations.{what}_path" for what in ("secret", "token", "password")),
        *("screen.oidc.ca_path", "screen.oidc.client_secret_path", "dicom.tls.client_ca_path"),
        *(f"{one}.tls.{what}_path" for one in ("dicom", "screen") for what in ("certificate", "key")),
        *(
            f"{peer}tls.{what}_path"
            for peer in ("destinations.", "alert_sinks.", "kserve.", "worklist.", "sources.commitment_")
            for what in ("ca", "certificate", "key")
        ),
    ),
}


def _leaves(kind, path=""):
    """Paths of all values of a configuration, without the numbers of items."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from _leaves(field.annotation, f"{path}.{name}".lstrip("."))
        return
    parts = () if get_origin(kind) is Literal else get_args(kind)
    below = {leaf for part in parts if part not in {..., type(None)} for leaf in _leaves(part, path)}
    yield from below - {path} or {path}


@pytest.mark.req("R-ADMIN-06")
def test_every_value_of_the_configuration_is_shown_in_the_bundle_or_named_here_as_withheld():
    leaves = set(_leaves(Config))
    assert len(leaves) > 100
    withheld = {path for paths in WITHHELD.values() for path in paths}
    assert sorted(leaves - _SHOWN - withheld) == [], "decide whether the support bundle may show it"
    assert sorted((_SHOWN | withheld) - leaves) == [], "no such value is there any more"
    assert not _SHOWN & withheld


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


def test_the_first_sentence_is_of_what_is_worst_and_a_box_without_a_package_does_not_all_work(store, clock, scenes):
    with served(store, clock, {}) as somebody:
        ada = somebody("administrator")
        none = {"en": "1 problem: No AI package is in service.", "zh_Hans_CN": "没有启用的 AI 模型包"}
        for language, words in none.items():
            page = ada.get(f"/health?lang={language}").text
            assert words in page
            assert "All working" not in page
            assert 'data-testid="no-package"' in page
        store.issues.raise_("DESTINATION_PAUSED", "PACS", Severity.WARNING)
        assert "2 problems: No AI package" in ada.get("/health").text
        store.issues.raise_("SPOOL_MISSING", "version 1", Severity.FAULT)
        clock.advance(60)
        store.issues.raise_("DISK_RESERVE", "spool", Severity.FAULT, {"why": "50% left"})
        page = ada.get("/health?lang=zh_Hans_CN").text
        assert "4 个问题: 磁盘已满" in page, "the gravest first, not the oldest"
        assert '技术详情： <span lang="en">50% left</span>' in page


def test_plots_are_told_the_zone_of_the_box(store, clock, scenes, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        with served(store, clock, scenes.packages()) as somebody:
            service = somebody("service")
            assert service.get("/health/series").json()["offset_min"] == 480
            assert service.get("/health").text.count("All times are UTC+08:00.") == 1
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.req("R-FLEET-35")
def test_an_issue_is_acknowledged_and_shelved_on_the_page_by_name_and_goes_on_being_listed(store, clock, scenes):
    store.issues.raise_("DISK_RESERVE", "spool", Severity.FAULT)
    store.issues.raise_("SOURCE_SILENT", "CT-1", Severity.WARNING)
    with served(store, clock, scenes.packages()) as somebody:
        service = somebody("service")
        page = service.get("/health").text
        assert page.count("I have seen it") == 2
        answer = service.post("/health/acknowledge", code="DISK_RESERVE", subject="spool")
        assert (answer.status_code, answer.url.path) == (200, "/health")
        given = {"code": "SOURCE_SILENT", "subject": "CT-1", "hours": "8"}
        assert service.post("/health/shelve", **given).status_code == 200
        assert service.post("/health/shelve", **(given | {"hours": "9000"})).status_code == 400
        assert service.post("/health/acknowledge", code="ENDED", subject="").status_code == 200
        page = service.get("/health").text
        assert "2 problems" in page
        assert page.count("I have seen it") == 0
        assert "Told again" in page
    disk, silent = store.issues.open()
    assert disk.acknowledged_by == silent.acknowledged_by
    assert silent.shelved_until == clock.now() + timedelta(hours=8)
    (fact,) = store.journal.after(0, 100, (Kind.ISSUE_SHELVED,))
    assert (fact.actor["name"], fact.actor["role"]) == (disk.acknowledged_by, "service")
