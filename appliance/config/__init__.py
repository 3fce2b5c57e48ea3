"""One YAML file, and optionally a site overlay, become one frozen ``Config``.

Unknown keys are refused, every error names file, line and key, units stand in the names. There is no hot reload and no
global: each part is handed its own section.
"""

from __future__ import annotations

from appliance.config.alerts import AlertSinkChoice, Escalation, LightSink, WebhookSink
from appliance.config.analysis import Engines, KServe, PackageChoice, Triage
from appliance.config.box import Config
from appliance.config.destinations import (
    HL7_VALUES,
    AnyDestination,
    Destination,
    DicomDestination,
    Hl7Destination,
    StowDestination,
    WebhookDestination,
)
from appliance.config.fleet import Fleet
from appliance.config.intake import Completeness, Dicom, Source, Worklist
from appliance.config.load import load_config
from appliance.config.screen import Oidc, Review, Screen
from appliance.config.site import Disk, Retention, Site, TechnologistDetail
from appliance.config.tls import ClientTls, Tls, WebTls
from appliance.config.values import Section, is_loopback

__all__ = [
    "HL7_VALUES",
    "AlertSinkChoice",
    "AnyDestination",
    "ClientTls",
    "Completeness",
    "Config",
    "Destination",
    "Dicom",
    "DicomDestination",
    "Disk",
    "Engines",
    "Escalation",
    "Fleet",
    "Hl7Destination",
    "KServe",
    "LightSink",
    "Oidc",
    "PackageChoice",
    "Retention",
    "Review",
    "Screen",
    "Section",
    "Site",
    "Source",
    "StowDestination",
    "TechnologistDetail",
    "Tls",
    "Triage",
    "WebTls",
    "WebhookDestination",
    "WebhookSink",
    "Worklist",
    "is_loopback",
    "load_config",
]
