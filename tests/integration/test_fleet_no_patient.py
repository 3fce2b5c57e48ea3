"""No patient leaves the box: marks in every text of images, none in what goes to the fleet or stands in a log (F5)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import psutil
import pytest
from box_kit import Box, box_config
from fleet_link_kit import Authority, FakeInbox, FakeNet, enrol
from pydicom.dataelem import DataElement

from appliance.clock import FakeClock
from appliance.config import Config
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.link import LinkStage
from appliance.fleet.device.rollups import RollupStage
from appliance.fleet.wire import Up, inflate
from appliance.fleet.wire_records import Health
from appliance.records import SYSTEM, Actor, ActorKind, Outcome, UserRole
from appliance.simulate.bleed import Bleed
from appliance.simulate.dicomize import ct_series
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.study import Device, Order, Patient, Study
from appliance.store.audit_log import AuditFilter, as_jsonl
from engines import signing

pytestmark = [pytest.mark.req("R-FLEET-30"), pytest.mark.fault("T38")]
#: Every mark, and every UID, holds these signs and no code of ours does.
MARK, UID_MARK = "MARKER", "77345077345"
SOURCE, AE = "MARKERSOURCE", "MARKERAE"
_VRS = {"PN", "LO", "SH", "LT", "ST", "UC", "UT"}
#: What decides whether the package takes the series at all.
_KEPT = {"BodyPartExamined", "SpecificCharacterSet", "RescaleType"}
#: Where a text of the images has no business to be set by ``Study``.
_MORE = {
    "InstitutionName": "LO", "InstitutionAddress": "ST", "InstitutionalDepartmentName": "LO", "OperatorsName": "PN",
    "PerformingPhysicianName": "PN", "NameOfPhysiciansReadingStudy": "PN", "PhysiciansOfRecord": "PN",
    "RequestingPhysician": "PN", "PatientComments": "LT", "ImageComments": "LT", "StudyComments": "LT",
    "AdditionalPatientHistory": "LT", "OtherPatientIDs": "LO", "PatientAddress": "LO", "Occupation": "SH",
    "IssuerOfPatientID": "LO", "AdmissionID": "LO", "StudyDescription": "LO", "SeriesDescription": "LO",
    "ProtocolName": "LO", "DeviceSerialNumber": "LO", "RequestedProcedureID": "SH",
    "FillerOrderNumberImagingServiceRequest": "LO",
    "StationName": "SH", "RequestedProcedureDescription": "LO", "SoftwareVersions": "LO",
}  # fmt: skip


def marked(seed, **more):
    """A head with a bleed whose every text and UID is marked; ``more``: texts that have it left out."""
    study = Study(
        seed=seed,
        patient=Patient(name=f"{MARK}NAME^GIVEN=王{MARK}^明", patient_id=f"{MARK}ID", birth_date="19590314"),
        order=Order(
            accession_number=f"{MARK}ACC",
            study_id=f"{MARK}STUDY",
            referring_physician_name=f"{MARK}REFERRING^DR",
            study_description=f"{MARK}EXAM",
        ),
        device=Device(manufacturer=f"SIEMENS {MARK}", manufacturer_model_name=f"{MARK}MODEL"),
    )
    head = head_ct(11, bleeds=[Bleed(kind="IPH", volume_ml=22)], scan=HeadScan(matrix=256, slices=22, thickness_mm=7))
    images = ct_series(head, study, kernel=f"{MARK}KERNEL")
    for image in images:
        for keyword, vr in (_MORE | more).items():
            setattr(image, keyword, f"{MARK}{keyword.upper()}"[: 16 if vr in {"SH", "AE"} else 60])
        image.add(DataElement(0x00080054, "AE", AE))
        for element in image.iterall():
            if element.VR in _VRS and element.keyword not in _KEPT and MARK not in str(element.value):
                element.value = f"{MARK}X"
            if element.VR == "UI" and str(element.value).startswith("2.25."):
                # The same for the same, so that the images are of one series.
                element.value = f"1.2.826.{UID_MARK}.{int(str(element.value)[5:]) % 10**12}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return images


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A box that has analysed such studies, with everything that it logged."""
    folder = tmp_path_factory.mktemp("no-patient")
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter("%(name)s %(message)s").format(record))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    ours = logging.getLogger("appliance")
    ours_level = ours.level
    ours.setLevel(logging.DEBUG)
    sources = [{"name": SOURCE, "ae_title": AE}]
    config = box_config(folder / "state", 1, sources=sources, fleet={"detail": "study"})
    try:
        clock = FakeClock(datetime.now(timezone.utc))
        with Box(config) as box, looking() as commands:
            box.commands = commands
            rollups = RollupStage(box.store, clock)
            rollups.step()
            images = marked("fleet/no-patient")
            box.send(images, AE)
            assert box.ended(images[0].StudyInstanceUID).outcome is Outcome.FINDING
            other = marked("fleet/contrast", ContrastBolusAgent="LO")
            box.send(other, AE)
            assert box.ended(other[0].StudyInstanceUID).outcome is Outcome.NOT_ANALYSED
            # A second time with other words: its identity is corrected, its result issued anew.
            for image in images:
                image.PatientName = f"{MARK}OTHER^NAME"
            box.send(images, AE)
            box.wait(lambda: "identity_corrected" in box.kinds(), "corrected identity")
            # And one image with other pixels: an issue about a study.
            images[0].PixelData = bytes(len(images[0].PixelData))
            box.send(images[:1], AE)
            (issue,) = [one for one in box.store.issues.open() if one.code == "VERSION_CONFLICT"]
            who = Actor(kind=ActorKind.PERSON, name=f"{MARK} Li", role="service")
            box.store.issues.acknowledge(issue.code, issue.subject, who)
            clock.advance(3600)
            rollups.step()
            clock.advance(86_400)
            rollups.step()
            yield box, clock, folder, lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        ours.setLevel(ours_level)


@contextlib.contextmanager
def looking():
    """What anybody on the machine can see of this box while it works: the command lines of it and its children."""
    seen, stop, me = set(), threading.Event(), psutil.Process()

    def look():
        while not stop.wait(0.02):
            for process in (me, *me.children(recursive=True)):
                with contextlib.suppress(OSError, psutil.Error):
                    seen.add(Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" "))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def contents_of(box, clock, detail):
    document = box.config.model_dump(mode="json", exclude_none=True)
    config = Config.model_validate({**document, "fleet": {"detail": detail}})
    return Contents(box.store, config, clock, quality=lambda _: "ntp")


def hidden(images_uid):
    """Every mark, and what a hash of one would look like."""
    values = [f"{MARK}ID", f"{MARK}ACC", SOURCE, AE, f"{MARK}NAME^GIVEN=王{MARK}^明", str(images_uid), "PACS"]
    return [hashlib.new(name, value.encode()).hexdigest()[:8] for value in values for name in ("sha256", "md5", "sha1")]


def assert_nobody(text, box, *, about=""):
    assert MARK not in text, about
    assert MARK.lower() not in text.lower(), about
    assert UID_MARK not in text, about
    assert "王" not in text, about
    assert "\\u738b" not in text, about
    assert "19590314" not in text, about
    for (uid,) in box.store.db.all("SELECT study_instance_uid FROM study"):
        assert not any(digest in text for digest in hidden(uid)), about


@pytest.mark.parametrize("detail", ["hourly", "study"])
def test_no_record_and_no_health_holds_anything_of_the_images(lived, detail):
    box, clock, _, _ = lived
    contents = contents_of(box, clock, detail)
    facts = box.store.journal.after(0, 100_000)
    records = [record for fact in facts if (record := contents.record(fact)) is not None]
    kinds = {record.d.k for record in records}
    assert {"issue", "daemon", "package", "results", "anchor"} <= kinds
    assert ("study" in kinds) == (detail == "study")
    (hour,) = (record.d for record in records if record.d.k == "results")
    assert (hour.n >= 1, hour.hours > 1, sum(hour.flagged.values()) >= 1) == (True, True, True)
    for record in records:
        assert_nobody(record.model_dump_json(), box, about=record.d.k)
    health = contents.health(1)
    assert [one.source for one in health.sources] == [1]
    assert any(one.acknowledged for one in health.issues)
    assert_nobody(health.model_dump_json(), box)


@pytest.mark.parametrize("detail", ["hourly", "study"])
def test_no_byte_on_the_wire_holds_anything_of_the_images(lived, detail, monkeypatch):
    box, clock, folder, _ = lived
    monkeypatch.setattr("appliance.fleet.device.outbox.LINGER_S", 0.0)
    box.store.fleet.leave()
    identity = enrol(folder / f"fleet-{detail}", Authority(), signing.generate("online"))
    net, wire_clock = FakeNet(), FakeClock(clock.now())
    contents = contents_of(box, clock, detail)
    fleet = Config.model_validate({"fleet": {"detail": detail}}).fleet
    link = LinkStage(
        box.store, fleet, wire_clock, identity, net, contents, FakeInbox(bytes_per_s=10_000_000),
        first_within_s=0, rng=random.Random(1),
    )  # fmt: skip
    link.step()
    net.line.up()
    for _ in range(40):
        wire_clock.advance(6)
        link.step()
        net.line.answer()
    said = [one for line in net.lines for one in line.said]
    assert {one.name for one in said} >= {Up.STATUS, Up.GET, Up.HEALTH, Up.REC}
    for one in said:
        payload = inflate(one.payload) if one.properties.get("ce") == "gzip" else one.payload
        assert_nobody(payload.decode(), box, about=one.name)
        assert_nobody(one.topic + json.dumps({**one.properties, "sig": ""}), box)
    health = next(one for one in said if one.name is Up.HEALTH)
    payload = inflate(health.payload) if health.properties.get("ce") == "gzip" else health.payload
    assert Health.model_validate_json(payload).mode == "evaluation"


def test_neither_log_nor_journal_nor_the_links_own_rows_hold_anything_of_the_images(lived):
    box, _, _, lines = lived
    assert len(lines) > 5
    # Source and AE title are the site's own words, which its own log may say.
    assert_nobody("\n".join(lines).replace(SOURCE, "").replace(AE, ""), box)
    journal = "".join(as_jsonl(rows) for rows in box.store.audit_log.export(AuditFilter()))
    assert "instance_stored" in journal
    # Who acknowledged is a person of the site, named on purpose.
    assert_nobody(journal.replace(SOURCE, "").replace(f"{MARK} Li", ""), box)
    for table in ("fleet_batch", "fleet_job", "fleet_state", "equipment"):
        rows = [dict(row) for row in box.store.db.all(f"SELECT * FROM {table}")]  # noqa: S608 - names above
        text = json.dumps(rows, ensure_ascii=False, default=str).replace(SOURCE, "")
        assert_nobody(text.replace(f"{MARK}MODEL", "").replace(f"{MARK}KERNEL", ""), box, about=table)


@pytest.mark.req("R-FLEET-89")
def test_neither_metrics_nor_any_command_line_of_the_box_hold_anything_of_the_images(lived):
    box, _, folder, _ = lived
    token = box.store.tokens.add("prometheus", UserRole.SERVICE, (), SYSTEM)
    address = f"http://127.0.0.1:{box.daemon.screen_port}/api/v1/metrics"
    answer = httpx.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=20)
    assert (answer.status_code, "scanside_analyses_24h{" in answer.text) == (200, True)
    assert_nobody(answer.text, box)
    said = [line.decode(errors="replace").replace(str(folder), "") for line in box.commands]
    assert any("appliance.triage.worker" in line for line in said), said
    assert len(said) >= 2
    for line in said:
        assert_nobody(line, box)


def test_a_model_name_that_one_study_said_is_not_told(lived):
    box, clock, _, _ = lived
    assert [row["make"] for row in box.store.db.all("SELECT make FROM equipment")] == ["SIEMENS"]
    told = [contents_of(box, clock, "hourly").record(fact) for fact in box.store.journal.after(0, 100_000)]
    assert not [one for one in told if one is not None and one.d.k == "equipment"]
    assert timedelta(0) < clock.now() - datetime.now(timezone.utc)
