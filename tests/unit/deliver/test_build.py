"""The stage that builds: what it asks of the child, what it keeps, and what one bad object does to the others."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from plan_kit import plan_for

from appliance.deliver.build import MAX_TRIES, ReportStage
from appliance.deliver.part10 import data_digest
from appliance.dicom import codes
from appliance.dicom.file_meta import file_meta
from appliance.errors import StoreError
from appliance.records import AnalysisResult, DeliveryKind, Outcome
from appliance.report.request import ReportPackage
from appliance.store.ending import OwedResult
from appliance.store.jsonable import dump
from appliance.store.notes import reject_refuted
from appliance.store.reissue import reissue_for_review
from engines.errors import ChildError

PACKAGE = ReportPackage(
    name="head",
    title="Head",
    status="demonstrator",
    intended_use="detection",
    looked_for="Blood.",
    not_looked_for="Else.",
    findings=(),
)
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
SR, NOTE = DeliveryKind.SR, DeliveryKind.REJECTION_NOTE


class Child:
    """Stands for ``run_limited``: writes a small object for each job, unless told otherwise."""

    def __init__(self):
        self.calls = []
        self.fail = {}
        self.dies_on = set()

    def __call__(self, module, document, limits):
        jobs = document["jobs"]
        self.calls.append([job["sop_instance_uid"] for job in jobs])
        if self.dies_on & set(self.calls[-1]):
            raise ChildError("crash", "it ended")
        answers = []
        for job in jobs:
            uid = job["sop_instance_uid"]
            if uid in self.fail:
                answers.append({"error": self.fail[uid]})
                continue
            head = file_meta(
                sop_class_uid=SR_CLASS, sop_instance_uid=uid, transfer_syntax="1.2", calling_ae="A", called_ae="B"
            )
            Path(job["output_path"]).write_bytes(head + b"report " + uid.encode())
            answers.append({"ms": 5.0})
        return {"objects": answers}


@pytest.fixture
def child():
    return Child()


@pytest.fixture
def stage(store, child):
    return ReportStage(
        store.deliveries, store.spool, {"head": PACKAGE}, evaluation=True, box_version="0.1.0", run_child=child
    )


@pytest.fixture
def owed_report(store, make_header, receive):
    """``owed_report(n)``: the n-th study's analysis, ended, with an SR owed; returns its id and the SR's UID."""

    def make(n=1, kinds=(DeliveryKind.SR,)):
        header = make_header(n, study_instance_uid=f"1.2.3.{n}", series_instance_uid=f"1.2.3.4.{n}")
        with store.db.write() as tx:
            study = tx.insert(
                "study",
                study_instance_uid=f"1.2.3.{n}",
                source="CT-1",
                patient_key="[]",
                identity=dump(header.identity),
                first_at=tx.at,
                last_at=tx.at,
            )
            series = tx.insert(
                "series",
                study_id=study,
                series_instance_uid=header.series_instance_uid,
                sop_class_uid=header.sop_class_uid,
                modality="CT",
                header=dump(header),
                changed_at=tx.at,
                changed_mono=0.0,
                boot=tx.boot,
            )
            received = receive(header)
            instance = tx.insert("instance", sop_instance_uid=header.sop_instance_uid, series_id=series)
            version = tx.insert(
                "version",
                instance_id=instance,
                n=1,
                state="current",
                path=received.path,
                size=1,
                data_sha256="aa",
                transfer_syntax_uid="1.2",
                meaning_digest="m",
                identity="{}",
                association_id=1,
                source="CT-1",
                received_at=tx.at,
                received_mono=0.0,
            )
            revision = tx.insert(
                "revision",
                series_id=series,
                n=1,
                images=1,
                evidence="{}",
                ready_at=tx.at,
                ready_mono=0.0,
                last_image_mono=0.0,
                boot=tx.boot,
            )
            tx.execute("INSERT INTO revision_version VALUES (?, ?)", (revision, version))
        plan = plan_for(revision)
        (analysis,) = store.analyses.route(study, (revision,), (plan,), (), lambda *_: ())
        store.analyses.start(analysis)
        owed = tuple(OwedResult(destination="pacs", kind=kind) for kind in kinds)
        store.analyses.finish(analysis, AnalysisResult(outcome=Outcome.NOTHING_FLAGGED), owed)
        row = store.db.one("SELECT sop_instance_uid FROM delivery WHERE analysis_id = ?", (analysis,))
        return analysis, row["sop_instance_uid"]

    return make


def deliveries(store, clock):
    return store.deliveries.next_owed("pacs", clock.now(), 10)


def parts(store):
    return list((store.spool.root / "incoming").iterdir())


def test_a_report_is_kept_for_good_and_then_owed_with_the_digest_of_its_data_set(store, clock, stage, owed_report):
    _, uid = owed_report()
    assert stage.step()
    (item,) = deliveries(store, clock)
    assert (item.sop_instance_uid, item.sop_class_uid, item.kind) == (uid, SR_CLASS, DeliveryKind.SR)
    assert item.path.startswith("results/")
    with store.spool.path(item.path).open("rb") as stream:
        assert data_digest(stream)[0] == item.sha256 == hashlib.sha256(b"report " + uid.encode()).hexdigest()
    assert parts(store) == []
    assert not stage.step()


def test_what_waits_is_built_by_one_child(store, clock, stage, child, owed_report):
    uids = [owed_report(n)[1] for n in (1, 2, 3)]
    stage.step()
    assert child.calls == [uids]
    assert len(deliveries(store, clock)) == 3


def test_the_child_is_told_whose_images_they_are_and_what_the_package_says(store, child, stage, owed_report):
    owed_report()
    asked = {}
    stage._run_child = lambda module, document, limits: asked.update(document) or child(module, document, limits)
    stage.step()
    (job,) = asked["jobs"]
    assert job["identity"]["patient_name"] == "Doe^Jane"
    assert job["package"]["looked_for"] == "Blood."
    assert job["evaluation"] is True
    assert job["images"][0]["path"].startswith(str(store.spool.root))
    assert asked["codes"]["cad_summary"]["value"] == codes.get("cad_summary").code


@pytest.mark.req("R-OPERATE-10")
def test_the_report_speaks_as_the_version_that_made_the_analysis(store, child, stage, owed_report):
    owed_report()
    stage._packages = {"head": replace(PACKAGE, looked_for="More."), "head@1.0.0": PACKAGE}
    asked = {}
    stage._run_child = lambda module, document, limits: asked.update(document) or child(module, document, limits)
    stage.step()
    assert asked["jobs"][0]["package"]["looked_for"] == "Blood."


@pytest.mark.req("R-RESULT-05")
def test_one_object_that_cannot_be_built_is_an_issue_and_the_others_go_on(store, clock, stage, child, owed_report):
    (bad, bad_uid), (_, good) = owed_report(1), owed_report(2)
    child.fail[bad_uid] = "package head does not declare finding 'x'"
    stage.step()
    assert [item.sop_instance_uid for item in deliveries(store, clock)] == [good]
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject) == ("RESULT_NOT_BUILT", f"sr of analysis {bad}")
    assert "does not declare" in issue.detail["reason"]


@pytest.mark.req("R-RESULT-05")
def test_a_child_that_dies_takes_no_other_report_with_it(store, clock, stage, child, owed_report):
    (poison, poison_uid), *others = [owed_report(n) for n in (1, 2, 3)]
    child.dies_on.add(poison_uid)
    for _ in range(MAX_TRIES + 5):
        stage.step()
    assert {item.sop_instance_uid for item in deliveries(store, clock)} == {uid for _, uid in others}
    (issue,) = store.issues.open()
    assert issue.subject == f"sr of analysis {poison}"
    assert f"{MAX_TRIES} times" in issue.detail["reason"]
    assert parts(store) == []


def test_a_child_that_dies_once_is_asked_again(store, clock, stage, child, owed_report):
    _, uid = owed_report()
    child.dies_on.add(uid)
    stage.step()
    child.dies_on.clear()
    stage.step()
    assert [item.sop_instance_uid for item in deliveries(store, clock)] == [uid]
    assert store.issues.open() == []


def test_a_package_that_is_gone_is_said_and_building_goes_on_when_it_is_back(store, clock, child, owed_report):
    owed_report()
    packages = {}
    stage = ReportStage(store.deliveries, store.spool, packages, evaluation=False, box_version="0.1.0", run_child=child)
    stage.step()
    (issue,) = store.issues.open()
    assert "install it again" in issue.detail["reason"]
    packages["head"] = PACKAGE
    store.deliveries.retry()
    stage.step()
    assert len(deliveries(store, clock)) == 1
    assert store.issues.open() == []


def test_an_object_that_this_version_cannot_make_is_said(store, clock, stage, owed_report):
    owed_report(kinds=(DeliveryKind.SR, DeliveryKind.ORIGINAL))
    stage.step()
    assert [item.kind for item in deliveries(store, clock)] == [DeliveryKind.SR]
    (issue,) = store.issues.open()
    assert issue.detail["reason"] == "this version does not build original objects"


@pytest.mark.req("R-RESULT-10")
def test_note_about_what_holds_no_longer_is_built_although_the_images_have_left_the_box(
    store, clock, stage, child, owed_report
):
    owed_report(kinds=(DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.REJECTION_NOTE))
    stage.step()
    (seg,) = [item for item in deliveries(store, clock) if item.kind is DeliveryKind.SEG]
    for item in deliveries(store, clock):
        store.deliveries.sent(item.id, 0)
    (again,) = store.analyses.route(1, (1,), (plan_for(1),), (), lambda *_: ())
    store.analyses.finish(again, AnalysisResult(outcome=Outcome.NOTHING_FLAGGED), ())
    with store.db.write() as tx:
        tx.execute("UPDATE version SET removed_at = ?", (tx.at,))
    asked = []
    stage._run_child = lambda module, document, limits: (
        asked.extend(document["jobs"]) or child(module, document, limits)
    )
    stage.step()
    (job,) = asked
    assert [one["sop_instance_uid"] for one in job["rejected"]] == [seg.sop_instance_uid]
    assert (job["images"], job["identity"]["patient_name"]) == ((), "Doe^Jane")
    (note,) = deliveries(store, clock)
    assert (note.kind, note.sop_class_uid) == (DeliveryKind.REJECTION_NOTE, "1.2.840.10008.5.1.4.1.1.88.59")
    (issue,) = store.issues.open()
    assert (issue.subject, "images removed" in issue.detail["reason"]) == (f"sr of analysis {again}", True)
    assert not stage.step()


@pytest.mark.req("R-RESULT-10")
@pytest.mark.parametrize("why", ["nothing is wrong", "images gone", "child dies"])
def test_note_is_built_although_a_report_of_the_same_analysis_cannot_be(store, clock, stage, child, owed_report, why):
    """As after a radiologist has refuted a finding whose images have left the box."""
    analysis, _ = owed_report(kinds=(SR, DeliveryKind.SEG, NOTE))
    stage.step()
    for item in deliveries(store, clock):
        store.deliveries.sent(item.id, 0)
    sr, seg = store.db.all("SELECT * FROM delivery ORDER BY kind = 'seg'")
    with store.db.write() as tx:
        reissue_for_review(tx, [sr], 1, 1)
        reject_refuted(tx, [seg])
        if why == "images gone":
            tx.execute("UPDATE version SET removed_at = ?", (tx.at,))
    (report,) = store.db.all("SELECT * FROM delivery WHERE kind = 'sr' AND state = 'held'")
    child.dies_on = {report["sop_instance_uid"]} if why == "child dies" else set()
    for _ in range(1 + MAX_TRIES):
        stage.step()
    built = [SR, NOTE] if why == "nothing is wrong" else [NOTE]
    assert [one.kind for one in deliveries(store, clock)] == built, "what takes its place goes first"
    failed = [] if why == "nothing is wrong" else [f"sr of analysis {analysis}"]
    assert [issue.subject for issue in store.issues.open()] == failed
    assert not stage.step()


@pytest.mark.req("R-RESULT-10")
def test_note_that_cannot_be_built_ends_as_an_issue_and_keeps_no_result_back(store, clock, stage, child, owed_report):
    analysis, _ = owed_report(kinds=(SR, DeliveryKind.SEG, NOTE))
    stage.step()
    for item in deliveries(store, clock):
        store.deliveries.sent(item.id, 0)
    sr, seg = store.db.all("SELECT * FROM delivery ORDER BY kind = 'seg'")
    with store.db.write() as tx:
        reject_refuted(tx, [seg])
    child.dies_on = {row["sop_instance_uid"] for row in store.db.all("SELECT * FROM delivery WHERE state = 'held'")}
    for _ in range(MAX_TRIES):
        stage.step()
    assert not stage.step()
    with store.db.write() as tx:
        reissue_for_review(tx, [sr], 1, 1)
    stage.step()
    assert [one.kind for one in deliveries(store, clock)] == [SR]
    assert [issue.subject for issue in store.issues.open()] == [f"rejection_note of analysis {analysis}"]


def test_a_full_disk_loses_no_report(store, clock, stage, monkeypatch, owed_report):
    owed_report()

    def full(*_, **__):
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(store.spool, "write_blob", full)
        with pytest.raises(StoreError):
            stage.step()
    assert parts(store) == []
    stage.step()
    assert len(deliveries(store, clock)) == 1


def test_a_damaged_row_is_an_issue_and_not_the_end_of_reports(store, clock, stage, owed_report):
    bad, _ = owed_report(1)
    _, good = owed_report(2)
    with store.db.write() as tx:
        tx.execute("UPDATE analysis SET result = '{}' WHERE id = ?", (bad,))
    stage.step()
    assert [item.sop_instance_uid for item in deliveries(store, clock)] == [good]
    assert {issue.subject for issue in store.issues.open()} == {f"sr of analysis {bad}"}
