"""A result as plain values, for receivers that do not read DICOM: HL7 messages and webhooks are written out of it.

It says what the SR says, in the same words. Times are ISO 8601; codes are {value, scheme, meaning}; units are UCUM.
"""

from __future__ import annotations

from typing import Any

from appliance.records import FindingResult, ReviewedFinding
from appliance.report.request import ReportCode, ReportRequest
from appliance.report.review import review_words, stands
from appliance.report.sr import statements

SCHEMA = 1


def build_statement(request: ReportRequest) -> dict[str, Any]:
    """What one analysis said, of whom, under which order; plain values for ``json.dumps``.

    Raises:
        NotBuildable: The package does not declare a finding that the result names.
    """
    identity, package, result = request.identity, request.package, request.result
    findings = [_finding(request, finding) for finding in result.findings]  # first: it knows what is not declared
    said: dict[str, list[str]] = {}
    for name, text in statements(request):
        said.setdefault(name, []).append(text)
    return {
        "schema": SCHEMA,
        "id": request.sop_instance_uid,
        "predecessors": [one.sop_instance_uid for one in request.predecessors],
        "box_version": request.box_version,
        "done_at": request.done_at.isoformat(),
        "late": request.late,
        "evaluation": request.evaluation,
        "permitted_use": said["permitted_use"],
        "patient": {
            "id": identity.patient_id,
            "issuer": identity.issuer_of_patient_id,
            "name": identity.patient_name,
            "birth_date": identity.patient_birth_date,
            "sex": identity.patient_sex,
        },
        "order": {
            "accession_number": identity.accession_number,
            "study_id": identity.study_id,
            "requested_procedure_id": identity.requested_procedure_id,
            "procedure": request.procedure,
            "referring_physician_name": identity.referring_physician_name,
        },
        "study": {
            "study_instance_uid": identity.study_instance_uid,
            "description": request.study_description,
            "date": request.study_date,
            "time": request.study_time,
            "modality": request.modality,
        },
        "package": {
            "name": package.name,
            "version": request.package_version,
            "title": package.title,
            "status": package.status,
            "intended_use": package.intended_use,
        },
        "outcome": str(result.outcome),
        "summary": " ".join([*said.get("human_review", []), *said["outcome_of_analysis"]]),
        "review": _review(request),
        "reason": str(result.reason) if result.reason else "",
        "reason_text": " ".join(said.get("reason_not_analysed", [])),
        "findings": findings,
        "looked_for": package.looked_for,
        "not_looked_for": package.not_looked_for,
        "caveats": said.get("caveat", []),
    }


def _finding(request: ReportRequest, finding: FindingResult) -> dict[str, Any]:
    declared = request.declaration(finding.id)
    codes = {item.name: item.code for item in declared.measurements}
    return {
        "id": finding.id,
        "title": declared.title,
        "code": _code(declared.code),
        "site": _code(declared.site) if declared.site else None,
        "flagged": finding.flagged,
        # By a person: it calls nobody any more.
        "refuted": finding.flagged and not stands(request, finding.id),
        "category": declared.category,
        "score": finding.score,
        "score_unit": declared.score_unit,
        "operating_point": finding.operating_point,
        "threshold": finding.threshold,
        "measurements": [
            {
                "name": item.name,
                "code": _code(codes[item.name]) if item.name in codes else None,
                "value": item.value,
                "unit": item.unit,
                "sd": item.sd,
            }
            for item in finding.measurements
        ],
    }


def _review(request: ReportRequest) -> dict[str, Any] | None:
    """What a person signed of it; None where nobody has."""
    review = request.review
    if review is None:
        return None
    return {
        "version": review.version,
        "decision": str(review.decision),
        "reason": str(review.reason) if review.reason else "",
        "reviewer": review.reviewer,
        "role": review.role,
        "organization": review.organization,
        "signed_at": review.signed_at.isoformat(),
        "note": review.note,
        "words": review_words(request),
        "findings": [_reviewed(request, one) for one in review.findings],
    }


def _reviewed(request: ReportRequest, said: ReviewedFinding) -> dict[str, Any]:
    declared = request.declaration(said.finding) if said.finding else None
    return {
        "id": said.finding,
        # Of a finding that is none of the package's: its name in the box's table of codes.
        "concept": said.code,
        "code": _code(declared.code) if declared else None,
        "title": declared.title if declared else said.code.replace("_", " "),
        "presence": str(said.presence),
        "added": said.added,
        "side": str(said.side) if said.side else "",
        "category": said.category or (declared.category if declared else None),
    }


def _code(code: ReportCode) -> dict[str, str]:
    return {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}
