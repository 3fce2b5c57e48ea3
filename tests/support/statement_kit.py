"""One statement, as the child writes it."""

from __future__ import annotations

STATEMENT = {
    "schema": 1,
    "id": "2.25.1234567890",
    "predecessors": [],
    "box_version": "0.1.0",
    "done_at": "2026-03-04T05:06:07+00:00",
    "late": False,
    "evaluation": True,
    "permitted_use": ["Evaluation, not for patient care.", "Demonstration. Not for clinical use."],
    "patient": {
        "id": "P|1^x",
        "issuer": "HOSP&A",
        "name": "Zhang^San^M^Dr^Jr=张^三=zhang^san",
        "birth_date": "19700102",
        "sex": "F",
    },
    "order": {
        "accession_number": "ACC-7",
        "study_id": "S1",
        "requested_procedure_id": "RP9",
        "referring_physician_name": "Roe^Richard",
    },
    "study": {
        "study_instance_uid": "1.2.3.4",
        "description": "CT Head",
        "date": "20260304",
        "time": "050000.123",
        "modality": "CT",
    },
    "package": {
        "name": "head",
        "version": "1.0.0",
        "title": "Head CT: hyperdense areas",
        "status": "demonstrator",
        "intended_use": "detection",
    },
    "outcome": "FINDING",
    "summary": "Suspected bleed. Not flagged: Suspected mass. What is not flagged is not excluded.",
    "reason": "",
    "reason_text": "",
    "findings": [
        {
            "id": "bleed",
            "title": "Suspected bleed",
            "code": {"value": "1386000", "scheme": "SCT", "meaning": "Intracranial hemorrhage"},
            "site": None,
            "flagged": True,
            "category": 1,
            "score": 12.5,
            "score_unit": "ml",
            "operating_point": "default",
            "threshold": 1.0,
            "measurements": [
                {
                    "name": "volume",
                    "code": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"},
                    "value": 12.512345678,
                    "unit": "ml",
                    "sd": None,
                }
            ],
        },
        {
            "id": "mass",
            "title": "Suspected mass",
            "code": {"value": "M", "scheme": "99SCANSIDE", "meaning": "Mass"},
            "site": None,
            "flagged": False,
            "category": 2,
            "score": 0.1,
            "score_unit": "",
            "operating_point": "default",
            "threshold": 0.5,
            "measurements": [],
        },
    ],
    "looked_for": "Blood.",
    "not_looked_for": "Anything else.",
    "caveats": ["This result came late."],
}
