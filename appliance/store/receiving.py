"""The rows that a received image makes, inside the transaction that records it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from appliance.records import DeliveryKind, DeliveryState, Identity, Received, Severity, VersionState
from appliance.store.database import Transaction
from appliance.store.equipment import note_series
from appliance.store.facts.intake import IdentityCorrected
from appliance.store.issues import raise_issue
from appliance.store.jsonable import dump
from appliance.store.reissue import reissue_results
from appliance.store.settle import reissue_alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One destination that a received image is owed to, and the AE title that it is sent under."""

    destination: str
    calling_ae: str


def study_for(tx: Transaction, received: Received) -> int:
    """The study row of these images: same Study Instance UID and same patient, else a new one."""
    header = received.header
    key = json.dumps(header.identity.patient_key, ensure_ascii=False)
    rows = tx.all(
        "SELECT id, patient_key FROM study WHERE study_instance_uid = ?", (header.identity.study_instance_uid,)
    )
    for row in rows:
        if row["patient_key"] == key:
            return int(row["id"])
    study_id = tx.insert(
        "study",
        study_instance_uid=header.identity.study_instance_uid,
        source=received.source,
        patient_key=key,
        identity=dump(header.identity),
        description=header.study_description,
        study_date=header.study_date,
        study_time=header.study_time,
        first_at=tx.at,
        last_at=tx.at,
    )
    if rows:
        # Two patients under one Study Instance UID: kept apart, never merged, and loud.
        raise_issue(
            tx,
            "STUDY_UID_SHARED",
            f"study {study_id}",
            Severity.FAULT,
            {"other_study": rows[0]["id"], "source": received.source},
            study_id,
        )
    return study_id


def series_for(tx: Transaction, study_id: int, received: Received) -> int:
    """The series row of an image, made of its header when it is the first."""
    header = received.header
    row = tx.one(
        "SELECT id FROM series WHERE study_id = ? AND series_instance_uid = ?", (study_id, header.series_instance_uid)
    )
    if row is not None:
        return int(row["id"])
    note_series(tx, received.source, header)
    if header.protocol_name:
        tx.execute(
            "INSERT INTO source_fact VALUES (?, 'protocol', ?, 1, ?) ON CONFLICT (source, fact, value)"
            " DO UPDATE SET count = count + 1, last_at = excluded.last_at",
            (received.source, header.protocol_name, tx.at),
        )
    return tx.insert(
        "series",
        study_id=study_id,
        series_instance_uid=header.series_instance_uid,
        sop_class_uid=header.sop_class_uid,
        modality=header.modality,
        number=header.series_number,
        description=header.series_description,
        protocol_name=header.protocol_name,
        body_part=header.body_part_examined,
        header=dump(replace(header, rejection=None)),
        changed_at=tx.at,
        changed_mono=received.received_mono,
        boot=tx.boot,
    )


def insert_version(tx: Transaction, instance_id: int, n: int, state: VersionState, received: Received) -> int:
    """The n-th data set under a SOP Instance UID; returns its id."""
    header = received.header
    return tx.insert(
        "version",
        instance_id=instance_id,
        n=n,
        state=str(state),
        path=received.path,
        size=received.size,
        data_sha256=received.data_sha256,
        transfer_syntax_uid=header.transfer_syntax_uid,
        meaning_digest=header.meaning_digest,
        identity=dump(header.identity),
        association_id=received.association_id,
        source=received.source,
        instance_number=header.instance_number,
        position=json.dumps(header.image_position_patient) if header.image_position_patient else None,
        orientation=json.dumps(header.image_orientation_patient) if header.image_orientation_patient else None,
        received_at=tx.at,
        received_mono=received.received_mono,
        exposure_index=header.exposure_index,
        target_exposure_index=header.target_exposure_index,
        deviation_index=header.deviation_index,
    )


def owe_original(
    tx: Transaction, study_id: int, version_id: int, received: Received, original: Original, state: DeliveryState
) -> None:
    """Owe a received image to one destination."""
    header = received.header
    insert_original(
        tx,
        study_id,
        version_id,
        header.sop_instance_uid,
        header.sop_class_uid,
        header.transfer_syntax_uid,
        received.path,
        received.data_sha256,
        original,
        state,
    )


def insert_original(
    tx: Transaction,
    study_id: int,
    version_id: int,
    sop_instance_uid: str,
    sop_class_uid: str,
    transfer_syntax_uid: str,
    path: str,
    data_sha256: str,
    original: Original,
    state: DeliveryState,
) -> None:
    """Owe one version of an image, as stored, to one destination."""
    tx.insert(
        "delivery",
        destination=original.destination,
        kind=str(DeliveryKind.ORIGINAL),
        study_id=study_id,
        version_id=version_id,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        path=path,
        sha256=data_sha256,
        calling_ae=original.calling_ae,
        state=str(state),
        next_at=tx.at,
        owed_at=tx.at,
    )


def raise_conflict(tx: Transaction, study_id: int, version_id: int, n: int) -> None:
    """Other pixels under a known SOP Instance UID: a person must choose."""
    raise_issue(tx, "VERSION_CONFLICT", f"version {version_id}", Severity.FAULT, {"n": n}, study_id)


def take_version(tx: Transaction, instance_id: int, current_id: int, version_id: int) -> None:
    """Another version of an instance stands for it; one that a note rejected stays rejected, whichever it is."""
    tx.execute(
        "UPDATE version SET state = (SELECT state FROM version WHERE id = ?) WHERE id = ?", (current_id, version_id)
    )
    tx.execute("UPDATE version SET state = 'kept' WHERE id = ?", (current_id,))
    tx.execute("UPDATE instance SET version_id = ? WHERE id = ?", (version_id, instance_id))


def correct_identity(tx: Transaction, study_id: int, version_id: int, identity: Identity) -> None:
    """The same pixels came under another patient or order: the newest identity holds, for the alert too."""
    row = tx.one(
        "SELECT i.id, i.version_id FROM instance i JOIN version v ON v.instance_id = i.id WHERE v.id = ?", (version_id,)
    )
    if row is not None:
        take_version(tx, row["id"], row["version_id"], version_id)
    text = dump(identity)
    study = tx.one("SELECT identity, identity_revision FROM study WHERE id = ?", (study_id,))
    if study is None or study["identity"] == text:
        return
    revision = study["identity_revision"] + 1
    tx.execute(
        "UPDATE study SET identity = ?, patient_key = ?, study_instance_uid = ?, identity_revision = ? WHERE id = ?",
        (text, json.dumps(identity.patient_key, ensure_ascii=False), identity.study_instance_uid, revision, study_id),
    )
    tx.journal(IdentityCorrected(identity_revision=revision), study_id=study_id)
    reissue_alert(tx, study_id)
    reissue_results(tx, study_id, identity, revision)
