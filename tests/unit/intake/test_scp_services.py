"""N-services over a real association, asked by pynetdicom."""

from __future__ import annotations

import contextlib

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, ModalityPerformedProcedureStep, StorageCommitmentPushModel
from scp_kit import RawPeer, data_pdu, data_pdus, running_scp

from appliance.dicom import commands
from appliance.errors import StoreError
from appliance.simulate.scanner import give_answers_back

INSTANCE = "1.2.840.10008.1.20.1.1"


class Service:
    """Remembers what it was asked, and answers what it is told to."""

    def __init__(self, status=0):
        self.status = status
        self.asked = []

    def __call__(self, peer, request, ds):
        if isinstance(self.status, Exception):
            raise self.status
        self.asked.append((peer, request, ds))
        return self.status


@pytest.fixture
def box(tmp_path):
    commit = Service()
    with running_scp(tmp_path, services={StorageCommitmentPushModel: {commands.N_ACTION_RQ: commit}}) as box:
        box.commit = commit
        yield box


def associate(box, *classes):
    ae = AE(ae_title="CT1")
    for uid in classes:
        ae.add_requested_context(uid)
    assoc = ae.associate("127.0.0.1", box.port, ae_title="BOX7")
    give_answers_back(assoc)
    return assoc


def wanted(count):
    ds = Dataset()
    ds.TransactionUID = "1.2.3"
    ds.ReferencedSOPSequence = [Dataset() for _ in range(count)]
    for n, item in enumerate(ds.ReferencedSOPSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.{n}"
    return ds


@pytest.mark.req("R-CUSTODY-01")
@pytest.mark.parametrize("count", [1, 3000])
def test_a_request_comes_with_its_whole_data_set_and_who_asked_under_which_title(box, count):
    assoc = associate(box, StorageCommitmentPushModel)
    status, _ = assoc.send_n_action(wanted(count), 1, StorageCommitmentPushModel, INSTANCE)
    assoc.release()
    assert status.Status == 0
    ((peer, request, ds),) = box.commit.asked
    assert (peer.calling_ae, peer.called_ae) == ("CT1", "BOX7")
    assert (request.command_field, request.type_id, request.sop_instance_uid) == (commands.N_ACTION_RQ, 1, INSTANCE)
    assert len(ds.ReferencedSOPSequence) == count


@pytest.mark.parametrize(("status", "answer"), [(0x0110, 0x0110), (StoreError("disk"), 0x0110)])
def test_a_service_that_cannot_act_says_so_and_the_association_goes_on(box, status, answer):
    box.commit.status = status
    assoc = associate(box, StorageCommitmentPushModel, "1.2.840.10008.1.1")
    told, _ = assoc.send_n_action(wanted(1), 1, StorageCommitmentPushModel, INSTANCE)
    assert told.Status == answer
    assert assoc.send_c_echo().Status == 0
    assoc.release()


def test_a_service_that_the_box_does_not_give_is_refused_at_negotiation(box):
    assoc = associate(box, ModalityPerformedProcedureStep, "1.2.840.10008.1.1")
    assert [cx.abstract_syntax for cx in assoc.accepted_contexts] == ["1.2.840.10008.1.1"]
    assoc.release()


#: Far more items than any list of images has: they would take gigabytes and minutes.
_FLOOD = b"\x08\x00\x99\x11" + (8 * 250_000).to_bytes(4, "little") + b"\xfe\xff\x00\xe0\0\0\0\0" * 250_000


@pytest.mark.parametrize("data", [b"\x08\x00\x99\x11\xff\xff\xff\x7f", b"\0" * 7, _FLOOD])
def test_a_data_set_that_cannot_be_read_is_an_invalid_argument(box, data):
    request = commands.encode_request(
        commands.N_ACTION_RQ, 1, StorageCommitmentPushModel, INSTANCE, type_id=1, has_data_set=True
    )
    with RawPeer(box.port) as peer:
        peer.associate((StorageCommitmentPushModel, "1.2.840.10008.1.2"))
        peer.send(data_pdu(1, request, command=True))
        for pdu in data_pdus(1, data, 16_000):
            peer.send(pdu)
        assert peer.status() == commands.INVALID_ARGUMENT
    assert box.commit.asked == []


#: One element as large as a request may nearly be.
_LARGE = b"\x09\x00\x01\x10" + (7 << 20).to_bytes(4, "little") + bytes(7 << 20)


def begin(box, stack, data):
    """A peer that has sent all of a request but its last PDU, which is returned with it."""
    peer = stack.enter_context(RawPeer(box.port))
    peer.associate((StorageCommitmentPushModel, "1.2.840.10008.1.2"))
    request = commands.encode_request(
        commands.N_ACTION_RQ, 1, StorageCommitmentPushModel, INSTANCE, type_id=1, has_data_set=True
    )
    peer.send(data_pdu(1, request, command=True))
    *most, last = data_pdus(1, data, 16_000)
    for pdu in most:
        peer.send(pdu)
    return peer, last


def end(peer, last):
    peer.send(last)
    return peer.status()


@pytest.mark.req("R-CUSTODY-05")
def test_what_all_peers_together_send_to_services_takes_no_more_memory_than_four_of_the_largest(box, wait_until):
    budget = box.scp.parts.budget
    free = budget._free
    with contextlib.ExitStack() as stack:
        first = [begin(box, stack, _LARGE) for _ in range(4)]
        wait_until(lambda: free - budget._free >= 4 * (len(_LARGE) - 16_000))
        late = begin(box, stack, _LARGE)
        assert end(*late) == commands.RESOURCE_LIMITATION
        assert free - budget._free <= 4 * len(_LARGE)
        assert "others had the memory" in box.sink.refusals[-1].message
        assert [end(*one) for one in first[:2]] == [0, 0]
        again = begin(box, stack, _LARGE)
        assert end(*again) == 0, "what was refused may be asked again"
        for peer, _ in first[2:]:
            peer.sock.close()  # in the middle of their data sets
        wait_until(lambda: budget._free == free)
    assert len(box.commit.asked) == 3


@pytest.mark.req("R-CUSTODY-05")
def test_a_request_that_is_too_large_gives_its_memory_back_while_it_still_comes(box, wait_until):
    budget = box.scp.parts.budget
    free = budget._free
    with contextlib.ExitStack() as stack:
        peer, last = begin(box, stack, 3 * _LARGE)
        wait_until(lambda: budget._free == free)
        assert end(peer, last) == commands.PROCESSING_FAILURE
    assert budget._free == free


def test_the_store_is_told_on_which_associations_images_may_come(box):
    for classes in ([StorageCommitmentPushModel, "1.2.840.10008.1.1"], [StorageCommitmentPushModel, CTImageStorage]):
        associate(box, *classes).release()
    assert [one.can_store for one in box.sink.opened] == [False, True]
