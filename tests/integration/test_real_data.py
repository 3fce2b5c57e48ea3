"""Every real and odd file against the real box: kept and forwarded unchanged, or refused with a status and a row."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import fixtures_real
import pytest
from box_kit import Box, box_config
from checker import check
from real_senders import disjoint, send, wrap

from appliance.records import DeliveryState, Outcome, Reason
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


KEPT = "kept and forwarded"


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
                    said = (
                        facts[0].body.get("message", "kept and forwarded") if len(facts) == 1 else f"{len(facts)} facts"
                    )
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
        return status == "0000" and said == KEPT
    return status in {"C000", "no context"} and expected in said


def show(table):
    """What became of every file, for ``pytest -s``; the twenty slices of a series are one line."""
    for (folder, way, status, said), rows in itertools.groupby(
        sorted(table), key=lambda row: (row[0].split("/")[0], *row[1:4])
    ):
        names = [row[0].split("/")[1] for row in rows]
        told = f"{len(names)} files" if folder.startswith("siemens") else ", ".join(names)
        tell(f"{folder:22} {way:9} {status:10} {said[:60]:60} {told}")


def tell(line):
    print(line)  # noqa: T201 - for pytest -s


#: Files that share a SOP Instance UID, by the first that is sent, and what the box then has of that UID: lossless
#: copies and other attributes are kept, other polarity and other bytes in the same syntax are conflicts.
VERSIONS = {
    "single/693_J2KI.dcm": ["current", "kept"],  # 693_UNCI: the same values; pydicom/693_J2KI: the same bytes
    "dicom_cxr/fake_mono1.dcm": ["current", "conflict"],
    "charset/chrFren.dcm": ["current", "kept"],
    "charset/chrJapMulti.dcm": ["current", "kept"],
    "highdicom/ct_image.dcm": ["current", "kept"],
    "pydicom/JPEG-lossy.dcm": ["current", "conflict"],
    "pydicom/MR_small.dcm": ["current", "kept", "kept", "kept", "conflict"],  # the last has padded pixels
    "pydicom/badVR.dcm": ["current", "conflict"],
    "pydicom/liver_1frame.dcm": ["current", "conflict"],
    "pydicom_data/emri_small.dcm": ["current", "kept", "kept", "kept", "kept"],
    # One slice under one UID: JPEG-LS, JPEG and RLE lossless, J2K and JPEG-LS with loss.
    "minted_ct1/CT1_JLSL.dcm": ["current", "kept", "kept", "conflict", "conflict"],
}


@pytest.mark.req("R-PEER-02")
@pytest.mark.req("R-INTAKE-10")
@pytest.mark.req("R-INTAKE-12")
@pytest.mark.req("R-INTAKE-13")
@pytest.mark.req("R-INTAKE-15")
@pytest.mark.req("R-TRIAGE-15")
def test_all_files_together_are_versions_or_conflicts_by_the_rule_and_every_study_ends(
    test_data, parcels, storescu, tmp_path
):
    folder = tmp_path / "minted"
    everything = parcels + wrap(fixtures_real.ct1_under_one_uid(test_data, folder / "minted_ct1"), storescu, folder)
    families = by_uid(everything)
    with Pacs(tmp_path / "pacs") as pacs:
        short = {"quiet_max_s": 3.0}  # storescu's slow starts are no pauses to learn from
        config = box_config(tmp_path / "state", pacs.port, mode="inline", completeness=short)
        with Box(config) as box:
            with ThreadPoolExecutor(4) as pool:  # four scanners at once; files of one UID stay in order
                work = [pool.submit(send_all, families[n::4], storescu, box.daemon.dicom_port) for n in range(4)]
                refused = {name for one in work for name in one.result()}
            views = box.wait(lambda: all_over(box), "an outcome of every study")
            versions = {one[0].name: states(box, one[0]) for one in families if not refusal_expected(one[0])}
            stored = box.store.db.all(
                "SELECT i.sop_instance_uid AS uid, v.data_sha256 AS sha256, v.state"
                " FROM version v JOIN instance i ON i.id = v.instance_id"
            )
            issues = Counter(issue.code for issue in box.store.issues.open())
            alerts = box.store.views.alerts()
        for view in views:
            detail = view.live[0].detail if view.live else ""
            tell(f"{view.outcome} {view.reason or ''}: {'/'.join(view.modalities)}, {view.images} images; {detail}")
        assert refused == {parcel.name for parcel in everything if refusal_expected(parcel)}
        assert versions == {name: VERSIONS.get(name, ["current"]) for name in versions}
        assert versions.keys() >= VERSIONS.keys()
        assert issues == {"VERSION_CONFLICT": sum(found.count("conflict") for found in VERSIONS.values())}
        # Reports come under the box's own name.
        arrived = Counter((one.sop_instance_uid, one.sha256) for one in pacs.arrivals if one.calling == "CT-1")
        assert arrived == Counter((row["uid"], row["sha256"]) for row in stored if row["state"] != "conflict")
    assert {(view.outcome, view.reason) for view in views} == {
        (Outcome.NOT_APPLICABLE, None),
        (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE),
    }
    assert alerts == []
    acknowledged = {(one.sop_instance_uid, one.sha256) for one in everything if one.name not in refused}
    assert {(row["uid"], row["sha256"]) for row in stored} == acknowledged
    assert check(config.state_path, dict(acknowledged)) == []


def all_over(box):
    """All studies, once each has an outcome, no version is being compared, and all that may go has gone."""
    views = box.store.views.studies(limit=1000)
    is_busy = box.store.revisions.open_series() or box.store.studies.to_compare() or not drained(box)
    return views if views and all(one.outcome for one in views) and not is_busy else None


def states(box, parcel):
    """The versions under a file's UID, in the order in which they came."""
    return [str(version.state) for version in box.store.studies.versions(parcel.sop_instance_uid)]


def by_uid(parcels):
    """Files that share a SOP Instance UID, each family in its order; the others alone."""
    families = {}
    for parcel in parcels:
        families.setdefault(parcel.sop_instance_uid if not refusal_expected(parcel) else parcel.path, []).append(parcel)
    return list(families.values())


def send_all(families, storescu, port):
    """Send files one after another; the names of those that were refused."""
    return [parcel.name for family in families for parcel in family if send(parcel, storescu, port) != 0]
