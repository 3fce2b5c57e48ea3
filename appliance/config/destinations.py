"""Where results and originals go: storage SCPs, DICOMweb servers, HL7 receivers, webhooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from appliance.config.tls import ByUrl, ClientTls
from appliance.config.values import AeTitle, Language, Name, Port, Section, Url
from appliance.records import DeliveryKind, Outcome


def _dicom_object(kind: DeliveryKind) -> DeliveryKind:
    if kind is DeliveryKind.STATEMENT:
        msg = "'statement' is no DICOM object; destinations of kind hl7 and webhook get it without being told"
        raise ValueError(msg)
    return kind


DicomObject = Annotated[DeliveryKind, AfterValidator(_dicom_object)]
#: What stands in braces in a field of the site's own (``deliver.hl7`` fills it in).
HL7_VALUES = (
    "accession_number",
    "study_id",
    "requested_procedure_id",
    "procedure",
    "patient_id",
    "issuer",
    "study_instance_uid",
    "study_description",
    "modality",
    "package",
    "outcome",
)
#: Who it is about, which package spoke, and that nobody has confirmed it, are no matter of a site's taste.
HL7_OURS = frozenset({"PID-1", "PID-3", "PID-5", "PID-7", "PID-8", "OBR-1", "OBR-4", "OBR-25"})
Hl7Text = Annotated[str, Field(max_length=200, pattern=r"^[^|\x00-\x1f\x7f]*$")]
Hl7Field = Annotated[str, Field(pattern=r"^(PID|PV1|ORC|OBR)-[1-9][0-9]?$")]
#: A field of an HL7 header: what stands there is not escaped by all readers, so it holds no delimiters.
Hl7Name = Annotated[str, Field(max_length=180, pattern=r"^[^|^~\\&\x00-\x1f\x7f]*$")]


class AnyDestination(Section):
    """What every kind of destination is told."""

    name: Name
    purpose: Literal["clinical", "test"] = "clinical"
    outcomes: tuple[Outcome, ...] = Field(
        default=(Outcome.FINDING, Outcome.NOT_ANALYSED), description="Results of which outcomes are sent"
    )
    packages: tuple[Name, ...] = Field(default=(), description="Results of which packages are sent; empty = all")
    timeout_s: float = Field(default=30.0, gt=0)


class _OfObjects(AnyDestination):
    """Takes DICOM objects."""

    send: tuple[DicomObject, ...] = Field(default=(DeliveryKind.ORIGINAL, DeliveryKind.SR), min_length=1)


class _OfStatements(AnyDestination):
    """Takes results as plain values, and no DICOM object."""

    @property
    def send(self) -> tuple[DeliveryKind, ...]:
        """What it is owed of a result."""
        return (DeliveryKind.STATEMENT,)


class DicomDestination(_OfObjects):
    """A storage SCP that is owed objects."""

    kind: Literal["dicom"]
    host: str
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = Field(
        default=None, description="Originals: the source's own AE title when absent; results: the box's"
    )
    commitment: bool = Field(
        default=False,
        description="Ask it by storage commitment to keep what it was sent; until it agrees, nothing goes",
    )
    tls: ClientTls | None = None


class StowDestination(_OfObjects, ByUrl):
    """A DICOMweb server that is owed objects by STOW-RS (PS3.18 §10.5)."""

    kind: Literal["stow"]
    url: Url = Field(description="Root of the service, to which /studies is added")
    user: str = Field(default="", description="With password_path: HTTP Basic")
    password_path: Path | None = None
    token_path: Path | None = Field(default=None, description="HTTP Bearer")

    @model_validator(mode="after")
    def _who(self) -> StowDestination:
        if bool(self.user) != (self.password_path is not None):
            msg = "user and password_path belong together; give both or neither"
            raise ValueError(msg)
        if self.user and self.token_path is not None:
            msg = "user and token_path exclude each other; give one"
            raise ValueError(msg)
        if "?" in self.url:
            msg = "url is the root of the service and has no '?'"
            raise ValueError(msg)
        return self


class Hl7Destination(_OfStatements):
    """A HIS or RIS that gets results as HL7 v2 messages (ORU^R01) over MLLP."""

    kind: Literal["hl7"]
    host: str
    port: Port
    tls: ClientTls | None = None
    charset: Literal["utf-8", "gb18030"] = Field(default="utf-8", description="Of the message; stands in MSH-18")
    sending_application: Hl7Name = Field(default="SCANSIDE", min_length=1, description="MSH-3")
    sending_facility: Hl7Name = Field(default="", description="MSH-4")
    receiving_application: Hl7Name = Field(default="", description="MSH-5")
    receiving_facility: Hl7Name = Field(default="", description="MSH-6")
    processing_id: Literal["P", "T"] = Field(default="P", description="MSH-11: P production, T training")
    language: Language | None = Field(default=None, description="Of the words of a result; the site's when absent")
    fields: dict[Hl7Field, Hl7Text] = Field(
        default={}, description="Fields that this site wants otherwise: text with {names} of what is known of the order"
    )

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: dict[str, str]) -> dict[str, str]:
        for place, text in fields.items():
            if place in HL7_OURS:
                msg = f"{place} says whose result this is or that it is preliminary, and stays as it is; take it out"
                raise ValueError(msg)
            unknown = [name for name in re.findall(r"\{([^{}]*)\}", text) if name not in HL7_VALUES]
            if unknown:
                msg = f"{place}: nothing is known as {{{unknown[0]}}}; there are {', '.join(HL7_VALUES)}"
                raise ValueError(msg)
        return fields


class WebhookDestination(_OfStatements, ByUrl):
    """A server that gets results as signed JSON (Standard Webhooks), without the patient's name and number."""

    kind: Literal["webhook"]
    secret_path: Path = Field(description="File with whsec_ and 24 to 64 bytes in base64; the receiver has the same")


Destination = Annotated[
    DicomDestination | StowDestination | Hl7Destination | WebhookDestination, Field(discriminator="kind")
]
#: Tags of the union.
DESTINATION_KINDS = ("dicom", "stow", "hl7", "webhook")
