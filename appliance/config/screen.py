"""The web server of the screens, who signs in there, and what is signed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from appliance.config.alerts import Escalation
from appliance.config.tls import WebTls
from appliance.config.values import HostName, HttpsUrl, ListenAddress, Origin, Port, Section, is_loopback
from appliance.records import UserRole


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

    host: ListenAddress = "127.0.0.1"
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
