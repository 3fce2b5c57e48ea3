"""The messages that tell a result to a HIS, read by a parser that is not ours, and what acknowledgements mean."""

from __future__ import annotations

import contextlib
import unicodedata
from datetime import datetime, timezone

import hl7 as parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from statement_kit import STATEMENT

from appliance.config import HL7_VALUES, Hl7Destination
from appliance.deliver.hl7 import control_id, judge_ack, oru, question, values_of
from appliance.deliver.retry import AssociationLost, Verdict

NOW = datetime(2026, 3, 4, 5, 7, 0, tzinfo=timezone.utc)
pytestmark = pytest.mark.req("R-DELIVER-02")


def site(**changes):
    return Hl7Destination(**{"kind": "hl7", "name": "his", "host": "h", "port": 1, **changes})


def told(statement, **changes):
    data = oru(statement, site(**changes), NOW)
    return parser.parse(data.decode("gb18030" if changes.get("charset") == "gb18030" else "utf-8"))


def field(message, segment, number, component=1, n=0):
    repetition = message.segments(segment)[n][number][0]
    # Without a component the parser gives the text itself.
    return message.unescape(repetition if isinstance(repetition, str) else str(repetition[component - 1]))


def test_the_message_says_who_what_and_which_order(statement):
    message = told(statement, sending_facility="RAD", receiving_application="HIS", receiving_facility="HOSPITAL")
    header = [str(message.segment("MSH")[n]) for n in range(1, 19)]
    assert header[:6] == ["|", "^~\\&", "SCANSIDE", "RAD", "HIS", "HOSPITAL"]
    assert header[6] == "20260304050700+0000"
    assert (header[8], header[10], header[11]) == ("ORU^R01^ORU_R01", "P", "2.5.1")
    assert header[9] == control_id("2.25.1234567890")
    assert len(header[9]) == 20
    assert field(message, "PID", 3) == "P|1^x"
    assert field(message, "PID", 3, 4) == "HOSP&A"
    assert field(message, "PID", 3, 5) == "PI"
    assert (str(message.segment("PID")[7]), str(message.segment("PID")[8])) == ("19700102", "F")
    assert field(message, "OBR", 3) == field(message, "OBR", 18) == "ACC-7"
    assert field(message, "OBR", 7) == "20260304050000"
    assert str(message.segment("OBR")[25]) == "P"
    assert str(message.segment("OBR")[16]) == "^Roe^Richard"


def test_a_site_sets_fields_of_its_own_and_its_text_may_have_components_but_what_is_filled_in_may_not(statement):
    statement["order"]["accession_number"] = "A^7|x"
    message = told(
        statement, fields={"PV1-2": "O", "ORC-1": "RE", "OBR-2": "{accession_number}^PACS", "OBR-13": "{outcome}"}
    )
    assert [str(segment[0]) for segment in message][:5] == ["MSH", "PID", "PV1", "ORC", "OBR"]
    assert (str(message.segment("PV1")[2]), str(message.segment("ORC")[1])) == ("O", "RE")
    assert field(message, "OBR", 2) == "A^7|x"
    assert field(message, "OBR", 2, 2) == "PACS"
    assert str(message.segment("OBR")[13]) == statement["outcome"]
    assert (field(message, "OBR", 3), str(message.segment("OBR")[25])) == ("A^7|x", "P"), "the rest stays"


def test_what_may_stand_in_such_a_field_is_what_the_configuration_lets_pass(statement):
    assert set(values_of(statement)) == set(HL7_VALUES)


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        ("OBR-25", "F", "preliminary"),
        ("PID-3", "x", "whose result"),
        ("OBX-11", "F", "pattern"),
        ("MSH-9", "x", "pattern"),
        ("OBR-2", "{patient_name}", "nothing is known as"),
        ("OBR-2", "1\rOBX|1|ST|x||y||||||F", "pattern"),
    ],
)
def test_no_site_makes_a_result_final_or_anothers(place, text, words):
    with pytest.raises(ValidationError, match=words):
        site(fields={place: text})


def test_every_group_of_a_persons_name_is_a_repetition_with_suffix_before_prefix(statement):
    groups = [str(group) for group in told(statement).segment("PID")[5]]
    assert groups == ["Zhang^San^M^Jr^Dr^^L^A", "张^三^^^^^L^I", "zhang^san^^^^^L^P"]


def test_what_is_flagged_is_abnormal_and_nothing_is_ever_final(statement, not_analysed):
    for one in (statement, not_analysed):
        for observation in told(one).segments("OBX"):
            assert str(observation[11]) == "P"
    flags = {str(obx[5]): str(obx[8]) for obx in told(statement).segments("OBX")}
    assert flags["Suspected bleed"] == "AA"
    assert flags["12.5123"] == ""
    assert not any("mass" in value and "Not flagged" not in value for value in flags)
    volume = next(obx for obx in told(statement).segments("OBX") if str(obx[2]) == "NM")
    assert str(volume[3]) == "118565006^Volume^SCT"
    assert str(volume[6]) == "ml^^UCUM"
    assert str(volume[18]) == "head^1.0.0"
    urgency = [str(obx[5]) for obx in told(statement).segments("OBX") if "ACTIONABLE" in str(obx[3])]
    assert urgency == ["RID49480^ACR Category 1 Actionable Finding^RADLEX"]


def test_what_was_not_analysed_says_why_and_flags_nothing(not_analysed):
    message = told(not_analysed)
    values = [message.unescape(str(obx[5])) for obx in message.segments("OBX")]
    assert "Not analysed." in values
    assert "incomplete: The series is incomplete. slices 12 to 19 are missing" in values
    assert not any(str(obx[8]) for obx in message.segments("OBX"))


def test_it_says_what_it_may_be_used_for_and_what_it_replaces(statement):
    statement["predecessors"] = ["2.25.1"]
    notes = [str(nte[3]) for nte in told(statement).segments("NTE")]
    assert notes[:3] == [*statement["permitted_use"], "Not for diagnosis."]
    assert f"This message replaces what was said before (message {control_id('2.25.1')})." in notes
    assert "Looked for: Blood." in notes
    assert "Not looked for: Anything else." in notes
    assert "This result came late." in notes


@pytest.mark.parametrize(("charset", "named"), [("utf-8", "UNICODE UTF-8"), ("gb18030", "GB 18030-2000")])
def test_chinese_names_arrive_in_the_character_set_that_the_header_names(statement, charset, named):
    message = told(statement, charset=charset)
    assert str(message.segment("MSH")[18]) == named
    assert "张^三" in str(message.segment("PID")[5])


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
@pytest.mark.parametrize(
    "letter", ["\ue5e5", "\U000323af", "\u3000"], ids=["private use", "newer Unicode", "wide blank"]
)
def test_no_letter_of_a_name_is_lost_that_is_rare_or_blank(statement, charset, letter):
    statement["patient"]["name"] = f"Zhang^San=张^{letter}三"
    assert f"张^{letter}三" in str(told(statement, charset=charset).segment("PID")[5])


@given(text=st.text(max_size=60))
@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
def test_whatever_a_header_holds_stays_in_its_field(charset, text):
    one = STATEMENT | {"patient": STATEMENT["patient"] | {"id": text}, "summary": text}
    data = oru(one, site(charset=charset), NOW)
    assert b"\x0b" not in data
    assert b"\x1c" not in data
    message = parser.parse(data.decode(charset))
    plain = oru(STATEMENT, site(charset=charset), NOW)
    assert [str(s[0]) for s in message] == [str(s[0]) for s in parser.parse(plain.decode(charset))]
    wanted = "".join(c for c in text.replace("\r", " ").replace("\n", " ") if unicodedata.category(c) != "Cc")
    assert field(message, "OBX", 5, n=1) == wanted
    assert field(message, "PID", 3) == wanted


def ack(code="AA", control="C1", err=""):
    return f"MSH|^~\\&|HIS|H|SCANSIDE||20260304||ACK^R01|77|P|2.5.1\rMSA|{code}|{control}\r{err}".encode()


@pytest.mark.parametrize(
    ("code", "err", "verdict", "words"),
    [
        ("AA", "", Verdict.STORED, ""),
        ("CA", "", Verdict.STORED, ""),
        ("AE", "", Verdict.RETRY, "could not process"),
        ("CE", "ERR||PID^1^3|204^Unknown key\r", Verdict.RETRY, "does not know the patient"),
        ("AR", "ERR||MSH^1^12|203^Unsupported\r", Verdict.PARK, "does not take version 2.5.1"),
        ("CR", "ERR|PID^1^5^101\r", Verdict.PARK, "a field that it wants is missing"),
        ("AR", "ERR||x|Patient Smith^secret\r", Verdict.PARK, "it rejects the message; let"),
    ],
)
def test_an_acknowledgement_is_taken_by_its_code(code, err, verdict, words):
    judgement = judge_ack(ack(code, err=err), "C1")
    assert judgement.verdict is verdict
    assert words in judgement.words
    assert "Smith" not in judgement.words


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ack(control="C2"), "another message"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no HL7"),
        (b"", "no HL7"),
        (b"MSH|^~\\&|A\r", "acknowledges nothing"),
        (ack("XX"), "HL7 does not know"),
    ],
)
def test_what_acknowledges_nothing_of_ours_proves_nothing(data, words):
    with pytest.raises(AssociationLost, match=words):
        judge_ack(data, "C1")


@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_an_acknowledgement(data):
    with contextlib.suppress(AssociationLost):
        assert judge_ack(b"MSH|^~\\&" + data, "C1").verdict in Verdict


def test_a_message_that_is_sent_again_bears_the_same_id(statement):
    again = oru(statement, site(), datetime(2026, 3, 5, tzinfo=timezone.utc))
    assert parser.parse(again.decode()).segment("MSH")[10] == told(statement).segment("MSH")[10]
    assert control_id("2.25.1") != control_id("2.25.2")


def test_the_question_of_dest_test_tells_nothing_of_anybody():
    message = parser.parse(question(site(), "C9", NOW).decode())
    assert [str(segment[0]) for segment in message] == ["MSH", "NCK"]
