"""Every real and odd file against the real box: kept and forwarded unchanged, or refused with a status and a row."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import fixtures_real
import pytest
from box_kit import Box, box_config
from checker import check
from pydicom import dcmread
from real_senders import disjoint, send, wrap

from appliance.records import DeliveryState, Outcome, Reason, VersionState
from appliance.simulate.pacs import Pacs
from appliance.store.facts import Kind

#: What is refused over the wire, with what the journal says of it; everything else is kept.
REFUSED = {
    "charset/chrSQEncoding.dcm": "SOP Class UID (0008,0016) is missing",
    "charset/chrSQEncoding1.dcm": "SOP Class UID (0008,0016) is missing",
    "dicom_odd/deflated.dcm": "no transfer syntax accepted for Secondary Capture Image Storage",
    "pydicom/MR_truncated.dcm": "truncated",
    "pydicom/UN_sequence.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/empty_charset_LEI.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/image_dfl.dcm": "no transfer syntax accepted for Secondary Capture Image Storage",
    "pydicom/meta_missing_tsyntax.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/nested_priv_SQ.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/no_meta.dcm": "has no Value Representation",
    "pydicom/no_meta_group_length.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/priv_SQ.dcm": "SOP Class UID (0008,0016) is missing",
    "pydicom/rtplan_truncated.dcm": "truncated",
    "pydicom_data/JLSL_08_07_0_1F.dcm": "Study Instance UID (0020,000D) is missing",
    "pydicom_data/bad_sequence.dcm": "no well-formed SOP Class and Instance UID",
    "pydicom_data/liver_deflate.dcm": "no transfer syntax accepted for Segmentation Storage",
}


def refusal_expected(parcel):
    if parcel.path.parent.name == "siemens_body_j2k":
        return "SOP Class UID (0008,0016) is missing"  # its UIDs are empty
    return REFUSED.get(parcel.name)


@pytest.fixture(scope="module")
def storescu(dcmtk):
    return dcmtk("storescu")


@pytest.fixture(scope="module")
def parcels(test_data, storescu, tmp_path_factory):
    """Every file as it is, and the Siemens series once more with the UIDs that it lacks."""
    folder = tmp_path_factory.mktemp("wrapped")
    files = fixtures_real.dicom_files(test_data) + fixtures_real.siemens_series(test_data, folder / "siemens_minted")
    return wrap(files, storescu, folder / "tap")


def facts_since(box, seq):
    return [fact for fact in box.store.journal.after(seq) if fact.kind in {Kind.REFUSED, Kind.INSTANCE_STORED}]


def drained(box):
    """Whether every original that may go has gone."""
    rows = box.store.db.all("SELECT DISTINCT state FROM delivery")
    return {row["state"] for row in rows} <= {str(DeliveryState.SENT)}


def digests(pacs):
    return {uid: arrival.sha256 for uid, arrival in pacs.stored().items()}


@pytest.mark.req("R-PEER-02")
@pytest.mark.req("R-PEER-03")
@pytest.mark.req("R-FORWARD-01")
def test_each_file_alone_is_kept_and_forwarded_unchanged_or_refused_with_a_status_and_a_row(
    parcels, storescu, tmp_path
):
    table = []
    for number, group in enumerate(disjoint(parcels)):
        with Pacs(tmp_path / f"pacs{number}") as pacs:
            config = box_config(tmp_path / f"state{number}", pacs.port, mode="inline", packages=())
            sent = {}
            with Box(config) as box:
                for parcel in group:
                    seq = box.store.journal.last_seq()
                    status = send(parcel, storescu, box.daemon.dicom_port)
                    facts = facts_since(box, seq)
                    said = facts[0].body.get("message", "kept and forwarded") if len(facts) == 1 else f"{len(facts)} facts"
                    shown = "no context" if status is None else f"{status:04X}"
                    table.append((parcel.name, parcel.way, shown, said, refusal_expected(parcel)))
                    if status == 0:
                        sent[parcel.sop_instance_uid] = parcel.sha256
                box.wait(lambda box=box: drained(box), "forwarded images")
                assert digests(pacs) == sent, "what reached the PACS is not what was acknowledged"
                box.wait(lambda box=box: all(one.outcome for one in box.store.views.studies(limit=1000)), "outcomes")
                outcomes = {one.outcome for one in box.store.views.studies(limit=1000)}
                assert outcomes <= {Outcome.NOT_APPLICABLE}
            assert check(config.state_path, sent) == []
    show(table)
    surprises = [row for row in table if not as_expected(*row)]
    assert surprises == []
    assert Counter(way for _, way, *_ in table)["storescu"] > 60, "storescu was hardly used"


def as_expected(_name, _way, status, said, expected):
    if expected is None:
        return status == "0000" and said == "kept and forwarded"
    return status in {"C000", "no context"} and expected in said


def show(table):
    """What became of every file, for ``pytest -s``; the twenty slices of a series are one line."""
    print()
    for (folder, way, status, said), rows in itertools.groupby(
        sorted(table), key=lambda row: (row[0].split("/")[0], *row[1:4])
    ):
        names = [row[0].split("/")[1] for row in rows]
        told = f"{len(names)} files" if folder.startswith("siemens") else ", ".join(names)
        print(f"{folder:22} {way:9} {status:10} {said[:60]:60} {told}")


#: Files under one SOP Instance UID, in the order of sending, and what the box then has of that UID (§3).
#: Lossless copies are versions; lossy ones, other bytes in the same syntax, and other polarity are conflicts.
SHARED = {
    ("single/693_J2KI.dcm", "single/693_UNCI.dcm", "pydicom/693_J2KI.dcm"): ["current", "conflict"],
    ("dicom_cxr/fake_mono1.dcm", "dicom_cxr/siim_jpegbaseline.dcm"): ["current", "conflict"],
    ("charset/chrFren.dcm", "charset/chrFrenMulti.dcm"): ["current", "kept"],
    ("highdicom/ct_image.dcm", "pydicom/CT_small.dcm"): ["current", "kept"],
    ("pydicom/JPEG-lossy.dcm", "pydicom/JPGExtended.dcm"): ["current", "conflict"],
}


@pytest.mark.req("R-PEER-02")
@pytest.mark.req("R-INTAKE-12")
@pytest.mark.req("R-INTAKE-13")
@pytest.mark.req("R-INTAKE-15")
@pytest.mark.req("R-TRIAGE-15")
def test_all_files_together_are_versions_or_conflicts_by_the_rule_and_every_study_ends(parcels, storescu, tmp_path):
    shards = [[parcel for group in together(parcels)[n::4] for parcel in group] for n in range(4)]
    with Pacs(tmp_path / "pacs") as pacs:
        config = box_config(tmp_path / "state", pacs.port, mode="inline")
        with Box(config) as box:
            with ThreadPoolExecutor(4) as pool:
                work = [pool.submit(send_all, shard, storescu, box.daemon.dicom_port) for shard in shards]
                acknowledged = {name for shard in work for name in shard.result()}

            def over():
                views = box.store.views.studies(limit=1000)
                done = all(one.outcome for one in views) and not box.store.studies.to_compare()
                return views if done and not box.store.revisions.open_series() and drained(box) else None

            views = box.wait(over, "an outcome of every study")
            for parcel in parcels:
                states = [str(v.state) for v in box.store.studies.versions(parcel.sop_instance_uid)]
                print(parcel.name, parcel.name in acknowledged, states)
            for one in views:
                print(one.outcome, one.reason, one.live[0].detail if one.live else "", one.images, one.modalities, one.description)
            print(box.store.issues.open())


def together(parcels):
    """Groups of files that share a SOP Instance UID, each in its order; others alone."""
    groups = {}
    for parcel in parcels:
        groups.setdefault(parcel.sop_instance_uid, []).append(parcel)
    return list(groups.values())


def send_all(parcels, storescu, port):
    return [parcel.name for parcel in parcels if send(parcel, storescu, port) == 0]
