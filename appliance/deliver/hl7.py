r"""HL7 v2.5.1 text: an ORU^R01 out of a statement, and what an acknowledgement says. Pure, no sockets.

Preliminary throughout: OBR-25 and OBX-11 are P and never F, because no person has looked; AA in OBX-8 marks what was
flagged. What was not flagged gets no value and no flag: it is not excluded. The control id follows from the SOP
Instance UID of the statement, so that a receiver knows a message that is sent again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from appliance.config import Hl7Destination
from appliance.deliver.retry import AssociationLost, Judgement, Verdict
from appliance.dicom import codes
from appliance.records import Detail

#: Table 0211 for MSH-18, and what Python calls it.
CHARSETS = {"utf-8": ("UNICODE UTF-8", "utf-8"), "gb18030": ("GB 18030-2000", "gb18030")}
_SCHEME = "99SCANSIDE"
_PLACE = re.compile(r"\{([^{}]*)\}")
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "})
#: And nothing else: a rare letter of a name, which Python may not know yet, is no control character.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: HL7 calls SNOMED CT so too, DICOM's own codes DCM (table 0396).
_SCHEMES = {"SCT": "SCT", "DCM": "DCM", "RADLEX": "RADLEX", "UCUM": "UCUM"}


def control_id(sop_instance_uid: str) -> str:
    """MSH-10 of the message that tells a statement: 20 letters, the same at every attempt."""
    return "SCS" + hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:17].upper()


def oru(statement: dict[str, Any], site: Hl7Destination, now: datetime, gettext: Callable[[str], str] = str) -> bytes:
    """The ORU^R01 that tells a statement (HL7 v2.5.1 §7.3.1), encoded as the site wants it.

    Args:
        statement: As ``report.statement.build_statement`` makes it, or ``language.Language`` tells it.
        site: Names and character set.
        now: For MSH-7.
        gettext: Of the language in which the statement is told; codes and their meanings are English.
    """
    segments = [
        _msh(site, "ORU^R01^ORU_R01", control_id(statement["id"]), now),
        *_with_own_fields([_pid(statement["patient"]), _obr(statement)], statement, site),
        *_notes(statement, gettext),
        *(_join("OBX", n, *fields) for n, fields in enumerate(_observations(statement), 1)),
    ]
    return _encoded(segments, site)


def question(site: Hl7Destination, control: str, now: datetime) -> bytes:
    """A message that means nothing to anybody (NMQ^N01, what is your clock?): whoever knows HL7 acknowledges it."""
    return _encoded([_msh(site, "NMQ^N01^NMQ_N01", control, now), _join("NCK", now.strftime("%Y%m%d%H%M%S"))], site)


def judge_ack(data: bytes, control: str) -> Judgement:
    """What an acknowledgement means for the message (HL7 v2.5.1 §2.13.8); of its own words none are taken.

    Args:
        data: What came between the frame's characters.
        control: MSH-10 of the message.

    Raises:
        AssociationLost: It is no acknowledgement of this message.
    """
    # Delimiters, codes and the control id are ASCII in every character set that HL7 allows.
    lines = [line for line in data.decode("latin-1").replace("\n", "\r").split("\r") if line]
    if not lines or not lines[0].startswith("MSH") or len(lines[0]) < 8:
        raise AssociationLost("what answers is no HL7; check host and port")
    separator = lines[0][3]
    fields = {line[:3]: line.split(separator) for line in reversed(lines[1:])}
    answer = fields.get("MSA", [])
    if len(answer) < 3:
        raise AssociationLost("it answers with an HL7 message that acknowledges nothing")
    if answer[2].strip() != control:
        raise AssociationLost("it acknowledges another message than ours")
    code = answer[1].strip().upper()
    if code in {"AA", "CA"}:
        return Judgement(verdict=Verdict.STORED)
    words = _why(fields.get("ERR", []), lines[0])
    if code in {"AE", "CE"}:
        return Judgement(verdict=Verdict.RETRY, words=f"{code}: it could not process the message{words}")
    if code in {"AR", "CR"}:
        mend = "; let the receiver accept it, then retry"
        return Judgement(verdict=Verdict.PARK, words=f"{code}: it rejects the message{words}{mend}")
    raise AssociationLost("it answers with an acknowledgement that HL7 does not know")


def _why(err: list[str], msh: str) -> str:
    """ERR-3, or ERR-1 before version 2.5 (table 0357), in our words; what is not in the table is not repeated."""
    component = msh[4]
    for field in (err[3:4] or [""])[0], (err[1:2] or [""])[0]:
        for part in field.replace("&", component).split(component):
            if part.strip() in _ERRORS:
                return f" ({part.strip()}: {_ERRORS[part.strip()]})"
    return ""


#: Table 0357.
_ERRORS = {
    "100": "segments in another order than it wants",
    "101": "a field that it wants is missing",
    "102": "a value of another type than it wants",
    "103": "a value that is not in its table",
    "200": "it does not take this type of message",
    "201": "it does not take this event",
    "202": "it does not take this processing id; see processing_id",
    "203": "it does not take version 2.5.1",
    "204": "it does not know the patient, study or order",
    "205": "it has this message already",
    "206": "its record is locked",
    "207": "an error inside it",
}


# -- segments --------------------------------------------------------------------------------------------------------


def _msh(site: Hl7Destination, what: str, control: str, now: datetime) -> str:
    head = [
        site.sending_application,
        site.sending_facility,
        site.receiving_application,
        site.receiving_facility,
        now.strftime("%Y%m%d%H%M%S%z"),
        "",
        what,
        control,
        site.processing_id,
        "2.5.1",
    ]
    return "|".join(["MSH|^~\\&", *head, *[""] * 5, CHARSETS[site.charset][0]])


def _pid(patient: dict[str, str]) -> str:
    number = _join_components(patient["id"], "", "", patient["issuer"], "PI")
    sex = patient["sex"] if patient["sex"] in {"M", "F", "O"} else "U"
    birth = patient["birth_date"] if patient["birth_date"].isdigit() else ""
    return _join("PID", 1, "", number, "", _names(patient["name"]), "", birth, sex)


def _names(name: str) -> str:
    """XPN of a DICOM person name (PS3.5 §6.2.1): its groups are repetitions, suffix comes before prefix."""
    shown = []
    for group, kind in zip(name.split("="), "AIP", strict=False):
        family, given, middle, prefix, suffix = (group.split("^") + [""] * 5)[:5]
        if any((family, given, middle)):
            shown.append(_join_components(family, given, middle, suffix, prefix, "", "L", kind))
    return "~".join(shown)


def _person(name: str) -> str:
    """XCN of a DICOM person name, without a number."""
    alphabetic = name.split("=", maxsplit=1)[0]
    return _join_components("", *alphabetic.split("^")[:3]) if alphabetic else ""


def _obr(statement: dict[str, Any]) -> str:
    package, order, study = statement["package"], statement["order"], statement["study"]
    accession = _text(order["accession_number"])
    fields = [""] * 25
    fields[0] = "1"
    fields[2] = accession
    fields[3] = _join_components(package["name"], package["title"], _SCHEME)
    fields[6] = _moment(study["date"], study["time"])
    fields[15] = _person(order["referring_physician_name"])
    fields[17] = accession  # Placer Field 1: where IHE's scheduled workflow puts it
    fields[18] = _text(order["requested_procedure_id"])
    fields[21] = _when(statement["done_at"])
    fields[23] = "RAD"
    fields[24] = "P"
    if procedure := order.get("procedure"):
        fields += [""] * 18 + [_join_components("", procedure, "")]  # OBR-44, Procedure Code: its text
    return _join("OBR", *fields)


def _with_own_fields(segments: list[str], statement: dict[str, Any], site: Hl7Destination) -> list[str]:
    """What the site wants otherwise, set into PID and OBR; PV1 and ORC are there only where the site asks for them."""
    known = {segment[:3]: segment.split("|") for segment in segments}
    values = values_of(statement)
    for place, text in site.fields.items():
        name, _, number = place.partition("-")
        fields = known.setdefault(name, [name])
        fields += [""] * (int(number) + 1 - len(fields))
        # Text of the site may have components; what is filled in may not.
        fields[int(number)] = _PLACE.sub(lambda found: _text(values[found[1]]), text)
    return [_join(*known[name]) for name in ("PID", "PV1", "ORC", "OBR") if name in known]


def values_of(statement: dict[str, Any]) -> dict[str, str]:
    """What a field of the site's own may hold, by the names of ``config.HL7_VALUES``."""
    order, study, patient = statement["order"], statement["study"], statement["patient"]
    return {
        "accession_number": order["accession_number"],
        "study_id": order["study_id"],
        "requested_procedure_id": order["requested_procedure_id"],
        "procedure": order.get("procedure", ""),
        "patient_id": patient["id"],
        "issuer": patient["issuer"],
        "study_instance_uid": study["study_instance_uid"],
        "study_description": study["description"],
        "modality": study["modality"],
        "package": statement["package"]["name"],
        "outcome": statement["outcome"],
    }


def _notes(statement: dict[str, Any], gettext: Callable[[str], str]) -> Iterable[str]:
    words = [*statement["permitted_use"], gettext("Not for diagnosis.")]
    if statement["predecessors"]:
        earlier = ", ".join(control_id(uid) for uid in statement["predecessors"])
        replaces = Detail("This message replaces what was said before (message {earlier}).", {"earlier": earlier})
        words.append(replaces.told(gettext))
    words += [
        Detail("Looked for: {what}", {"what": statement["looked_for"]}).told(gettext),
        Detail("Not looked for: {what}", {"what": statement["not_looked_for"]}).told(gettext),
        *statement["caveats"],
    ]
    return (_join("NTE", n, "", _text(text)) for n, text in enumerate(words, 1))


def _observations(statement: dict[str, Any]) -> Iterable[list[str]]:
    """Fields of each OBX after its number: what it says, in the order in which a person should read it."""
    done_at, package = _when(statement["done_at"]), statement["package"]
    device = _join_components(package["name"], package["version"])

    def observe(kind: str, what: str, value: str, *, group: str = "", unit: str = "", flag: str = "") -> list[str]:
        return [kind, what, group, value, unit, "", flag, "", "", "P", "", "", done_at, "", "", "", device]

    yield observe("ST", _named("study_instance_uid"), _text(statement["study"]["study_instance_uid"]))
    any_flagged = any(map(_calls, statement["findings"]))
    yield observe("TX", _named("outcome_of_analysis"), _text(statement["summary"]), flag="AA" if any_flagged else "")
    if statement["reason"]:
        yield observe("TX", _named("reason_not_analysed"), _text(f"{statement['reason']}: {statement['reason_text']}"))
    for n, finding in enumerate(statement["findings"], 1):
        group = str(n)
        if _calls(finding):
            yield observe("TX", _coded(finding["code"]), _text(finding["title"]), group=group, flag="AA")
            urgency = _named(f"actionable_category_{finding['category']}")
            yield observe("CWE", _named("actionable_finding"), urgency, group=group)
        for item in finding["measurements"]:
            what = _coded(item["code"]) if item["code"] else _join_components(item["name"], item["name"], "L")
            unit = _join_components(item["unit"], "", "UCUM")
            yield observe("NM", what, f"{item['value']:.6g}", group=group, unit=unit)


def _calls(finding: dict[str, Any]) -> bool:
    """Whether a finding is to be looked at: flagged, and no radiologist has refuted it."""
    return bool(finding["flagged"]) and not finding.get("refuted")


def _named(name: str) -> str:
    code = codes.table()[name]
    return _join_components(code.code, code.meaning, _SCHEMES.get(code.scheme, _SCHEME))


def _coded(code: dict[str, str]) -> str:
    return _join_components(code["value"], code["meaning"], _SCHEMES.get(code["scheme"], _SCHEME))


def _moment(date: str, time: str) -> str:
    """A DICOM date and time as TS; the scanner's local time has no zone."""
    if len(date) != 8 or not date.isdigit():
        return ""
    whole = time.partition(".")[0]
    return date + (whole if whole.isdigit() and len(whole) in {4, 6} else "")


def _when(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y%m%d%H%M%S%z")


def _text(text: str) -> str:
    """Escaped (§2.7); control characters would end segment or frame."""
    return _CONTROL.sub("", text.translate(_ESCAPES))


def _join_components(*parts: str) -> str:
    return "^".join(map(_text, parts)).rstrip("^")


def _join(name: str, *fields: str | int) -> str:
    return "|".join([name, *map(str, fields)]).rstrip("|")


def _encoded(segments: Iterable[str], site: Hl7Destination) -> bytes:
    text = "".join(f"{segment}\r" for segment in segments)
    return text.encode(CHARSETS[site.charset][1], "replace")
