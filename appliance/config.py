"""One YAML file, and optionally a site overlay, become one frozen ``Config``.

Unknown keys are refused, every error names file, line and key, units stand in the names. There is no hot reload and no
global: each part is handed its own section.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from appliance.errors import ConfigError
from appliance.records import AlertStep, DeliveryKind, Outcome, Role, SourceMode, UserRole


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


def _listening(text: str) -> str:
    try:
        ipaddress.ip_address("127.0.0.1" if text == "localhost" else text)
    except ValueError:
        msg = f"{text!r} is no IP address of this machine; 0.0.0.0 listens on all, 127.0.0.1 for this machine alone"
        raise ValueError(msg) from None
    return text


def _socket_address(text: str) -> str:
    """An IP address with its port, as 10.1.2.3:8001 or [fd00::5]:8001."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError as error:
        msg = "give one IP address and its port, as 10.1.2.3:8001; names are not looked up"
        raise ValueError(msg) from error
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        msg = f"{port!r} is no port; give one IP address and its port, as 10.1.2.3:8001"
        raise ValueError(msg)
    if (address.version == 6) != host.startswith("["):
        msg = "an IPv6 address stands in brackets, as [fd00::5]:8001"
        raise ValueError(msg)
    if address.is_unspecified or address.is_multicast:
        msg = f"{address} is no machine's address"
        raise ValueError(msg)
    return text


def _url(text: str) -> str:
    """An http or https address with a host, and nothing in it that is secret or means nothing to a server."""
    parts = urlsplit(text)
    try:
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port or not text.isascii():
        msg = "give an address as https://host:port/path"
        raise ValueError(msg)
    if any(ord(letter) <= 0x20 for letter in text):
        msg = "no blanks stand in an address; write them as %20"
        raise ValueError(msg)
    if parts.username is not None or parts.fragment:
        msg = "no user, password or '#' stands in an address; passwords and tokens are read from a file"
        raise ValueError(msg)
    return text


def _https(text: str) -> str:
    if not _url(text).startswith("https://"):
        msg = "give an https address: who reads this on the way could sign in as anybody"
        raise ValueError(msg)
    return text


def _dicom_object(kind: DeliveryKind) -> DeliveryKind:
    if kind is DeliveryKind.STATEMENT:
        msg = "'statement' is no DICOM object; destinations of kind hl7 and webhook get it without being told"
        raise ValueError(msg)
    return kind


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine without a doubt."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$|^\[[0-9A-Fa-f:]+\]$")]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?$")]
HexBytes = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2}){1,64}$")]
Network = Annotated[str, AfterValidator(_network)]
SocketAddress = Annotated[str, AfterValidator(_socket_address)]
Url = Annotated[str, AfterValidator(_url)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
DicomObject = Annotated[DeliveryKind, AfterValidator(_dicom_object)]
Language = Literal["en", "zh_Hans_CN"]
#: A field of an HL7 header: what stands there is not escaped by all readers, so it holds no delimiters.
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
Hl7Name = Annotated[str, Field(max_length=180, pattern=r"^[^|^~\\&\x00-\x1f\x7f]*$")]


#: Whether a technologist is told which finding is suspected, or only that a radiologist must look.
TechnologistDetail = Literal["priority_only", "finding"]
PhoneText = Annotated[str, Field(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Section(BaseModel):
    """A part of the configuration: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Site(Section):
    """Where the box stands and what it may be used for."""

    name: str = Field(default="Scanside", description="Shown in the top bar of every page")
    logo_path: Path | None = Field(default=None, description="PNG or SVG beside the name; ours when absent")
    mode: Literal["evaluation", "clinical"] = Field(
        default="evaluation", description="evaluation: a fixed band, results only to destinations of purpose test"
    )
    language: Language = Field(default="en", description="Language that pages open in")
    profile: Literal["none", "cn", "us", "eu"] = Field(
        default="none", description="Country whose custom decides what a technologist is told"
    )
    technologist_detail: TechnologistDetail | None = Field(
        default=None, description="Where this site does otherwise than its profile; a package may do otherwise again"
    )
    radiologist_phone: PhoneText = Field(default="", description="Shown with an urgent alert")
    service_phone: PhoneText = Field(default="", description="Shown where the box does not work")


class Tls(Section):
    """DICOM over TLS with client certificates (PS3.15 B.12)."""

    certificate_path: Path
    key_path: Path
    client_ca_path: Path = Field(description="CA that client certificates must be signed by")
    ae_in_certificate: bool = Field(
        default=False, description="The calling AE title must stand in the certificate: common name, DNS or URI name"
    )


class Dicom(Section):
    """The C-STORE and C-ECHO SCP."""

    ae_title: AeTitle = "SCANSIDE"
    host: str = "127.0.0.1"
    port: Port = 11112
    require_called_ae: bool = Field(default=False, description="Refuse who calls another AE title than ours")
    unknown_sources: Literal["refuse", "accept"] = Field(
        default="refuse", description="What to do with an association of no configured source; a refusal is journalled"
    )
    max_associations: int = Field(default=200, ge=1, le=1000)
    max_associations_per_host: int = Field(default=160, ge=1, le=1000)
    max_object_bytes: int = Field(default=4 * 1024**3, ge=1024)
    pdu_deadline_s: float = Field(default=30.0, gt=0, description="A whole PDU must arrive within this")
    network_timeout_s: float = Field(default=60.0, gt=0, description="An idle association is ended after this")
    mpps: bool = Field(
        default=False, description="Take Modality Performed Procedure Steps: exact evidence of which images are due"
    )
    tls: Tls | None = None


class ClientTls(Section):
    """TLS to a server that we call: 1.2 or later (BCP 195), its name always checked, never without TLS instead."""

    ca_path: Path = Field(
        description="PEM; the only CA whose certificates the server may show. With its CRL in the same file, revoked"
        " certificates are refused"
    )
    certificate_path: Path | None = Field(default=None, description="Of the box, where the server asks for one")
    key_path: Path | None = None
    server_name: str = Field(default="", description="Name in the server's certificate, where it is not its address")

    @model_validator(mode="after")
    def _pair(self) -> ClientTls:
        if (self.certificate_path is None) != (self.key_path is None):
            msg = "certificate_path and key_path belong together; give both or neither"
            raise ValueError(msg)
        return self


class Source(Section):
    """A scanner that sends to the box."""

    name: Name
    ae_title: AeTitle = Field(description="The calling AE title")
    addresses: tuple[Network, ...] = Field(default=(), description="Addresses or networks it calls from; empty = any")
    mode: SourceMode = SourceMode.PARALLEL
    stat: bool = Field(default=False, description="Everything from this source goes first")
    assume_charset: str = Field(default="", description="Character set of text that declares none, as GB18030")
    commitment_host: str = Field(
        default="",
        description="Where the scanner listens for storage commitment reports; empty: it may not ask for any",
    )
    commitment_port: Port | None = None
    commitment_tls: ClientTls | None = Field(default=None, description="Where it listens with TLS")

    @model_validator(mode="after")
    def _report_address(self) -> Source:
        if bool(self.commitment_host) != (self.commitment_port is not None):
            msg = "commitment_host and commitment_port belong together; give both or neither"
            raise ValueError(msg)
        if self.commitment_tls is not None and not self.commitment_host:
            msg = "commitment_tls is of no use without commitment_host and commitment_port; give them, or take it out"
            raise ValueError(msg)
        return self


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


class _ByUrl(Section):
    """Spoken to by HTTP."""

    url: Url
    tls: ClientTls | None = None

    @model_validator(mode="after")
    def _scheme(self) -> _ByUrl:
        if self.url.startswith("https:") and self.tls is None:
            msg = (
                "https needs tls with the ca_path of the server's CA; of a public one"
                " /etc/ssl/certs/ca-certificates.crt"
            )
            raise ValueError(msg)
        if self.url.startswith("http:") and self.tls is not None:
            msg = "tls is given, but the address begins with http:; write https:"
            raise ValueError(msg)
        return self


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


class StowDestination(_OfObjects, _ByUrl):
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


class WebhookDestination(_OfStatements, _ByUrl):
    """A server that gets results as signed JSON (Standard Webhooks), without the patient's name and number."""

    kind: Literal["webhook"]
    secret_path: Path = Field(description="File with whsec_ and 24 to 64 bytes in base64; the receiver has the same")


Destination = Annotated[
    DicomDestination | StowDestination | Hl7Destination | WebhookDestination, Field(discriminator="kind")
]
_KINDS = ("dicom", "stow", "hl7", "webhook")
#: Where a finding at the scanner is not for the technologist to know, unless the site says otherwise (docs/adr/0034).
_DETAIL: dict[str, TechnologistDetail] = {
    "none": "finding",
    "cn": "finding",
    "us": "priority_only",
    "eu": "priority_only",
}


class PackageChoice(Section):
    """A package that runs on this box."""

    name: Name
    role: Role = Role.SILENT
    operating_points: dict[str, str] = Field(default={}, description="finding id: operating point of the package")
    technologist_detail: TechnologistDetail | None = Field(
        default=None, description="What technologists are told of its findings; the site's where it is absent"
    )


class Completeness(Section):
    """When a series is taken as whole without better evidence."""

    quiet_min_s: float = Field(default=2.0, gt=0)
    quiet_max_s: float = Field(default=20.0, gt=0)


class Triage(Section):
    """Deadlines from READY and the worker."""

    xray_deadline_s: float = Field(default=30.0, gt=0)
    ct_deadline_s: float = Field(default=180.0, gt=0)
    worker_threads: int = Field(default=0, ge=0, description="Threads of one inference; 0 = all cores")
    spawn_worker: bool = Field(default=True, description="False where systemd runs the worker as its own unit")


class Engines(Section):
    """What runs the packages' graphs. An engine is built here and proven against ONNX Runtime before it serves."""

    backend: Literal["onnxruntime", "tensorrt", "tensorrt_rtx"] = Field(
        default="onnxruntime", description="onnxruntime needs no GPU; tensorrt_rtx is for x86 only"
    )
    precision: Literal["fp32", "fp16", "int8"] = Field(
        default="fp32", description="Of packages that offer it; others run in fp32"
    )
    build_limit_s: float = Field(default=1800.0, gt=0, le=86400, description="A build that takes longer is ended")
    build_memory_mb: int = Field(default=8192, ge=512, description="Address space of the child that builds")
    keep: int = Field(default=2, ge=1, description="Accepted engines kept of each package")


class KServe(Section):
    """A KServe v2 server (Triton) of the site that runs graphs for the box. Tensors alone are sent: pixels, no header.

    Whatever the server does wrong, the box computes by itself and says so.
    """

    address: SocketAddress = Field(description="IP address and port; the one address that the worker may reach")
    packages: tuple[Name, ...] = Field(default=(), description="Which packages run there; empty = all")
    timeout_s: float = Field(default=10.0, gt=0, le=600, description="Of one run, also where the study has more left")
    tls: ClientTls | None = None


class Worklist(Section):
    """The RIS's modality worklist, asked for the order of each study. What it does wrong delays nothing."""

    host: str
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = Field(default=None, description="The box's own when absent")
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    assume_charset: str = Field(default="", description="Character set of text that declares none, as GB18030")
    tls: ClientTls | None = None


class Disk(Section):
    """What stays free. At the reserve the box answers 0xA700 and says so loudly; it never deletes what is owed."""

    reserve_bytes: int = Field(default=2 * 1024**3, ge=0)
    reserve_fraction: float = Field(default=0.05, ge=0, lt=1)


class Retention(Section):
    """How long what is no longer owed is kept."""

    images_h: float = Field(
        default=72.0, gt=0, description="Received files, after the last image and the last thing owed of their study"
    )
    results_days: int = Field(default=366, ge=366, description="Result objects, key pictures and masks; rows stay")
    journal_days: int = Field(default=366, ge=366, description="Whole days, behind every reader, leaving a checkpoint")


class WebTls(Section):
    """The certificate of the screens."""

    certificate_path: Path
    key_path: Path


class Escalation(Section):
    """What follows where nobody acknowledges an alert, counted from when it was raised. Never in evaluation mode."""

    repeat_after_s: float = Field(default=60.0, gt=0, description="Category 1: the chime begins to repeat")
    repeat_every_s: float = Field(default=25.0, ge=5, le=60)
    tell_after_s: float = Field(default=180.0, gt=0, description="Category 1: further screens and alert_sinks are told")
    overdue_after_s: float = Field(default=600.0, gt=0, description="Category 1: OVERDUE on every screen")
    remind_after_s: float = Field(default=3600.0, gt=0, description="Category 2: a silent reminder")
    screens: tuple[str, ...] = Field(
        default=(), description="Names of paired screens that from tell_after_s on show alerts of every source"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Escalation:
        if not self.repeat_after_s <= self.tell_after_s <= self.overdue_after_s:
            msg = "repeat_after_s, tell_after_s and overdue_after_s follow one another; correct their order"
            raise ValueError(msg)
        return self


class WebhookSink(_ByUrl):
    """A server that is told of escalated alerts by signed JSON (Standard Webhooks): no name, no number of a patient."""

    kind: Literal["webhook"]
    name: Name
    secret_path: Path = Field(description="File with whsec_ and 24 to 64 bytes in base64; the receiver has the same")
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @property
    def steps(self) -> tuple[AlertStep, ...]:
        """What it is told of."""
        return (AlertStep.TELL, AlertStep.OVERDUE)


class LightSink(Section):
    """A light or buzzer at a relay: bytes are written to a device. It is on while a category 1 alert calls."""

    kind: Literal["light"]
    name: Name
    device_path: Path = Field(description="As /dev/ttyUSB0, or the value file of a GPIO line")
    on: HexBytes = Field(default="a00101a2", description="Bytes in hexadecimal; the default is that of an LCUS-1 relay")
    off: HexBytes = "a00100a1"
    timeout_s: float = Field(default=2.0, gt=0, le=30)

    @property
    def steps(self) -> tuple[AlertStep, ...]:
        """What it is told of."""
        return (AlertStep.RAISED, AlertStep.TELL)


AlertSinkChoice = Annotated[WebhookSink | LightSink, Field(discriminator="kind")]


class Oidc(Section):
    """Signing in with the hospital's accounts, by OpenID Connect. Accounts of the box go on beside it."""

    issuer: HttpsUrl = Field(description="As the provider calls itself; its configuration is below /.well-known there")
    client_id: str = Field(min_length=1, max_length=200)
    client_secret_path: Path | None = Field(default=None, description="File whose first line is the client's secret")
    ca_path: Path | None = Field(default=None, description="PEM of the CA of the provider; the system's when absent")
    scope: str = Field(default="openid profile", pattern=r"^openid( [\x21\x23-\x5b\x5d-\x7e]+)*$")
    claim: str = Field(default="groups", min_length=1, description="Of the ID token: the person's groups")
    roles: dict[str, UserRole] = Field(
        min_length=1, description="Role by group; who is in several gets the first that stands here, in none gets none"
    )

    @field_validator("roles")
    @classmethod
    def _of_people(cls, roles: dict[str, UserRole]) -> dict[str, UserRole]:
        if UserRole.SCREEN in roles.values():
            msg = "a person cannot have the role screen; pair a screen instead"
            raise ValueError(msg)
        return roles


class Screen(Section):
    """The web server of the screens."""

    host: Annotated[str, AfterValidator(_listening)] = "127.0.0.1"
    port: Port = 8080
    names: tuple[HostName, ...] = Field(default=(), description="Host names and addresses that browsers call it by")
    tls: WebTls | None = Field(default=None, description="Needed where it listens to others than this machine")
    frames: tuple[Origin, ...] = Field(
        default=(), description="Origins whose pages may show ours in a frame, as https://console.example; none"
    )
    escalation: Escalation = Escalation()
    oidc: Oidc | None = None

    @model_validator(mode="after")
    def _encrypted(self) -> Screen:
        if self.tls is None and not is_loopback(self.host):
            msg = f"host {self.host} is reached by others, so passwords would be read on the way; add screen.tls"
            raise ValueError(msg)
        return self


class Review(Section):
    """What radiologists sign of results."""

    organization: str = Field(default="", max_length=64, description="Of the radiologists, in reviewed reports")
    test_accounts: tuple[str, ...] = Field(
        default=(), description="Accounts whose reviews are trials: in no figure and no exported label"
    )


class Config(Section):
    """Everything that a box is told."""

    state_path: Path = Path("/var/lib/scanside")
    runtime_path: Path | None = Field(default=None, description="Folder of the worker's socket; state_path when absent")
    site: Site = Site()
    dicom: Dicom = Dicom()
    sources: tuple[Source, ...] = ()
    destinations: tuple[Destination, ...] = ()
    packages: tuple[PackageChoice, ...] = ()
    trusted_keys: tuple[Path, ...] = Field(
        default=(), description="Public keys (PEM) of makers; a package that one of them signed may be installed"
    )
    completeness: Completeness = Completeness()
    triage: Triage = Triage()
    engines: Engines = Engines()
    kserve: KServe | None = None
    worklist: Worklist | None = Field(
        default=None, description="Asked for priority, procedure and, where the images have none, accession number"
    )
    disk: Disk = Disk()
    retention: Retention = Retention()
    screen: Screen = Screen()
    review: Review = Review()
    alert_sinks: tuple[AlertSinkChoice, ...] = Field(
        default=(), description="Who else is told of alerts that nobody acknowledges; never in evaluation mode"
    )

    @model_validator(mode="after")
    def _cross_checks(self) -> Config:
        for what, names in (
            ("source", [s.name for s in self.sources]),
            ("destination", [d.name for d in self.destinations]),
            ("package", [p.name for p in self.packages]),
            ("alert sink", [sink.name for sink in self.alert_sinks]),
        ):
            for name in names:
                if names.count(name) > 1:
                    msg = f"two {what}s are named {name!r}; give each its own name"
                    raise ValueError(msg)
        inline = [s.name for s in self.sources if s.mode is SourceMode.INLINE]
        if inline and not any(DeliveryKind.ORIGINAL in d.send for d in self.destinations):
            msg = f"source {inline[0]!r} is inline, but no destination takes originals; add 'original' to a 'send'"
            raise ValueError(msg)
        for one in self.destinations:
            if isinstance(one, StowDestination | WebhookDestination) and self.site.mode == "clinical":
                host = urlsplit(one.url).hostname or ""
                if one.tls is None and not is_loopback(host):
                    msg = f"destination {one.name!r}: in clinical mode results leave the box by https only; add tls"
                    raise ValueError(msg)
        for sink in self.alert_sinks:
            if not isinstance(sink, WebhookSink) or self.site.mode != "clinical" or sink.tls is not None:
                continue
            if not is_loopback(urlsplit(sink.url).hostname or ""):
                msg = f"alert sink {sink.name!r}: in clinical mode alerts leave the box by https only; add tls"
                raise ValueError(msg)
        for source in self.sources:
            if source.commitment_host and not self.committing(source.name):
                msg = (
                    f"source {source.name!r} has a commitment_host, but no destination of its originals has commitment:"
                    " true; the box vouches only for what such a destination keeps"
                )
                raise ValueError(msg)
        if self.kserve is not None:
            host = self.kserve.address.rpartition(":")[0].strip("[]")
            if self.site.mode == "clinical" and self.kserve.tls is None and not is_loopback(host):
                # A head CT shows a face, with or without its header.
                msg = "kserve: in clinical mode pixels leave the box by TLS only; add kserve.tls"
                raise ValueError(msg)
        return self

    def technologist_detail(self, package: str) -> TechnologistDetail:
        """What technologists are told of a package's findings: its own word, else the site's, else its profile's."""
        choice = next((one.technologist_detail for one in self.packages if one.name == package), None)
        return choice or self.site.technologist_detail or _DETAIL[self.site.profile]

    def sinks_of(self, step: AlertStep) -> tuple[str, ...]:
        """Names of the alert sinks that are told of a step; of a test all are."""
        return tuple(sink.name for sink in self.alert_sinks if step is AlertStep.TEST or step in sink.steps)

    def committing(self, source_name: str) -> tuple[str, ...]:
        """The destinations that commit to the images of a source; none of a parallel one."""
        if not any(one.name == source_name and one.mode is SourceMode.INLINE for one in self.sources):
            return ()
        return tuple(one.name for one in self.commitment_destinations if DeliveryKind.ORIGINAL in one.send)

    @property
    def commitment_destinations(self) -> tuple[DicomDestination, ...]:
        """Those that are asked for storage commitment."""
        return tuple(one for one in self.destinations if isinstance(one, DicomDestination) and one.commitment)

    @property
    def engines_path(self) -> Path:
        """Where the engines of this box lie; written by the worker."""
        return self.state_path / "engines"

    @property
    def socket_path(self) -> Path:
        """The Unix socket on which the daemon listens for its worker."""
        return (self.runtime_path or self.state_path) / "worker.sock"


class _LineLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; YAML itself lets the second win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _lines(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], int]:
    """Line of every key and item below a YAML node, by its path."""
    found: dict[tuple[str | int, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found[here] = key.start_mark.line + 1
            found.update(_lines(value, here))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = (*path, index)
            found[here] = item.start_mark.line + 1
            found.update(_lines(item, here))
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_LineLoader)  # noqa: S506 - a SafeLoader
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}; name an existing file with --config"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: is not YAML: {error}"
        raise ConfigError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path}: line 1: expected 'key: value' lines; start from config/appliance.yaml"
        raise ConfigError(msg)
    return data, _lines(node)


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay wins; mappings merge key by key, lists are replaced whole."""
    out = dict(base)
    for key, value in overlay.items():
        mine = out.get(key)
        out[key] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return out


def load_config(path: Path, *overlays: Path | None) -> Config:
    """Read and check a configuration.

    Args:
        path: The YAML file, as ``config/appliance.yaml``.
        overlays: Further files, each of whose keys win over those before; lists are replaced whole. None is left out.

    Raises:
        ConfigError: Naming each fault with file, line and key.
    """
    data, lines = _read(path)
    where = dict.fromkeys(lines, path)
    for overlay in overlays:
        if overlay is None:
            continue
        site, site_lines = _read(overlay)
        data = _merged(data, site)
        lines |= site_lines
        where |= dict.fromkeys(site_lines, overlay)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            # Pydantic puts a union's tag into the path; it stands in no file.
            loc = fault["loc"]
            if loc[:1] in (("destinations",), ("alert_sinks",)) and loc[2:3] and loc[2] in (*_KINDS, "light"):
                loc = (*loc[:2], *loc[3:])
            known = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in lines), ())
            key = ".".join(str(part) for part in loc) or "the file"
            hint = "; remove it or see config/appliance.yaml" if fault["type"] == "extra_forbidden" else ""
            place = f"{where.get(known, path)}: line {lines.get(known, 1)}"
            faults.append(f"{place}: {key}: {fault['msg'].removeprefix('Value error, ')}{hint}")
        raise ConfigError("\n".join(faults)) from error
