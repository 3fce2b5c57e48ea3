"""How a box comes into the fleet and stays in it: tokens, requests for certificates, renewals.

A token is made for one machine (its serial number), holds for minutes and counts once; here lies its digest alone. Who
has one chose nothing: the device id follows from the token, and the request must name it. A renewal is signed with the
present key, also some weeks after the certificate has ended. Nothing here trusts a clock of a box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, Engine, Row, select, update

from appliance.clock import Clock
from appliance.errors import ApplianceError, ConflictError
from appliance.fleet.device.identity import Broker
from appliance.fleet.keys import KeyFault, holds, public_of
from appliance.fleet.server import tables as t
from appliance.fleet.server.ca import CertAuthority, is_issued_by, read_request, spki
from appliance.fleet.server.config import EnrolConfig
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import (
    CertificateState,
    DeviceState,
    Scope,
    add_certificate,
    add_device,
    find_device,
    replace_device,
    see_certificate,
    write_audit,
)
from appliance.fleet.server.server_keys import trust
from appliance.fleet.server.tokens import parse_token

#: What the signature of a request says that it is for (``DeviceKey.sign``).
RENEW, PRESENT = "scanside/renew/v1", "scanside/present/v1"
#: More of a box's requests in a day are no renewals.
_MOST_A_DAY = 12


class Refused(ApplianceError):  # noqa: N818 - an answer, not a failure
    """A request that is not granted. ``status`` is HTTP's; the text is for the person at the box."""

    def __init__(self, status: int, text: str) -> None:
        """Refuse."""
        super().__init__(text)
        self.status = status


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EnrolRequest(_Asked):
    """``POST /v1/enrol``."""

    token: str = Field(max_length=200)
    serial: str = Field(max_length=64)
    csr: str = Field(max_length=8192)
    hardware: str = Field(default="", max_length=80, pattern=r"^[A-Za-z0-9 ._/-]*$")


class RenewRequest(_Asked):
    """``POST /v1/renew``, signed with the present key."""

    device: str = Field(max_length=40)
    csr: str = Field(max_length=8192)


class PresentRequest(_Asked):
    """``POST /v1/present``: the certificate that a box has, so that a server restored from a backup knows it again."""

    device: str = Field(max_length=40)
    chain: str = Field(max_length=32_768)


@dataclass(frozen=True, slots=True)
class Welcome:
    """What boxes are told of where things are."""

    server_url: str
    brokers: tuple[Broker, ...]


def lineage(connection: Connection, scope: Scope, device: str) -> list[str]:
    """A device and those whose place it took, newest first: their history is its history.

    Raises:
        NotFoundError: No such device in the scope.
    """
    find_device(connection, scope, device)
    found, after = [device], [device]
    while after:
        rows = connection.execute(
            select(t.device.c.id)
            .where(t.device.c.replaced_by.in_(after), scope.holds(t.device.c.tenant))
            .order_by(t.device.c.disabled_at.desc())
        )
        after = [row.id for row in rows if row.id not in found]
        found += after
    return found


class Enrolment:
    """Answers boxes. Knows no HTTP; ``door`` does."""

    def __init__(
        self,
        engine: Engine,
        authority: CertAuthority,
        clock: Clock,
        welcome: Callable[[], Welcome],
        settings: EnrolConfig,
        release_threshold: int = 1,
    ) -> None:
        """Answer out of ``engine``.

        Args:
            engine: The database.
            authority: Who signs.
            clock: The server's.
            welcome: Says where things are.
            settings: How long tokens and certificates hold.
            release_threshold: How many release keys boxes are to ask for.
        """
        self._engine = engine
        self._authority = authority
        self._clock = clock
        self._welcome = welcome
        self._settings = settings
        self._release_threshold = release_threshold

    def root(self) -> bytes:
        """The CA's certificate, PEM: for everybody."""
        return self._authority.root()

    def enrol(self, body: bytes) -> dict[str, Any]:
        """Take a box in.

        Raises:
            Refused: The token does not hold, or is another machine's.
            RequestFault: The request is none that may be signed.
            AuthorityDown: The CA does not answer; the token holds still.
        """
        asked = _parse(EnrolRequest, body)
        found = parse_token(asked.token)
        if found is None:
            raise Refused(403, "there is no such token; copy all of it")
        device, digest = found
        request = read_request(asked.csr.encode(), device)
        again = self._claim(digest, asked.serial, request)
        if again is not None:
            return self._told(again.device, again.pem)
        try:
            chain = self._authority.issue(request, device, self._settings.certificate_days).decode()
        except ApplianceError:
            self._give_back(digest)
            raise
        try:
            with write(self._engine) as connection:
                self._admit(connection, digest, device, chain, asked)
        except ConflictError as error:  # whose place it was to take was replaced meanwhile
            raise Refused(409, f"{error}; have another token made") from error
        return self._told(device, chain)

    def renew(self, body: bytes, signature: str) -> dict[str, Any]:
        """A certificate for a new key, asked for with the present one. The answer to the same request is the same.

        Raises:
            Refused: The box is unknown or heard no more, the signature is not of a certificate that may still renew.
            RequestFault: The request is none that may be signed.
            AuthorityDown: The CA does not answer.
        """
        asked = _parse(RenewRequest, body)
        now = self._clock.now()
        with read(self._engine) as connection:
            row = self._enrolled(connection, asked.device)
            rows = self._certificates(connection, row.id)
            present = self._signer(rows, RENEW, body, signature)
            if present.not_after + timedelta(days=self._settings.grace_days) < now:
                raise Refused(403, "the certificate ended too long ago; enrol the box anew with a token")
            request = read_request(asked.csr.encode(), row.id)
            if spki(request.public_key()) == spki(public_of(present.pem.encode())):
                raise Refused(422, "a renewal brings a new key")
            for one in rows:
                if one.state == CertificateState.TRIAL and _is_of(one.pem, request):
                    return {"chain": one.pem}
            recent = [one for one in rows if one.made_at > now - timedelta(days=1)]
            if len(recent) >= _MOST_A_DAY:
                raise Refused(429, "this box has renewed too often today")
        chain = self._authority.issue(request, row.id, self._settings.certificate_days).decode()
        with write(self._engine) as connection:
            add_certificate(connection, row.id, chain, now=now)
            self._write(connection, "device.renew", row.id, row.tenant)
        return {"chain": chain}

    def present(self, body: bytes, signature: str) -> dict[str, Any]:
        """Know a certificate of our CA again, where the database is older than it.

        Raises:
            Refused: It is not of our CA, not of this box, has ended or was revoked.
        """
        asked = _parse(PresentRequest, body)
        chain = asked.chain.encode()
        try:
            key = public_of(chain)
            leaf = x509.load_pem_x509_certificate(chain)
        except KeyFault as error:
            raise Refused(422, str(error)) from error
        if not holds(key, PRESENT, body, signature):
            raise Refused(403, "the signature is not of this certificate")
        now = self._clock.now()
        with write(self._engine) as connection:
            row = self._enrolled(connection, asked.device)
            fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
            known = fingerprint in {one.fingerprint for one in self._certificates(connection, row.id)}
            if not known:
                is_ours = is_issued_by(chain, self._authority.root()) and leaf.not_valid_after_utc > now
                revoked = connection.execute(
                    select(t.certificate.c.state).where(t.certificate.c.fingerprint == fingerprint)
                ).first()
                if not is_ours or revoked is not None:
                    raise Refused(403, "this certificate does not hold here; enrol the box anew with a token")
                add_certificate(connection, row.id, asked.chain, now=now)
                see_certificate(connection, fingerprint, now=now)
                self._write(connection, "device.present", row.id, row.tenant)
        return {"known": known}

    def _claim(self, digest: str, serial: str, request: x509.CertificateSigningRequest) -> Row[Any] | None:
        """Use the token up; the certificate that it brought where this very request comes again."""
        now = self._clock.now()
        c = t.enrol_token.c
        with write(self._engine) as connection:
            row = connection.execute(select(t.enrol_token).where(c.digest == digest)).first()
            if row is None:
                raise Refused(403, "there is no such token; copy all of it")
            if row.expires_at <= now:
                raise Refused(403, "the token has expired; have another one made")
            if row.serial != serial:
                raise Refused(403, f"the token is for another machine than {serial}; have one made for this one")
            claim = update(t.enrol_token).where(c.digest == digest, c.used_at.is_(None)).values(used_at=now)
            if not connection.execute(claim).rowcount:
                return self._same(connection, row, request)
        return None

    def _same(self, connection: Connection, row: Row[Any], request: x509.CertificateSigningRequest) -> Row[Any]:
        """The answer got lost on the way: who has the key that it was for gets it again."""
        if row.device is not None:
            for one in self._certificates(connection, row.device):
                if _is_of(one.pem, request):
                    return one
        raise Refused(403, "the token has been used; have another one made")

    def _give_back(self, digest: str) -> None:
        c = t.enrol_token.c
        with write(self._engine) as connection:
            connection.execute(update(t.enrol_token).where(c.digest == digest, c.device.is_(None)).values(used_at=None))

    def _admit(self, connection: Connection, digest: str, device: str, chain: str, asked: EnrolRequest) -> None:
        now = self._clock.now()
        row = connection.execute(select(t.enrol_token).where(t.enrol_token.c.digest == digest)).one()
        add_device(connection, device, row.site, asked.serial, now=now, hardware=asked.hardware)
        add_certificate(connection, device, chain, now=now)
        connection.execute(update(t.enrol_token).where(t.enrol_token.c.digest == digest).values(device=device))
        if row.replaces is not None:
            replace_device(connection, Scope.everything(), row.replaces, device, now=now)
        self._write(connection, "device.enrol", device, row.tenant, {"site": row.site, "replaces": row.replaces})

    def _enrolled(self, connection: Connection, device: str) -> Row[Any]:
        row = connection.execute(select(t.device).where(t.device.c.id == device)).first()
        if row is None or row.state != DeviceState.ENROLLED:
            raise Refused(403, "this box is not in the fleet; ask the service team")
        return row

    def _certificates(self, connection: Connection, device: str) -> list[Row[Any]]:
        c = t.certificate.c
        wanted = (str(CertificateState.TRIAL), str(CertificateState.CURRENT))
        rows = connection.execute(
            select(t.certificate).where(c.device == device, c.state.in_(wanted)).order_by(c.made_at.desc())
        )
        return list(rows)

    @staticmethod
    def _signer(rows: list[Row[Any]], kind: str, body: bytes, signature: str) -> Row[Any]:
        for one in rows:
            if holds(public_of(one.pem.encode()), kind, body, signature):
                return one
        raise Refused(403, "the signature is not of a certificate of this box that holds")

    def _write(
        self, connection: Connection, act: str, device: str, tenant: str, detail: dict[str, Any] | None = None
    ) -> None:
        write_audit(
            connection,
            act=act,
            subject=device,
            actor=f"device {device}",
            tenant_id=tenant,
            now=self._clock.now(),
            detail=detail,
        )

    def _told(self, device: str, chain: str) -> dict[str, Any]:
        where = self._welcome()
        with read(self._engine) as connection:
            tenant = connection.execute(select(t.device.c.tenant).where(t.device.c.id == device)).scalar_one()
            obeyed = trust(connection, self._release_threshold)
        return {
            "tenant": tenant,
            "device": device,
            "server_url": where.server_url,
            "brokers": [broker.model_dump(mode="json") for broker in where.brokers],
            "trust": obeyed.model_dump(mode="json"),
            "chain": chain,
        }


def _parse(kind: type[Any], body: bytes) -> Any:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Refused(422, f"{where}: {first['msg']}") from None


def _is_of(pem: str, request: x509.CertificateSigningRequest) -> bool:
    return spki(public_of(pem.encode())) == spki(request.public_key())
