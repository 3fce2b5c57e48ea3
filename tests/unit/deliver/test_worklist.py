"""The stage that asks the RIS: what it does wrong changes nothing but what is known of orders."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind
from tls_kit import Authority, server_side

from appliance.config import Worklist
from appliance.deliver import worklist
from appliance.deliver.orders import identifier
from appliance.deliver.retry import AssociationLost, NoAssociation, QueryRefused
from appliance.deliver.worklist import WorklistStage
from appliance.records import OrderState


class Ris:
    """Stands for an association: answers what it is told to, or fails."""

    def __init__(self):
        self.answers = []
        self.fault = None
        self.refused = ()
        self.how = AssociationLost
        self.calls = []
        self.asked = []

    def __call__(self, peer, contexts):
        self.calls.append(peer)
        if self.fault:
            raise self.fault
        return self

    def find(self, _context, keys, *, most):
        self.asked.append(keys)
        if keys in self.refused:
            raise self.how("the RIS refuses the query with status 0xA900")
        return self.answers[:most]

    def release(self):
        pass


@pytest.fixture
def ris(monkeypatch):
    made = Ris()
    monkeypatch.setattr(worklist, "Association", made)
    return made


@pytest.fixture
def stage(store, clock, ris):
    settings = Worklist(host="ris", port=104, ae_title="RIS")
    return WorklistStage(settings, store.orders, store.issues, clock, box_ae_title="BOX")


@pytest.fixture
def study(store, make_header, receive):
    def arrive(n=1, **changes):
        header = make_header(
            n,
            study_instance_uid=f"1.2.{n}",
            series_instance_uid=f"1.3.{n}",
            **{"accession_number": f"A{n}", "study_date": "20260102", **changes},
        )
        return store.studies.add_new(receive(header), ()).study_id

    return arrive


def order(store, study_id):
    return store.views.study(study_id).study.order


@pytest.mark.req("R-ORDER-01")
def test_unreachable_ris_is_asked_ever_more_seldom_becomes_an_issue_and_is_forgiven(stage, ris, study, store, clock):
    study_id = study()
    ris.fault = NoAssociation("RIS at ris:104: connection refused")
    for _ in range(200):
        stage.step()
        clock.advance(1)
    assert 5 <= len(ris.calls) <= 30
    (issue,) = store.issues.open()
    assert (issue.code, issue.severity) == ("WORKLIST_UNREACHABLE", "warning")
    assert order(store, study_id) is None
    ris.fault = None
    clock.advance(301)
    stage.step()
    assert order(store, study_id).state is OrderState.NONE
    assert store.issues.open() == []


@pytest.mark.req("R-ORDER-01")
def test_order_that_is_not_there_is_asked_for_again_for_a_while_and_then_no_more(stage, ris, study, clock):
    study()
    for _ in range(20):
        stage.step()
        clock.advance(600)
    assert len(ris.asked) == 4


@pytest.mark.req("R-ORDER-01")
def test_question_that_the_ris_refuses_does_not_keep_other_studies_from_being_asked(stage, ris, study, store, clock):
    first = study(1)
    second = study(2)
    todo = {asked.study_id: identifier(asked) for asked in store.orders.to_ask()}
    ris.refused = (todo[second],)
    for _ in range(4):
        stage.step()
        clock.advance(3)
    assert order(store, first) is not None
    assert order(store, second) is None


@pytest.mark.req("R-ORDER-01")
@pytest.mark.parametrize("how", [QueryRefused, AssociationLost])
def test_however_many_questions_the_ris_refuses_the_others_are_asked(stage, ris, study, store, clock, how):
    others = [study(n) for n in range(1, 4)]
    clock.advance(1)
    refused = [study(n) for n in range(4, 54)]
    ris.how = how
    ris.refused = {
        identifier(asked)
        for page in (store.orders.to_ask(), store.orders.to_ask(refused[-20:]), store.orders.to_ask(refused[-40:]))
        for asked in page
        if asked.study_id in refused
    }
    assert len(ris.refused) == 50
    began = clock.monotonic()
    while any(order(store, one) is None for one in others):
        stage.step()
        clock.advance(1)
        assert clock.monotonic() - began < 3600
    assert len(ris.asked) <= len(refused) + len(others), "no question was asked twice before the last was asked once"
    assert len(ris.calls) <= (4 if how is QueryRefused else 53)
    ris.refused = ()
    for _ in range(40):
        stage.step()
        clock.advance(30)
    assert all(order(store, one) is not None for one in refused), "refused ones are asked again"
    assert store.issues.open() == []


@pytest.mark.req("R-ORDER-01", "R-DELIVER-04")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_ris_that_listens_with_tls_is_asked_with_a_certificate_of_ours_and_no_other_way(
    store, clock, study, tmp_path
):
    hospital, stranger = Authority(tmp_path, "hospital"), Authority(tmp_path, "stranger", number=1)
    ours = hospital.issue("box", tag="-ours")
    certificate = {"certificate_path": ours.certificate, "key_path": ours.key}
    study_id = study()

    def found(event):
        entry = Dataset()
        entry.AccessionNumber, entry.PatientID = event.identifier.AccessionNumber, "P1"
        entry.RequestedProcedureDescription, entry.SpecificCharacterSet = "头颅CT平扫", "GB18030"
        entry.RequestedProcedurePriority = "STAT"
        yield 0xFF00, entry
        yield 0x0000, None

    ae = AE(ae_title="RIS")
    ae.add_supported_context(ModalityWorklistInformationFind)
    context = server_side(hospital.issue("ris"), client_ca=hospital.path)
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_FIND, found)])
    port = server.socket.getsockname()[1]

    def ask(tls):
        settings = Worklist(host="127.0.0.1", port=port, ae_title="RIS", timeout_s=60, tls=tls)
        stage = WorklistStage(settings, store.orders, store.issues, clock, box_ae_title="BOX")
        stage.step()
        return stage._fault

    try:
        assert ask(None)
        assert "signed by another CA" in ask({"ca_path": stranger.path, **certificate})
        assert "certificate" in ask({"ca_path": hospital.path})
        assert order(store, study_id) is None
        assert ask({"ca_path": hospital.path, **certificate}) == ""
    finally:
        server.shutdown()
    known = order(store, study_id)
    assert (known.state, known.procedure_description, known.is_stat) == (OrderState.FOUND, "头颅CT平扫", True)


def test_study_with_nothing_to_ask_by_asks_nobody(stage, ris, study, store):
    study_id = study(accession_number="", patient_id="")
    stage.step()
    assert ris.calls == []
    assert order(store, study_id).state is OrderState.NONE
