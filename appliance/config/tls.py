"""TLS in both directions, and what every peer that is spoken to by HTTP is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from appliance.config.values import Section, Url


class Tls(Section):
    """DICOM over TLS with client certificates (PS3.15 B.12)."""

    certificate_path: Path
    key_path: Path
    client_ca_path: Path = Field(description="CA that client certificates must be signed by")
    ae_in_certificate: bool = Field(
        default=False, description="The calling AE title must stand in the certificate: common name, DNS or URI name"
    )


class WebTls(Section):
    """The certificate of the screens."""

    certificate_path: Path
    key_path: Path


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


class ByUrl(Section):
    """Spoken to by HTTP."""

    url: Url
    tls: ClientTls | None = None

    @model_validator(mode="after")
    def _scheme(self) -> ByUrl:
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
