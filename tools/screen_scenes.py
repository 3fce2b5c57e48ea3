"""Stores in every state that the alert screen knows, for its browser tests and for screenshots.

Rows are written as the box would leave them; nothing runs. Patients are invented.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette

from appliance.records import (
    AlertStep,
    AnalysisResult,
    Detail,
    FindingResult,
    Header,
    Identity,
    Measurement,
    Outcome,
    Reason,
    RejectionTitle,
    Severity,
    UserRole,
)
from appliance.screen import PackageText, package_text
from appliance.store import Store
from appliance.store.database import Transaction, iso
from appliance.store.facts.alerts import AlertEscalated, AlertRaised
from appliance.store.facts.analyses import BacklogDone, StudyOutcome
from appliance.store.jsonable import dump
from appliance.store.rejections import rejected_result
from appliance.web.access import Guarded
from engines.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
HEAD = "head-ct-hyperdensity"
CHEST = "chest-xray-effusion"
QUALITY = "chest-xray-quality"

WANG = Identity(
    study_instance_uid="1.2.826.0.1.3680043.10.1.1",
    patient_id="PID-88172355",
    patient_name="WANG^XIAOMING=王^晓明",
    patient_birth_date="19590314",
    patient_sex="M",
    accession_number="ACC20260100474711",
)
DOE = Identity(
    study_instance_uid="1.2.826.0.1.3680043.10.1.2",
    patient_id="PID-10027766",
    patient_name="DOE^JANE",
    patient_birth_date="19820901",
    patient_sex="F",
    accession_number="ACC20260100480932",
)
LI = Identity(
    study_instance_uid="1.2.826.0.1.3680043.10.1.3",
    patient_id="PID-55510444",
    patient_name="LI^NA=李^娜",
    patient_birth_date="19471120",
    patient_sex="F",
    accession_number="ACC20260100475208",
)


def packages() -> dict[str, PackageText]:
    """The bundled head package as it is, an invented one of category 2, and an invented one of image quality."""
    data = yaml.safe_load((ROOT / "engines" / "models" / HEAD / "model.yaml").read_text(encoding="utf-8"))
    head = package_text(Manifest.model_validate(data), live=True)
    effusion = replace(
        next(iter(head.findings.values())),
        title={"en": "Suspected pleural effusion", "zh_Hans": "疑似胸腔积液"},
        advice={"en": "Ask for an early read.", "zh_Hans": "请安排优先阅片。"},
        category=2,
    )
    chest = replace(
        head,
        title={"en": "Fluid beside the lung on chest X-ray", "zh_Hans": "胸片肺旁积液"},
        looked_for={"en": "Fluid beside the lung on frontal chest X-ray.", "zh_Hans": "正位胸片胸腔积液。"},
        not_looked_for={"en": "Everything else.", "zh_Hans": "其他一切。"},
        intended_use="triage",
        findings={"effusion": effusion},
    )
    words = {
        "bases": ("Check before the patient leaves: lung bases cut off", "请在患者离开前检查：肺底未包全"),
        "rotated": ("Check before the patient leaves: the chest is turned", "请在患者离开前检查：胸部旋转"),
    }
    quality = replace(
        chest,
        title={"en": "Chest X-ray image quality", "zh_Hans": "胸片图像质量"},
        looked_for={"en": "Lungs that are cut off or turned.", "zh_Hans": "肺野未包全或旋转。"},
        intended_use="quality",
        findings={
            name: replace(effusion, title={"en": en, "zh_Hans": zh}, advice={}, category=3)
            for name, (en, zh) in words.items()
        },
    )
    return {HEAD: head, CHEST: chest, QUALITY: quality}


def add_study(
    tx: Transaction,
    identity: Identity = WANG,
    *,
    outcome: Outcome | None = None,
    reason: Reason | None = None,
    images: int = 32,
    is_open: bool = False,
    ago_s: float = 8.0,
    description: str = "Head plain",
    modality: str = "CT",
    source: str = "CT-1",
    identity_revision: int = 1,
    age: str = "",
    exposure: tuple[float | None, float | None, float | None] = (None, None, None),
) -> int:
    """A study with one series of one recorded instance."""
    at = iso(tx.now - timedelta(seconds=ago_s))
    n = tx.one("SELECT count(*) AS n FROM study")["n"] + 1  # type: ignore[index]
    uid = f"{identity.study_instance_uid}.{n}"
    header = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"{uid}.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=f"{uid}.1",
        identity=identity,
        patient_age=age,
    )
    study = tx.insert(
        "study",
        study_instance_uid=uid,
        source=source,
        patient_key=json.dumps(identity.patient_key),
        identity=dump(identity),
        identity_revision=identity_revision,
        description=description,
        study_date="20260110",
        first_at=at,
        last_at=at,
        images=images,
        outcome=outcome and str(outcome),
        reason=reason and str(reason),
        outcome_at=outcome and tx.at,
    )
    series = tx.insert(
        "series",
        study_id=study,
        series_instance_uid=f"{uid}.1",
        sop_class_uid=header.sop_class_uid,
        modality=modality,
        description=description,
        header=dump(header),
        revision=0 if is_open else 1,
        open=int(is_open),
        changed_at=at,
        changed_mono=tx.mono - ago_s,
        boot=tx.boot,
    )
    instance = tx.insert("instance", sop_instance_uid=header.sop_instance_uid, series_id=series)
    version = tx.insert(
        "version",
        instance_id=instance,
        n=1,
        state="current",
        path=f"store/{study:02x}/{n}.dcm",
        size=1,
        data_sha256="0",
        transfer_syntax_uid=header.transfer_syntax_uid,
        meaning_digest="",
        identity=dump(identity),
        association_id=1,
        source=source,
        instance_number=14,
        received_at=at,
        received_mono=tx.mono - ago_s,
        exposure_index=exposure[0],
        target_exposure_index=exposure[1],
        deviation_index=exposure[2],
    )
    tx.execute("UPDATE instance SET version_id = ? WHERE id = ?", (version, instance))
    if not is_open:
        revision = tx.insert(
            "revision",
            series_id=series,
            n=1,
            images=images,
            evidence='{"rule": "released"}',
            ready_at=at,
            ready_mono=tx.mono - ago_s + 0.04,
            last_image_mono=tx.mono - ago_s,
            boot=tx.boot,
            routed=1,
        )
        tx.execute("INSERT INTO revision_version VALUES (?, ?)", (revision, version))
    if outcome is not None:
        tx.journal(StudyOutcome(outcome=str(outcome), reason=reason and str(reason)), study_id=study)
    return study


def add_input(tx: Transaction, study: int, analysis: int) -> int:
    """One more series of the study, without images, that the analysis looked at too; returns the series."""
    first = tx.one("SELECT * FROM series WHERE study_id = ? ORDER BY id LIMIT 1", (study,))
    assert first is not None  # noqa: S101 - every study here has one
    values = dict(first) | {"series_instance_uid": f"{first['series_instance_uid']}.{analysis}"}
    series = tx.insert("series", **{name: value for name, value in values.items() if name != "id"})
    ready = tx.one("SELECT * FROM revision WHERE series_id = ?", (first["id"],))
    assert ready is not None  # noqa: S101 - so does every series that was analysed
    values = dict(ready) | {"series_id": series}
    revision = tx.insert("revision", **{name: value for name, value in values.items() if name != "id"})
    tx.insert("analysis_input", analysis_id=analysis, role="second", revision_id=revision)
    return series


def add_analysis(
    tx: Transaction, study: int, result: AnalysisResult | None, *, package: str = HEAD, took_s: float = 3.1, **more: Any
) -> int:
    """A live analysis: done with ``result``, or running without one."""
    series = tx.one("SELECT id FROM series WHERE study_id = ?", (study,))
    revision = tx.one("SELECT id, ready_at FROM revision WHERE series_id = ?", (series["id"],)) if series else None
    values: dict[str, Any] = {
        "study_id": study,
        "package": package,
        "package_version": "0.1.0",
        "role": "live",
        "category": 1,
        "notify": "active",
        "intended_use": "detection",
        "state": "done" if result else "running",
        "ready_at": revision["ready_at"] if revision else tx.at,
        "ready_mono": tx.mono,
        "boot": tx.boot,
        "deadline_s": 180.0,
        "started_at": iso(tx.now - timedelta(seconds=took_s)),
        "done_at": tx.at if result else None,
        "outcome": str(result.outcome) if result else None,
        "reason": str(result.reason) if result and result.reason else None,
        "result": dump(result) if result else None,
    }
    analysis = tx.insert("analysis", **(values | more))
    if revision:
        tx.insert("analysis_input", analysis_id=analysis, role="head-ct", revision_id=revision["id"])
    return analysis


def add_alert(
    tx: Transaction, study: int, analysis: int, *, finding: str = "hyperdensity", package: str = HEAD, **more: Any
) -> int:
    """An open alert of category 1."""
    found = json.dumps([{"package": package, "finding": finding, "category": more.get("category", 1)}])
    values = {
        "study_id": study,
        "analysis_id": analysis,
        "state": "raised",
        "category": 1,
        "active": 1,
        "chime": 1,
        "findings": found,
        "identity_revision": 1,
        "raised_at": tx.at,
    } | more
    alert = tx.insert("alert", **values)
    tx.journal(
        AlertRaised(
            alert=alert,
            analysis=analysis,
            category=values["category"],
            active=bool(values["active"]),
            chime=bool(values["chime"]),
        ),
        study_id=study,
    )
    return alert


def finding_result(
    tx: Transaction, study: int, *, finding: str = "hyperdensity", pictures: tuple[str, ...] = ()
) -> AnalysisResult:
    """A flagged finding of 12.4 ml, shown best by the study's instance."""
    row = tx.one(
        "SELECT i.sop_instance_uid AS uid FROM instance i JOIN series s ON s.id = i.series_id WHERE s.study_id = ?",
        (study,),
    )
    return AnalysisResult(
        outcome=Outcome.FINDING,
        findings=(
            FindingResult(
                id=finding,
                score=12.4,
                operating_point="standard",
                threshold=1.5,
                flagged=True,
                category=1,
                measurements=(Measurement(name="volume", value=12.4, unit="ml"),),
                key_instances=(row["uid"],) if row else (),
            ),
        ),
        pictures=pictures,
    )


def nothing_flagged(tx: Transaction, identity: Identity = DOE, **more: Any) -> int:
    """A study that ended with nothing flagged."""
    study = add_study(tx, identity, outcome=Outcome.NOTHING_FLAGGED, **more)
    add_analysis(tx, study, AnalysisResult(outcome=Outcome.NOTHING_FLAGGED))
    return study


def not_analysed(
    tx: Transaction,
    reason: Reason = Reason.INCOMPLETE,
    details: tuple[Detail, ...] = (),
    identity: Identity = LI,
    **more: Any,
) -> int:
    """A study that ended not analysed."""
    study = add_study(tx, identity, outcome=Outcome.NOT_ANALYSED, reason=reason, **more)
    add_analysis(tx, study, AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=reason, details=details))
    return study


def urgent(
    tx: Transaction, identity: Identity = WANG, *, pictures: tuple[str, ...] = (), study_values: Any = None, **more: Any
) -> int:
    """A study with an open alert of category 1; returns the alert."""
    study = add_study(tx, identity, outcome=Outcome.FINDING, **(study_values or {}))
    return add_alert(tx, study, add_analysis(tx, study, finding_result(tx, study, pictures=pictures)), **more)


def priority(tx: Transaction, identity: Identity = DOE, **more: Any) -> int:
    """A study with an open alert of category 2 by a triage package; returns the alert."""
    study = add_study(
        tx, identity, outcome=Outcome.FINDING, description="Chest PA", modality="DX", source="DX-2", images=1
    )
    analysis = add_analysis(
        tx, study, finding_result(tx, study, finding="effusion"), package=CHEST, intended_use="triage", category=2
    )
    return add_alert(tx, study, analysis, finding="effusion", package=CHEST, **({"category": 2} | more))


def warned(
    tx: Transaction,
    identity: Identity = WANG,
    *,
    findings: tuple[str, ...] = ("bases",),
    flagged: bool = True,
    outcome: Outcome = Outcome.NOTHING_FLAGGED,
    reason: Reason | None = None,
    exposure: tuple[float | None, float | None, float | None] = (325.0, 400.0, -0.9),
    late: bool = False,
    **more: Any,
) -> int:
    """A chest X-ray that a quality package looked at, and warns of where ``flagged``; returns the study."""
    study = add_study(
        tx,
        identity,
        outcome=outcome,
        reason=reason,
        exposure=exposure,
        **({"description": "Chest PA", "modality": "DX", "source": "DX-2", "images": 1} | more),
    )
    warn_again(tx, study, findings=findings, flagged=flagged, late=int(late))
    return study


def warn_again(
    tx: Transaction, study: int, *, findings: tuple[str, ...] = ("bases",), flagged: bool = True, **more: Any
) -> int:
    """One more analysis of the study by the quality package; returns it."""
    scores = tuple(
        FindingResult(id=name, score=0.9, operating_point="standard", threshold=0.5, flagged=flagged, category=3)
        for name in findings
    )
    result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, findings=scores)
    values = {"package": QUALITY, "intended_use": "quality", "notify": "passive", "category": 3} | more
    return add_analysis(tx, study, result, took_s=0.3, **values)


#: What a worker tells of its time on a head CT.
HOPS = {"ahead": 2140.0, "decode": 310.0, "prepare": 220.0, "assemble": 95.0, "inference": 1640.0, "head": 60.0}
HOPS |= {"picture": 140.0, "worker": 2510.0, "total": 2610.0}


def add_delivery(tx: Transaction, study: int, destination: str = "PACS", *, kind: str = "sr", **more: Any) -> int:
    """An object owed to a destination; by default it was sent at once."""
    n = tx.one("SELECT count(*) AS n FROM delivery")["n"] + 1  # type: ignore[index]
    values = {
        "destination": destination,
        "kind": kind,
        "study_id": study,
        "sop_instance_uid": f"1.2.826.0.1.3680043.10.9.{n}",
        "state": "sent",
        "next_at": tx.at,
        "owed_at": tx.at,
        "sent_at": tx.at if more.get("state", "sent") == "sent" else None,
    }
    return tx.insert("delivery", **(values | more))


def many(tx: Transaction, count: int = 5000, *, every_s: float = 15.0) -> None:
    """So many studies, the newest of all kinds: one in 20 flagged, and of these the newest three not acknowledged."""
    for n in range(count):
        person, ago = (WANG, DOE, LI)[n % 3], every_s * (count - n)
        family, _, given = person.patient_name.partition("^")
        identity = replace(
            person, patient_name=f"{family}^{given}", patient_id=f"PID-{n:06}", accession_number=f"ACC{n:012}"
        )
        values = {"ago_s": ago, "source": ("CT-1", "CT-2", "DX-2")[n % 3]}
        if n % 20 == 0:
            study = add_study(tx, identity, outcome=Outcome.FINDING, **values)
            result = replace(finding_result(tx, study), hops_ms=HOPS)
            at = iso(tx.now - timedelta(seconds=ago - 3))
            seen = {"state": "acknowledged", "acknowledged_by": "Li Wei", "acknowledged_at": at, "presented_at": at}
            analysis = add_analysis(
                tx, study, result, started_at=iso(tx.now - timedelta(seconds=ago - 0.2)), done_at=at
            )
            add_alert(tx, study, analysis, raised_at=at, **({} if n >= count - 60 else seen))
        elif n % 20 == 1:
            study = not_analysed(tx, identity=identity, **values)
        elif n % 20 == 2:
            study = add_study(tx, identity, outcome=Outcome.NOT_APPLICABLE, **values)
        else:
            study = add_study(tx, identity, outcome=Outcome.NOTHING_FLAGGED, **values)
            quiet = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, hops_ms=HOPS)
            times = {"started_at": iso(tx.now - timedelta(seconds=ago - 0.2))}
            add_analysis(tx, study, quiet, done_at=iso(tx.now - timedelta(seconds=ago - 3)), **times)
        if n % 20 in {0, 1}:
            add_delivery(tx, study, sent_at=iso(tx.now - timedelta(seconds=ago - 5)))


def picture(size: int = 192) -> bytes:
    """A grey disc with a bright spot as PNG: stands for a key picture."""
    rows = b"".join(
        b"\0"
        + bytes(
            0
            if (x - size / 2) ** 2 + (y - size / 2) ** 2 > (size * 0.45) ** 2
            else 205
            if (x - size * 0.62) ** 2 + (y - size * 0.4) ** 2 < (size * 0.09) ** 2
            else 240
            if (x - size / 2) ** 2 + (y - size / 2) ** 2 > (size * 0.42) ** 2
            else 96
            for x in range(size)
        )
        for y in range(size)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _history(tx: Transaction) -> None:
    for n, identity in enumerate((DOE, LI)):
        study = nothing_flagged(tx, identity, ago_s=2400.0 + 900 * n)
        tx.execute(
            "UPDATE study SET outcome_at = ? WHERE id = ?", (iso(tx.now - timedelta(seconds=2300 + 900 * n)), study)
        )
    seen = urgent(
        tx,
        WANG,
        study_values={"ago_s": 5400.0},
        state="acknowledged",
        acknowledged_by="Zhao Lei",
        acknowledged_at=iso(tx.now - timedelta(seconds=5300)),
    )
    tx.execute(
        "UPDATE study SET outcome_at = ? WHERE id = (SELECT study_id FROM alert WHERE id = ?)",
        (iso(tx.now - timedelta(seconds=5390)), seen),
    )
    for _ in range(3):
        add_study(tx, DOE, outcome=Outcome.NOT_APPLICABLE, ago_s=3600.0, description="Knee", modality="DX")


def _idle(tx: Transaction, _: Store) -> None:
    _history(tx)


def _receiving(tx: Transaction, _: Store) -> None:
    _history(tx)
    add_study(tx, WANG, is_open=True, images=124, ago_s=1.0)


def _analysing(tx: Transaction, _: Store) -> None:
    _history(tx)
    add_analysis(tx, add_study(tx, WANG, ago_s=3.0), None)


def _urgent(tx: Transaction, store: Store) -> None:
    _history(tx)
    shown = store.spool.write_blob("pictures", picture(), suffix=".png")
    urgent(tx, WANG, pictures=(shown,))


def _priority(tx: Transaction, _: Store) -> None:
    _history(tx)
    priority(tx)


def _note(tx: Transaction, _: Store) -> None:
    _history(tx)
    priority(tx, DOE, category=3, active=0, chime=0)


def _quality(tx: Transaction, _: Store) -> None:
    _history(tx)
    warned(tx, findings=("bases", "rotated"))


def _quality_several(tx: Transaction, _: Store) -> None:
    _history(tx)
    warned(tx, DOE, ago_s=2000.0, late=True)
    warned(tx, LI, exposure=(1210.0, 400.0, 4.8), ago_s=60.0)
    warned(tx, outcome=Outcome.NOT_ANALYSED, reason=Reason.QUALITY)


def _nothing_flagged(tx: Transaction, _: Store) -> None:
    _history(tx)
    nothing_flagged(tx)


def _not_analysed(tx: Transaction, _: Store) -> None:
    _history(tx)
    gap = Detail(
        "{count} slices are missing: {slices} of {total}, counted along the series",
        {"count": 6, "slices": "9-14", "total": 32},
    )
    not_analysed(tx, details=(gap,))


def _ai_down(tx: Transaction, _: Store) -> None:
    _history(tx)
    _issue(tx, "AI_UNAVAILABLE", "worker", Severity.FAULT, 780)


def _ai_down_with_alert(tx: Transaction, store: Store) -> None:
    _urgent(tx, store)
    _issue(tx, "AI_UNAVAILABLE", "worker", Severity.FAULT, 780)
    _issue(tx, "DISK_RESERVE", "spool", Severity.FAULT, 1500)
    not_analysed(tx, Reason.AI_UNAVAILABLE)


def _several(tx: Transaction, _: Store) -> None:
    _history(tx)
    not_analysed(tx)
    priority(tx, DOE)
    urgent(tx, LI, study_values={"ago_s": 300.0})
    withdrawn = urgent(tx, WANG, state="withdrawn", withdrawn_at=tx.at, withdrawn_why="identity_corrected")
    row = tx.one("SELECT study_id, analysis_id FROM alert WHERE id = ?", (withdrawn,))
    assert row is not None  # noqa: S101 - written two lines above
    add_alert(tx, row["study_id"], row["analysis_id"], identity_revision=2, predecessor=withdrawn)


def _seen(tx: Transaction, _: Store) -> None:
    _history(tx)
    urgent(tx, state="acknowledged", acknowledged_by="Li Wei", acknowledged_at=tx.at)


def _stat(tx: Transaction, store: Store) -> None:
    _urgent(tx, store)
    row = tx.one("SELECT max(study_id) AS id FROM alert")
    assert row is not None  # noqa: S101 - written above
    tx.insert(
        "study_order",
        study_id=row["id"],
        state="found",
        asked=1,
        asked_at=tx.at,
        identity_revision=1,
        priority="STAT",
        procedure_description="CT head without contrast",
    )


def _withdrawn(tx: Transaction, _: Store) -> None:
    _history(tx)
    taken_back = urgent(tx, WANG, state="withdrawn", withdrawn_at=tx.at, withdrawn_why="rejected")
    row = tx.one("SELECT study_id, analysis_id FROM alert WHERE id = ?", (taken_back,))
    assert row is not None  # noqa: S101 - written above
    result = rejected_result(RejectionTitle.QUALITY)
    successor = add_analysis(tx, row["study_id"], result, predecessor=row["analysis_id"])
    tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = ?", (successor, row["analysis_id"]))
    tx.execute(
        "UPDATE study SET outcome = 'NOT_ANALYSED', reason = 'withdrawn', outcome_at = ? WHERE id = ?",
        (tx.at, row["study_id"]),
    )


def _backlog(tx: Transaction, _: Store) -> None:
    _history(tx)
    for n in range(4):
        not_analysed(tx, Reason.TIMED_OUT, ago_s=4000.0 + n)
    study = add_study(tx, WANG, outcome=Outcome.FINDING, ago_s=9000.0)
    add_alert(tx, study, add_analysis(tx, study, finding_result(tx, study), late=1), chime=0)
    tx.journal(BacklogDone(studies=100, findings=3, since=iso(tx.now - timedelta(hours=3))))


def steps_taken(tx: Transaction, alert: int, *steps: AlertStep) -> None:
    """Nobody has acknowledged it for so long that these steps were taken."""
    for step in steps:
        tx.execute("INSERT INTO escalation VALUES (?, ?, ?)", (alert, str(step), tx.at))
        tx.journal(AlertEscalated(alert=alert, step=step))


def was_told(tx: Transaction, alert: int, *, received_by: str = "Dr Chen", evaluation: bool = True) -> int:
    """Somebody was told of an alert; returns the line of the register."""
    row = tx.one(
        "SELECT a.*, s.identity, s.source, s.description FROM alert a JOIN study s ON s.id = a.study_id WHERE a.id = ?",
        (alert,),
    )
    assert row is not None  # noqa: S101 - the caller made it
    tx.execute(
        "UPDATE alert SET state = 'communicated', communicated_at = ?, acknowledged_at = coalesce(acknowledged_at, ?),"
        " acknowledged_by = coalesce(acknowledged_by, 'Li Wei') WHERE id = ?",
        (tx.at, tx.at, alert),
    )
    return tx.insert(
        "communication",
        alert_id=alert,
        study_id=row["study_id"],
        source=row["source"],
        identity=row["identity"],
        age="066Y",
        exam=f"CT {row['description']}",
        category=row["category"],
        findings=row["findings"],
        titles=json.dumps([{"en": "Suspected bleed in the head", "zh_Hans": "疑似颅内出血"}]),
        found_at=row["raised_at"],
        told_by="Li Wei",
        received_by=received_by,
        received_at=tx.at,
        method="phone",
        read_back=1,
        evaluation=int(evaluation),
        recorded_at=tx.at,
    )


def _overdue(tx: Transaction, _: Store) -> None:
    _history(tx)
    late = urgent(tx, LI, study_values={"ago_s": 700.0}, raised_at=iso(tx.now - timedelta(seconds=660)))
    steps_taken(tx, late, AlertStep.REPEAT, AlertStep.TELL, AlertStep.OVERDUE)
    urgent(tx, LI, study_values={"ago_s": 40.0})
    reminded = priority(tx, DOE, raised_at=iso(tx.now - timedelta(hours=2)))
    steps_taken(tx, reminded, AlertStep.REMIND)


def _told(tx: Transaction, _: Store) -> None:
    _history(tx)
    alert = urgent(tx)
    tx.execute("UPDATE study SET study_time = '141503' WHERE id = (SELECT max(id) FROM study)")
    was_told(tx, alert)


def _test(tx: Transaction, _: Store) -> None:
    _history(tx)
    tx.insert("test_alert", source="", raised_at=tx.at, raised_by="Ada Administrator")


def _issue(tx: Transaction, code: str, subject: str, severity: Severity, ago_s: float) -> None:
    since = iso(tx.now - timedelta(seconds=ago_s))
    tx.insert("issue", code=code, subject=subject, severity=str(severity), since_at=since, detail="{}")


SCENES: dict[str, Callable[[Transaction, Store], None]] = {
    "idle": _idle,
    "receiving": _receiving,
    "analysing": _analysing,
    "urgent": _urgent,
    "priority": _priority,
    "note": _note,
    "quality": _quality,
    "quality-several": _quality_several,
    "stat": _stat,
    "overdue": _overdue,
    "told": _told,
    "test": _test,
    "withdrawn": _withdrawn,
    "seen": _seen,
    "nothing-flagged": _nothing_flagged,
    "not-analysed": _not_analysed,
    "ai-down": _ai_down,
    "ai-down-with-alert": _ai_down_with_alert,
    "several": _several,
    "backlog": _backlog,
    "empty": lambda _tx, _store: None,
}


def fill(store: Store, scene: str) -> None:
    """Bring an empty store into one state of ``SCENES``."""
    with store.db.write() as tx:
        SCENES[scene](tx, store)


BROWSER_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


#: Addresses without a page of their own: they send the reader on, or never end.
NO_PAGES = {"/", "/language", "/events", "/events/page"}


def addresses(app: Starlette, store: Store, role: UserRole) -> Iterator[str]:
    """What may answer a role with a page, by the routes themselves; a study of the store in place of a number."""
    row = store.db.one("SELECT id FROM study WHERE outcome = 'FINDING' ORDER BY id LIMIT 1")
    study = row["id"] if row else 1
    for route in app.routes:
        if not isinstance(route, Guarded) or "GET" not in (route.methods or ()):
            continue
        if route.path in NO_PAGES or route.path.startswith(("/assets", "/api")):
            continue
        if route.roles is None or role in route.roles:
            path = re.sub(r"\{\w+(:int)?\}", str(study), route.path)
            if "{" not in path:
                yield path
