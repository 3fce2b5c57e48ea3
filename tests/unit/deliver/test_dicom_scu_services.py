"""Requests of other services than C-STORE, answered by pynetdicom."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind, StorageCommitmentPushModel
from scp_kit import encode

from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.retry import AssociationLost, ContextRefused, QueryRefused
from appliance.dicom import commands

#: pynetdicom leaves the socket of an association that its peer aborted to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
EXPLICIT = "1.2.840.10008.1.2.1"
WORKLIST = (ModalityWorklistInformationFind, EXPLICIT)
COMMITMENT = (StorageCommitmentPushModel, EXPLICIT)


def item(number):
    ds = Dataset()
    ds.PatientID, ds.AccessionNumber = f"P{number}", f"A{number}"
    return ds


@pytest.fixture
def ris():
    """``ris(matches, end)``: a worklist and commitment SCP; returns its port and what it was asked."""
    running = []

    def start(matches=0, end=0x0000, commit=0x0000):
        asked = []

        def on_find(event):
            asked.append(event.identifier)
            for number in range(matches):
                yield 0xFF00, item(number)
            yield end, None

        def on_action(event):
            asked.append((event.action_type, event.action_information))
            return commit, None

        ae = AE(ae_title="RIS")
        for uid, _ in (WORKLIST, COMMITMENT):
            ae.add_supported_context(uid, EXPLICIT)
        server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, on_find), (evt.EVT_N_ACTION, on_action)]
        )
        running.append(server)
        return server.server_address[1], asked

    yield start
    for server in running:
        server.shutdown()


def associate(port, *contexts):
    peer = Peer(host="127.0.0.1", port=port, called_ae="RIS", calling_ae="BOX", timeout_s=60)
    return Association(peer, contexts)


@pytest.mark.parametrize("matches", [0, 1, 40])
def test_every_match_of_a_query_is_given_back_as_it_came(ris, matches):
    port, asked = ris(matches)
    association = associate(port, WORKLIST)
    found = association.find(WORKLIST, encode(item(7)), most=100)
    association.release()
    assert found == [encode(item(number)) for number in range(matches)]
    assert asked[0].PatientID == "P7"


def test_more_matches_than_anybody_asked_for_end_the_query(ris):
    port, _ = ris(12)
    with pytest.raises(AssociationLost, match="more than 10 matches"):
        associate(port, WORKLIST).find(WORKLIST, encode(item(7)), most=10)


def test_a_query_that_fails_is_no_query_without_matches_and_the_next_may_follow(ris):
    port, asked = ris(1, end=0xA700)
    association = associate(port, WORKLIST)
    for _ in range(2):
        with pytest.raises(QueryRefused, match="0xA700"):
            association.find(WORKLIST, encode(item(7)), most=10)
    association.release()
    assert len(asked) == 2


@pytest.mark.parametrize("status", [0x0000, 0x0110])
def test_an_action_is_asked_with_its_type_and_data_set_and_its_status_told(ris, status):
    port, asked = ris(commit=status)
    association = associate(port, COMMITMENT)
    told = association.ask(COMMITMENT, commands.N_ACTION_RQ, "1.2.840.10008.1.20.1.1", encode(item(3)), type_id=1)
    association.release()
    assert told == status
    ((action_type, ds),) = asked
    assert (action_type, ds.PatientID) == (1, "P3")


def test_a_service_that_the_peer_does_not_give_is_said(ris):
    port, _ = ris()
    other = ("1.2.840.10008.3.1.2.3.3", EXPLICIT)
    association = associate(port, other, WORKLIST)
    with pytest.raises(ContextRefused, match="Modality Performed Procedure Step"):
        association.ask(other, commands.N_SET_RQ, "1.2.3", encode(item(1)))
    association.release()
