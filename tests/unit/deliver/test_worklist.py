"""The stage that asks the RIS: what it does wrong changes nothing but what is known of orders."""

from __future__ import annotations

import pytest

from appliance.config import Worklist
from appliance.deliver import worklist
from appliance.deliver.orders import identifier
from appliance.deliver.retry import AssociationLost, NoAssociation
from appliance.deliver.worklist import WorklistStage
from appliance.records import OrderState


class Ris:
    """Stands for an association: answers what it is told to, or fails."""

    def __init__(self):
        self.answers = []
        self.fault = None
        self.refused = ()
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
            raise AssociationLost("the RIS refuses the query with status 0xA900")
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


def test_study_with_nothing_to_ask_by_asks_nobody(stage, ris, study, store):
    study_id = study(accession_number="", patient_id="")
    stage.step()
    assert ris.calls == []
    assert order(store, study_id).state is OrderState.NONE
