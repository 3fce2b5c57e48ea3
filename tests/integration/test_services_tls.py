"""The DICOM services of a running box over TLS, both ways, by pynetdicom: images, performed steps, custody."""

from __future__ import annotations

import ssl

import pytest
from box_kit import Box, box_config
from custody_kit import CommittingPacs, report, send_event
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage
from pynetdicom.sop_class import ModalityPerformedProcedureStep as Step
from scp_kit import ct
from tls_kit import Authority, server_side

from appliance.config import ClientTls
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.retry import NoAssociation
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from appliance.simulate.scanner import give_answers_back
from appliance.store.facts import Kind

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


def client(authority, pair):
    """What pynetdicom is told to call with: trusts ``authority``, shows ``pair``."""
    context = ssl.create_default_context(cafile=authority.path)
    context.load_cert_chain(pair.certificate, pair.key)
    return context, "localhost"


def assert_refused(port, calling, tls):
    peer = Peer(host="127.0.0.1", port=port, called_ae="SCANSIDE", calling_ae=calling, timeout_s=30, tls=tls)
    with pytest.raises(NoAssociation):
        Association(peer, [(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])


def began_and_ended(images):
    began, ended, listed = Dataset(), Dataset(), Dataset()
    began.PerformedProcedureStepStatus, ended.PerformedProcedureStepStatus = "IN PROGRESS", "COMPLETED"
    listed.SeriesInstanceUID, listed.ReferencedImageSequence = images[0].SeriesInstanceUID, []
    for ds in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        listed.ReferencedImageSequence.append(item)
    ended.PerformedSeriesSequence = [listed]
    return began, ended


@pytest.mark.req("R-INTAKE-06", "R-DELIVER-04", "R-CUSTODY-02", "R-MPPS-01")
def test_images_steps_and_commitment_go_over_tls_both_ways_and_nothing_goes_without_a_certificate(tmp_path):
    hospital = Authority(tmp_path, "hospital")
    ours, theirs = hospital.issue("box", tag="-ours"), hospital.issue("CT-1", tag="-scanner", key=11)
    pacs_tls = server_side(hospital.issue("pacs", key=12), client_ca=hospital.path)
    listener = {
        "certificate_path": str(ours.certificate),
        "key_path": str(ours.key),
        "client_ca_path": str(hospital.path),
    }
    to_pacs = {
        "ca_path": str(hospital.path),
        "certificate_path": str(ours.certificate),
        "key_path": str(ours.key),
        "server_name": "localhost",
    }
    first = ct()
    images = [
        ct(StudyInstanceUID=first.StudyInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=n + 1)
        for n in range(3)
    ]
    began, ended = began_and_ended(images)
    with CommittingPacs(tls=pacs_tls) as pacs:
        base = box_config(
            tmp_path / "state", pacs.port, mode="inline", packages=(), dicom={"mpps": True, "tls": listener}
        )
        document = base.model_dump(mode="json")
        document["destinations"][0] |= {"commitment": True, "tls": to_pacs}
        with Box(type(base).model_validate(document), wait_ready=False) as box:
            port = box.daemon.dicom_port
            scanner = AE(ae_title="CT-1")
            scanner.add_requested_context(Step)
            scanner.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            assert_refused(port, "CT-1", None)
            assert_refused(port, "CT-1", ClientTls(ca_path=hospital.path))
            assoc = scanner.associate("127.0.0.1", port, ae_title="SCANSIDE", tls_args=client(hospital, theirs))
            assert assoc.is_established
            give_answers_back(assoc)
            uid = generate_uid()
            assert assoc.send_n_create(began, Step, uid)[0].Status == 0
            for ds in images[:2]:
                assert assoc.send_c_store(_file(ds)).Status == 0
            assert assoc.send_n_set(ended, Step, uid)[0].Status == 0
            assert assoc.send_c_store(_file(images[2])).Status == 0
            (ready,) = box.wait(lambda: box.store.journal.after(0, kinds=(Kind.SERIES_READY,)), "ready series")
            assert ready.body["rule"] == "mpps"
            assoc.release()

            pacs.images.wait(3)
            asked = {name for _, names in pacs.requests.wait(1) for name in names}
            transaction, names = pacs.requests.rows[0]
            told = report(transaction, names)
            box.wait(lambda: "commitment_asked" in box.kinds(), "request that the PACS has taken")
            assert_refused(port, "PACS", None)
            assert_refused(port, "PACS", ClientTls(ca_path=hospital.path))
            mine = client(hospital, hospital.issue("pacs", tag="-client", key=12))
            assert send_event(port, told, 1, calling="PACS", called="SCANSIDE", tls=mine) == 0
            rows = box.store.db.all("SELECT sop_instance_uid, committed_at FROM delivery")
    assert asked <= {str(ds.SOPInstanceUID) for ds in images}
    assert {row["sop_instance_uid"] for row in rows if row["committed_at"]} == set(names)


def _file(ds):
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds
