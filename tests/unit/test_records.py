"""What is said of an analysis, apart from its numbers."""

from __future__ import annotations

import json

import pytest

from appliance.errors import NotAnalysable
from appliance.records import AnalysisResult, Detail, Header, Outcome, Reason
from appliance.store.jsonable import dump, load
from appliance.triage.protocol import Failed, encode, from_worker
from engines.errors import ContentError
from engines.message import Message

SAID = Detail("{count} of {total} at {gap} mm ({image})", {"count": 3, "total": 12, "gap": 2.5, "image": "4/1"})


def test_a_sentence_is_told_in_any_language_with_its_values_in_its_own_order():
    assert str(SAID) == "3 of 12 at 2.5 mm (4/1)"
    assert SAID.told({SAID.text: "{total} 中 {count}"}.__getitem__) == "12 中 3"


@pytest.mark.parametrize("text", ["{count.__class__}", "{count:999999999}", "{count!r}", "{", "{0}", "{other} %(x)s %"])
def test_a_text_from_a_worker_is_no_format_to_be_carried_out(text):
    assert str(Detail(text, {"count": 1})) == text


def test_numbers_are_short_and_whole_ones_have_no_decimals():
    values = {"a": 2.0, "b": 0.30000000000000004, "c": 12}
    assert str(Detail("{a} {b} {c}", values)) == str(Message("{a} {b} {c}", values)) == "2 0.3 12"


def test_errors_say_in_english_what_they_carry_for_translation():
    gap = NotAnalysable(Reason.INCOMPLETE, "{count} slices are missing", count=2)
    assert (str(gap), gap.details) == ("2 slices are missing", (Detail("{count} slices are missing", {"count": 2}),))
    assert str(NotAnalysable(Reason.QUALITY, [Detail("dark"), Detail("bright")])) == "dark; bright"
    blank = ContentError("quality", "{count} pictures", count=2)
    assert (str(blank), blank.message) == ("2 pictures", Message("{count} pictures", {"count": 2}))


def test_sentences_come_whole_through_the_socket_and_the_database():
    failed = from_worker(encode(Failed(analysis_id=1, reason=Reason.INCOMPLETE, details=(SAID,)))[4:])
    assert failed.details == (SAID,)
    assert [type(value) for value in failed.details[0].values.values()] == [int, int, float, str]
    result = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.INCOMPLETE, details=failed.details)
    kept = load(AnalysisResult, dump(result))
    assert kept == result
    assert kept.detail == "3 of 12 at 2.5 mm (4/1)"


def test_a_header_that_was_kept_before_exposure_was_read_still_loads(make_header):
    text = dump(make_header(1))
    old = {key: value for key, value in json.loads(text).items() if "exposure" not in key and "deviation" not in key}
    assert len(old) == len(json.loads(text)) - 3
    assert load(Header, json.dumps(old)) == load(Header, text)
