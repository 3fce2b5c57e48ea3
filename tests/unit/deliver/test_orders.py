"""Which entry of a worklist is the study's, and what may follow from it."""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from appliance.deliver.orders import Entry, asks_by, identifier, judge, read_entry
from appliance.errors import RejectedInstance
from appliance.records import Identity, OrderState
from appliance.store.orders import OrderView, ToAsk, with_order

UID = "1.2.3"


def asked(accession="", patient="P1", issuer="", birth="19700101", date="20260102", modalities=("CT",), uid=UID):
    identity = Identity(
        study_instance_uid=uid,
        accession_number=accession,
        patient_id=patient,
        issuer_of_patient_id=issuer,
        patient_birth_date=birth,
    )
    return ToAsk(study_id=1, identity=identity, identity_revision=1, study_date=date, modalities=modalities, asked=0)


def entry(**changes):
    fields = {
        "accession_number": "A1",
        "patient_id": "P1",
        "patient_birth_date": "19700101",
        "study_instance_uid": UID,
        "procedure_description": "CT head",
        "procedure_id": "RP1",
        "priority": "STAT",
        "modality": "CT",
    }
    return Entry(**{**fields, **changes})


@pytest.mark.req("R-ORDER-01")
def test_accession_number_is_asked_by_first_then_patient_and_day_and_nothing_that_would_match_others():
    assert asks_by(asked(accession="A1")) == "accession"
    assert asks_by(asked()) == "patient"
    assert asks_by(asked(accession="A*")) == "patient"
    assert asks_by(asked(patient="?")) == ""
    assert asks_by(asked(date="")) == ""


@pytest.mark.req("R-ORDER-01")
def test_keys_ask_for_every_attribute_that_is_used_and_for_the_scheduled_day():
    ds = read_dataset(io.BytesIO(identifier(asked(patient="病人1"))), is_implicit_VR=True, is_little_endian=True)
    assert (ds.PatientID, ds.SpecificCharacterSet, ds.AccessionNumber) == ("病人1", "ISO_IR 192", "")
    assert ds.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate == "20260102"
    assert "RequestedProcedurePriority" in ds
    by_accession = read_dataset(
        io.BytesIO(identifier(asked(accession="A1"))), is_implicit_VR=True, is_little_endian=True
    )
    assert by_accession.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate == ""
    assert by_accession.PatientID is None or by_accession.PatientID == ""


@pytest.mark.req("R-ORDER-01")
def test_order_of_the_accession_number_gives_priority_and_procedure():
    answer = judge(asked(accession="A1"), [entry(study_instance_uid="9.9"), entry(accession_number="A2")])
    assert (answer.state, answer.priority, answer.procedure_description) == (OrderState.FOUND, "STAT", "CT head")
    assert answer.accession_number == ""


@pytest.mark.req("R-ORDER-03")
@pytest.mark.parametrize(
    ("accession", "changes"),
    [
        ("A1", {"patient_id": "P2"}),
        ("A1", {"patient_birth_date": "19700102"}),
        ("A1", {"issuer_of_patient_id": "OTHER"}),
        ("", {"patient_birth_date": "19700102"}),
        ("", {"issuer_of_patient_id": "OTHER"}),
    ],
)
def test_order_of_another_patient_is_told_and_nothing_of_it_is_used(accession, changes):
    answer = judge(asked(accession=accession, issuer="HERE"), [entry(**changes)])
    assert answer.state is OrderState.OTHER_PATIENT
    assert (answer.priority, answer.procedure_description, answer.accession_number) == ("", "", "")


@pytest.mark.req("R-ORDER-02")
def test_missing_accession_number_comes_from_the_order_of_this_very_study():
    other = entry(accession_number="A2", study_instance_uid="9.9", procedure_description="CT chest")
    answer = judge(asked(), [other, entry()])
    assert (answer.accession_number, answer.procedure_description) == ("A1", "CT head")


@pytest.mark.req("R-ORDER-02")
def test_order_of_another_procedure_than_the_images_name_gives_no_accession_number():
    mine = asked()
    mine = replace(mine, identity=replace(mine.identity, requested_procedure_id="RP2"))
    assert judge(mine, [entry()]).accession_number == ""


@pytest.mark.req("R-ORDER-02")
def test_order_that_only_fits_patient_day_and_modality_gives_its_priority_but_no_accession_number():
    answer = judge(asked(), [entry(study_instance_uid="9.9")])
    assert (answer.state, answer.priority, answer.accession_number) == (OrderState.FOUND, "STAT", "")


@pytest.mark.req("R-ORDER-02")
def test_several_orders_that_may_be_meant_give_nothing():
    two = [entry(study_instance_uid="9.8"), entry(study_instance_uid="9.9", accession_number="A2")]
    assert judge(asked(), two).state is OrderState.SEVERAL
    assert judge(asked(), two).priority == ""
    # Of another kind of examination nobody speaks.
    assert judge(asked(modalities=("CR",)), [two[0], entry(study_instance_uid="9.7", modality="DX")]).procedure_id == (
        "RP1"
    )


fields = st.fixed_dictionaries(
    {
        "accession_number": st.sampled_from(["", "A1", "A2"]),
        "patient_id": st.sampled_from(["", "P1", "P2"]),
        "issuer_of_patient_id": st.sampled_from(["", "HERE", "THERE"]),
        "patient_birth_date": st.sampled_from(["", "19700101", "19800101"]),
        "study_instance_uid": st.sampled_from(["", UID, "9.9"]),
        "priority": st.sampled_from(["", "STAT", "HIGH", "ROUTINE", "now!"]),
        "modality": st.sampled_from(["", "CT", "DX"]),
    }
)


@pytest.mark.req("R-ORDER-02")
@given(entries=st.lists(fields, max_size=5), accession=st.sampled_from(["", "A1"]))
def test_an_accession_number_is_only_ever_that_of_this_patients_order_of_this_study(entries, accession):
    mine = asked(accession=accession, issuer="HERE")
    answer = judge(mine, [Entry(**one) for one in entries])
    assert answer.priority in {"", "STAT", "HIGH", "ROUTINE"}
    if answer.accession_number:
        own = [one for one in entries if one["study_instance_uid"] == UID and one["patient_id"] == "P1"]
        sure = {
            one["accession_number"]
            for one in own
            if one["issuer_of_patient_id"] in {"", "HERE"} and one["patient_birth_date"] in {"", "19700101"}
        }
        assert not accession
        assert sure == {answer.accession_number}


@pytest.mark.req("R-ORDER-02")
def test_results_carry_the_orders_accession_number_only_where_the_images_have_none():
    order = OrderView(
        state=OrderState.FOUND,
        asked_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        priority="",
        procedure_id="RP1",
        procedure_description="",
        accession_number="A1",
    )
    assert with_order(asked().identity, order).accession_number == "A1"
    assert with_order(asked(accession="B").identity, order).accession_number == "B"
    assert with_order(asked().identity, None) == asked().identity


@pytest.mark.req("R-ORDER-01")
@pytest.mark.parametrize(("charset", "codec", "assumed"), [("GB18030", "gb18030", ""), ("", "gb18030", "GB18030")])
def test_text_of_an_entry_is_read_as_declared_or_as_the_site_says_that_it_is(charset, codec, assumed):
    words = "头颅CT".encode(codec)
    charset_bytes = charset.encode().ljust(len(charset) + len(charset) % 2)
    words += b" " * (len(words) % 2)
    data = struct.pack("<HHL", 8, 5, len(charset_bytes)) + charset_bytes
    data += struct.pack("<HHL", 0x32, 0x1060, len(words)) + words
    assert read_entry(data, assumed).procedure == "头颅CT"


@given(st.binary(max_size=300))
def test_what_a_peer_sends_is_an_entry_or_a_refusal(data):
    with contextlib.suppress(RejectedInstance):
        assert isinstance(read_entry(data), Entry)
