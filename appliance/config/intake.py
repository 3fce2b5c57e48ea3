"""What arrives: the DICOM service, the scanners that may call it, and when a series is whole."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from appliance.config.tls import ClientTls, Tls
from appliance.config.values import AeTitle, Name, Network, Port, Section
from appliance.records import SourceMode


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


class Completeness(Section):
    """When a series is taken as whole without better evidence."""

    quiet_min_s: float = Field(default=2.0, gt=0)
    quiet_max_s: float = Field(default=20.0, gt=0)


class Worklist(Section):
    """The RIS's modality worklist, asked for the order of each study. What it does wrong delays nothing."""

    host: str
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = Field(default=None, description="The box's own when absent")
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    assume_charset: str = Field(default="", description="Character set of text that declares none, as GB18030")
    tls: ClientTls | None = None
