"""Tokens by which one machine enters the fleet, once and soon: ``device id.secret.fingerprint of the CA``.

The device id follows from the secret, so that nobody chooses one; by the fingerprint the box knows its server before it
says anything. In the database lies a digest of the secret alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from sqlalchemy import Connection, insert, select

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Scope, find_device, write_audit

_TOKEN = re.compile(r"(box-[a-z2-7]{16})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


@dataclass(frozen=True, slots=True)
class Token:
    """One that was just made.

    Attributes:
        text: For the person at the box, shown once and kept nowhere.
        device: The id that the box will have.
    """

    text: str
    device: str
    expires_at: datetime


def device_of(secret: str) -> str:
    """The device id of a token's secret."""
    digest = hashlib.sha256(b"device\n" + secret.encode()).digest()
    return "box-" + base64.b32encode(digest[:10]).decode().lower()


def fingerprint_of(root_pem: bytes) -> str:
    """By which a box knows the server's CA before it says anything: SHA-256 of the certificate, hex."""
    return x509.load_pem_x509_certificate(root_pem).fingerprint(hashes.SHA256()).hex()


def make_token(
    connection: Connection,
    scope: Scope,
    *,
    serial: str,
    site: str,
    root: bytes,
    now: datetime,
    minutes: int,
    replaces: str | None = None,
    by: int | None = None,
    actor: str = "system",
) -> Token:
    """Let one machine in, once and soon.

    Args:
        connection: Of ``db.write``.
        scope: Of who asks.
        serial: Of the machine, as 'scanside fleet enrol' reads or is told it.
        site: Where it will stand.
        root: Certificate of the CA, PEM.
        now: The server's clock.
        minutes: How long it holds.
        replaces: The device whose place it takes: same site; heard no more from then on.
        by: Account of who makes it.
        actor: Their name, for the audit.

    Raises:
        NotFoundError: No such site or device in the scope.
        ConflictError: The serial number is none.
    """
    if not _SERIAL.fullmatch(serial):
        raise ConflictError(f"{serial!r}: a serial number is 1 to 64 letters, digits or ._:/-")
    where = connection.execute(
        select(t.site.c.tenant).where(t.site.c.id == site, scope.holds(t.site.c.tenant))
    ).scalar_one_or_none()
    if where is None:
        raise NotFoundError(f"there is no site {site!r}; 'scanside-fleet site list' shows them")
    if replaces is not None and find_device(connection, scope, replaces).site != site:
        raise NotFoundError(f"{replaces!r} does not stand at {site!r}")
    secret = secrets.token_urlsafe(24)
    made = Token(
        f"{device_of(secret)}.{secret}.{fingerprint_of(root)}", device_of(secret), now + timedelta(minutes=minutes)
    )
    connection.execute(
        insert(t.enrol_token).values(
            digest=digest_of(secret),
            serial=serial,
            tenant=where,
            site=site,
            replaces=replaces,
            made_at=now,
            made_by=by,
            expires_at=made.expires_at,
        )
    )
    write_audit(
        connection,
        act="token.make",
        subject=made.device,
        actor=actor,
        account=by,
        tenant_id=where,
        now=now,
        detail={"site": site, "serial": serial, "replaces": replaces},
    )
    return made


def parse_token(text: str) -> tuple[str, str] | None:
    """Device id and digest of a token; None where it is none."""
    found = _TOKEN.fullmatch(text)
    if found is None or device_of(found[2]) != found[1]:
        return None
    return found[1], digest_of(found[2])


def digest_of(secret: str) -> str:
    """By which the database knows a token."""
    return hashlib.sha256(secret.encode()).hexdigest()
