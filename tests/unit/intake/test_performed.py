"""Performed procedure steps over a real association, reported by pynetdicom as a scanner would."""

from __future__ import annotations

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep as Step
from scp_kit import running_scp

from appliance.clock import FakeClock
from appliance.intake.performed import PerformedSteps, listed_images
from appliance.records import StepState
from appliance.simulate.scanner import give_answers_back
from appliance.store import Store


@pytest.fixture
def modality(tmp_path):
    """A box that takes steps, and an association of a scanner with it."""
    store = Store.open(tmp_path / "state", FakeClock(), reserve_bytes=0)
    woken = []
    services = PerformedSteps(store.steps, wake=lambda: woken.append(1)).services()
    with running_scp(tmp_path, services=services) as box:
        ae = AE(ae_title="CT1")
        ae.add_requested_context(Step)
        assoc = ae.associate("127.0.0.1", box.port, ae_title="BOX7")
        give_answers_back(assoc)
        assoc.store, assoc.woken = store, woken
        yield assoc
        assoc.release()
    store.close()


def begun(state="IN PROGRESS"):
    ds = Dataset()
    ds.PerformedProcedureStepStatus = state
    ds.PerformedProcedureStepID = "1"
    ds.ScheduledStepAttributesSequence = [Dataset()]
    ds.PerformedSeriesSequence = []
    return ds


def ended(state="COMPLETED", series="1.2.3", uids=("1.2.3.1", "1.2.3.2")):
    ds = Dataset()
    ds.PerformedProcedureStepStatus = state
    one = Dataset()
    one.SeriesInstanceUID = series
    one.ReferencedImageSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        one.ReferencedImageSequence.append(item)
    ds.PerformedSeriesSequence = [one]
    return ds


def create(assoc, ds, uid):
    return assoc.send_n_create(ds, Step, uid)[0]


def set_(assoc, ds, uid):
    return assoc.send_n_set(ds, Step, uid)[0]


@pytest.mark.req("R-MPPS-02")
def test_step_begins_goes_on_and_ends_with_its_list(modality):
    uid = generate_uid()
    assert create(modality, begun(), uid).Status == 0
    assert modality.store.steps.state(uid) is StepState.IN_PROGRESS
    assert set_(modality, ended("IN PROGRESS", uids=("1.2.3.1",)), uid).Status == 0
    assert set_(modality, ended(), uid).Status == 0
    assert modality.store.steps.state(uid) is StepState.COMPLETED
    rows = modality.store.db.all("SELECT sop_instance_uid FROM performed_image ORDER BY 1")
    assert [row[0] for row in rows] == ["1.2.3.1", "1.2.3.2"]
    assert len(modality.woken) == 3


@pytest.mark.req("R-MPPS-02")
@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED"])
def test_ended_step_refuses_a_change_with_the_error_id_of_the_standard(modality, state):
    uid = generate_uid()
    create(modality, begun(), uid)
    set_(modality, ended(state), uid)
    told = set_(modality, ended("IN PROGRESS", uids=()), uid)
    assert (told.Status, told.ErrorID) == (0x0110, 0xA506)
    assert told.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert modality.store.steps.state(uid) == state
    assert len(modality.store.db.all("SELECT * FROM performed_image")) == 2


@pytest.mark.req("R-MPPS-02")
def test_step_is_refused_that_exists_that_is_unknown_or_whose_state_makes_no_sense(modality):
    uid = generate_uid()
    assert create(modality, begun("COMPLETED"), uid).Status == 0x0106
    nameless = begun()
    del nameless.PerformedProcedureStepStatus
    assert create(modality, nameless, uid).Status == 0x0120
    assert create(modality, begun(), uid).Status == 0
    assert create(modality, begun(), uid).Status == 0x0111
    assert set_(modality, ended(), generate_uid()).Status == 0x0112
    assert set_(modality, ended("FINISHED"), uid).Status == 0x0106
    assert modality.store.steps.state(uid) is StepState.IN_PROGRESS


def test_list_leaves_out_what_is_no_uid_and_is_none_where_nothing_is_listed():
    ds = ended(uids=("1.2.3.1",))
    ds.PerformedSeriesSequence[0].ReferencedImageSequence.append(Dataset())
    ds.PerformedSeriesSequence.append(Dataset())
    assert listed_images(ds) == {("1.2.3", "1.2.3.1")}
    assert listed_images(Dataset()) is None


@pytest.mark.parametrize("keyword", ["PerformedSeriesSequence", "ReferencedImageSequence"])
def test_list_that_is_sent_as_a_number_lists_nothing(keyword):
    ds = ended()
    item = ds if keyword in ds else ds.PerformedSeriesSequence[0]
    del item[keyword]
    item.add(DataElement(keyword, "US", 5))  # Explicit VR lets a peer say so
    assert listed_images(ds) == set()
