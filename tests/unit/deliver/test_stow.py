"""What an answer to STOW-RS says of the one object that was sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.deliver.http import Reply
from appliance.deliver.retry import Fault, Verdict
from appliance.deliver.stow import judge_stow

UID = "2.25.77"
pytestmark = pytest.mark.req("R-DELIVER-01")


def answer(*, failed=None, stored=None, warning=None):
    ds = {}
    if failed is not None:
        uid, reason = failed
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            item["00081197"] = {"vr": "US", "Value": [reason]}
        ds["00081198"] = {"vr": "SQ", "Value": [item]}
    if stored is not None:
        item = {"00081155": {"vr": "UI", "Value": [stored]}}
        if warning is not None:
            item["00081196"] = {"vr": "US", "Value": [warning]}
        ds["00081199"] = {"vr": "SQ", "Value": [item]}
    return json.dumps(ds).encode()


@pytest.mark.parametrize(
    ("status", "body", "verdict", "words"),
    [
        (200, answer(stored=UID), Verdict.STORED, ""),
        (200, answer(stored=UID, warning=0xB000), Verdict.STORED, ""),
        (200, b"", Verdict.STORED, ""),
        (200, f"<NativeDicomModel>{UID}</NativeDicomModel>".encode(), Verdict.STORED, ""),
        (200, b"<html>Please sign in</html>", Verdict.RETRY, "does not say what became"),
        (202, answer(stored=UID), Verdict.STORED, ""),
        (202, b"", Verdict.RETRY, "does not say what became"),
        (202, answer(failed=(UID, 0xA700)), Verdict.RETRY, "0xA700: it is out of resources"),
        (202, answer(failed=(UID, 0x0110)), Verdict.RETRY, "0x0110"),
        (202, answer(failed=(UID, 0x0111)), Verdict.STORED, "stored already"),
        (202, answer(failed=(UID, 0xB000)), Verdict.RETRY, "did not store"),
        (202, answer(failed=(UID, None)), Verdict.RETRY, "says no reason"),
        (409, answer(failed=(UID, 0x0122)), Verdict.PARK, "does not take this SOP Class"),
        (409, answer(failed=(UID, 0xC122)), Verdict.PARK, "does not take this Transfer Syntax"),
        (409, answer(failed=(UID, 0xA900)), Verdict.PARK, "does not match"),
        (409, answer(failed=(UID, 0xC000)), Verdict.PARK, "cannot understand"),
        (409, answer(failed=("2.25.1", 0xC000)), Verdict.RETRY, "does not say what became"),
        (400, b"", Verdict.PARK, "cannot understand"),
        (413, b"", Verdict.PARK, "too large"),
        (415, b"", Verdict.PARK, "in this form"),
        (429, b"", Verdict.RETRY, "too much"),
        (500, b"", Verdict.RETRY, "look at the server's log"),
        (503, b"", Verdict.RETRY, "busy"),
        (507, b"", Verdict.RETRY, "disk"),
        (599, b"", Verdict.RETRY, "failure"),
    ],
)
def test_answers(status, body, verdict, words):
    judgement = judge_stow(Reply(status=status, body=body), UID)
    assert judgement.verdict is verdict
    assert words in judgement.words


@pytest.mark.req("R-DELIVER-07")
@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (409, b"", Fault.OBJECT),
        (409, answer(stored="2.25.1"), Fault.OBJECT),
        (202, answer(failed=(UID, None)), Fault.OBJECT),
        (202, answer(failed=(UID, 0xB000)), Fault.OBJECT),
        (202, answer(failed=(UID, 0x0110)), Fault.EITHER),
        (202, b"", Fault.EITHER),
        (500, b"", Fault.EITHER),
        (507, b"", Fault.EITHER),
        (202, answer(failed=(UID, 0xA700)), Fault.DESTINATION),
        (429, b"", Fault.DESTINATION),
    ],
)
def test_what_is_tried_again_says_whose_fault_it_may_be(status, body, fault):
    judgement = judge_stow(Reply(status=status, body=body), UID)
    assert (judgement.verdict, judgement.fault) == (Verdict.RETRY, fault)


def test_a_correction_that_the_server_has_in_an_earlier_version_is_parked():
    judgement = judge_stow(Reply(status=409, body=answer(failed=(UID, 0x0111))), UID, version_n=2)
    assert judgement.verdict is Verdict.PARK


_KEYS = st.sampled_from(["00081198", "00081199", "Value", "00081155"])
_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
)


@given(body=st.binary(max_size=80) | _VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_body_breaks_the_reading_and_only_what_names_the_object_stores_it(body):
    judgement = judge_stow(Reply(status=202, body=body), UID)
    assert judgement.verdict is Verdict.RETRY or UID.encode() in body


def test_a_body_nested_without_end_is_no_answer():
    assert judge_stow(Reply(status=202, body=b"[" * 100_000), UID).verdict is Verdict.RETRY
