"""The OpenAPI 3.1 document of ``/api/v1``, made of the models that the answers are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from appliance import __version__
from appliance.screen import api_models as models

_ANSWERS: tuple[type[BaseModel], ...] = (
    *(models.Health, models.Alerts, models.Alert, models.Studies, models.Study, models.Error, models.Acknowledge),
)
_REF = "#/components/schemas/{model}"


def document() -> dict[str, Any]:
    """The document as JSON values."""
    _, schemas = models_json_schema([(model, "serialization") for model in _ANSWERS], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scanside",
            "version": __version__,
            "description": (
                "Alerts, study states and health of one box. An AI aid for prioritisation, not a diagnosis: a study "
                "without an alert still needs to be read. Ask with 'Authorization: Bearer', a token of 'scanside "
                "token add'. A token that is bound to sources sees their studies alone."
            ),
        },
        "security": [{"token": []}],
        "paths": {
            "/api/v1/health": {"get": _get("Whether studies are being checked", models.Health)},
            "/api/v1/metrics": {
                "get": {
                    "summary": "Figures for Prometheus; for a token of the role service",
                    "responses": {
                        "200": {
                            "description": "Text format 0.0.4, no patient data",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                }
            },
            "/api/v1/alerts": {"get": _get("Open alerts, and those of the last 12 hours", models.Alerts)},
            "/api/v1/alerts/{alert_id}/acknowledge": {
                "post": {
                    **_get("A named person has seen the alert", models.Alert, "404", "409"),
                    "parameters": [_number("alert_id")],
                    "requestBody": {"required": True, "content": _content(models.Acknowledge)},
                }
            },
            "/api/v1/studies": {
                "get": {
                    **_get("Studies by Study Instance UID or accession number", models.Studies, "400"),
                    "parameters": [_query("study_instance_uid"), _query("accession_number")],
                }
            },
            "/api/v1/studies/{study_id}": {
                "get": {**_get("One study", models.Study, "404"), "parameters": [_number("study_id")]}
            },
            "/api/v1/events": {
                "get": {
                    "summary": "Server-sent events: alert (Alert), study (Study), beat every two seconds",
                    "description": (
                        "Every alert and study event carries the journal row as its id; one that was missed comes "
                        "again after Last-Event-ID, or after=. Six seconds without a beat: nothing is known any more."
                    ),
                    "parameters": [_query("after")],
                    "responses": {
                        "200": {
                            "description": "Until the client goes",
                            "content": {"text/event-stream": {"schema": {"type": "string"}}},
                        }
                    },
                }
            },
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _get(summary: str, answer: type[BaseModel], *errors: str) -> dict[str, Any]:
    responses = {"200": {"description": "As asked", "content": _content(answer)}}
    for status in ("401", "403", *errors):
        responses[status] = {"description": "Refused, with the reason", "content": _content(models.Error)}
    return {"summary": summary, "responses": responses}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _number(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "integer"}}


def _query(name: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}}
