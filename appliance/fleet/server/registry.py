"""Who is in the fleet: tenants, sites, boxes with their certificates; who may see which; and the audit of who did what.

A tenant is a node of a tree (platform > vendor > dealer > hospital). A ``Scope`` is such a node: what is asked for in
it sees the boxes of its tenant and of those below, and nothing says whether there are others. Every question about
boxes takes one; ``Scope.everything`` is the platform operator's.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import ColumnElement, Connection, and_, func, insert, literal, select, true, update
from sqlalchemy.engine import Row

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.keys import KeyFault, public_of
from appliance.fleet.server.replacement import inherit
from appliance.fleet.server.tables import account_role, audit, certificate, device, site, status, tenant
from appliance.records import Word

_ID = re.compile(r"[a-z0-9-]{8,40}")
#: Heartbeats come each minute (desired document: ``health_every_s``), with a tenth of jitter; three may be missed.
HEARTBEAT_S = 60
_MISSED = 3
_JITTER = 1.1


class TenantKind(Word):
    """What stands where in the tree."""

    PLATFORM = "platform"
    VENDOR = "vendor"
    DEALER = "dealer"
    HOSPITAL = "hospital"


class DeviceState(Word):
    """What the registry says of a box. Only an enrolled one is heard."""

    ENROLLED = "enrolled"
    DISABLED = "disabled"
    REPLACED = "replaced"


class Presence(Word):
    """What the link says of a box. Stale: it should be online, and three heartbeats are missing."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"
    NEVER = "never"


class CertificateState(Word):
    """Trial: issued and not seen yet. Superseded: a newer one was seen; it still opens what was signed before."""

    TRIAL = "trial"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Scope:
    """What somebody may see: the tenant of ``path`` and all below; ``""`` is everything."""

    path: str

    @classmethod
    def everything(cls) -> Scope:
        """Of the platform operator and of the server's own parts, nobody else."""
        return cls("")

    @classmethod
    def of(cls, connection: Connection, tenant_id: str) -> Scope:
        """That tenant and all below.

        Raises:
            NotFoundError: There is none of that id.
        """
        row = connection.execute(select(tenant.c.path, tenant.c.kind).where(tenant.c.id == tenant_id)).first()
        if row is None:
            raise NotFoundError(f"there is no tenant {tenant_id!r}; 'scanside-fleet tenant list' shows them")
        return cls("" if row.kind == TenantKind.PLATFORM else row.path)

    def holds(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """For a WHERE: whether the tenant that ``column`` names is in it."""
        if not self.path:
            return true()
        # An id has neither % nor _, so LIKE compares what it says.
        return column.in_(select(tenant.c.id).where(tenant.c.path.like(literal(self.path + "%"))))


def due_at(seen_at: datetime, every_s: float | None) -> datetime:
    """When the third heartbeat in a row will have been missed."""
    return seen_at + timedelta(seconds=_MISSED * (every_s or HEARTBEAT_S) * _JITTER)


def presence(row: Any, now: datetime) -> Presence:
    """Of a row with the columns of ``status``, each None where the box was never heard."""
    if row.last_seen_at is None:
        return Presence.NEVER
    if not row.online:
        return Presence.OFFLINE
    return Presence.STALE if row.due_at < now else Presence.ONLINE


def presence_is(wanted: Presence, now: datetime) -> ColumnElement[bool]:
    """``presence`` as a WHERE, over ``device`` outer joined with ``status``."""
    late = status.c.due_at < now
    return {
        Presence.NEVER: status.c.device.is_(None),
        Presence.OFFLINE: status.c.online.is_(False),
        Presence.STALE: and_(status.c.online.is_(True), late),
        Presence.ONLINE: and_(status.c.online.is_(True), ~late),
    }[wanted]


# Tenants and sites ---------------------------------------------------------------------------------------------------


def add_tenant(
    connection: Connection, tenant_id: str, name: str, kind: TenantKind, *, parent: str | None, now: datetime
) -> None:
    """Add one below ``parent`` (None: at the top).

    Raises:
        ConflictError: The id is taken or none.
        NotFoundError: No such parent.
    """
    _check_id(tenant_id)
    above = ""
    if parent is not None:
        found = connection.execute(select(tenant.c.path).where(tenant.c.id == parent)).scalar_one_or_none()
        if found is None:
            raise NotFoundError(f"there is no tenant {parent!r}")
        above = found
    if connection.execute(select(tenant.c.id).where(tenant.c.id == tenant_id)).first():
        raise ConflictError(f"there is a tenant {tenant_id!r} already")
    row = {"id": tenant_id, "name": name, "kind": str(kind), "parent": parent, "path": f"{above}{tenant_id}/"}
    connection.execute(insert(tenant).values(**row, made_at=now))


def add_site(
    connection: Connection,
    site_id: str,
    tenant_id: str,
    name: str,
    *,
    now: datetime,
    zone: str = "UTC",
    country: str = "",
) -> None:
    """Add a site of a tenant.

    Raises:
        ConflictError: The id is taken or none.
        NotFoundError: No such tenant.
    """
    _check_id(site_id)
    if not connection.execute(select(tenant.c.id).where(tenant.c.id == tenant_id)).first():
        raise NotFoundError(f"there is no tenant {tenant_id!r}")
    if connection.execute(select(site.c.id).where(site.c.id == site_id)).first():
        raise ConflictError(f"there is a site {site_id!r} already")
    row = {"id": site_id, "tenant": tenant_id, "name": name, "zone": zone, "country": country, "made_at": now}
    connection.execute(insert(site).values(**row))


# Boxes ---------------------------------------------------------------------------------------------------------------


def add_device(
    connection: Connection,
    device_id: str,
    site_id: str,
    serial: str,
    *,
    now: datetime,
    name: str = "",
    hardware: str = "",
) -> int:
    """Add a box to a site and its tenant; returns its number.

    Raises:
        ConflictError: The id is taken or none.
        NotFoundError: No such site.
    """
    _check_id(device_id)
    owner = connection.execute(select(site.c.tenant).where(site.c.id == site_id)).scalar_one_or_none()
    if owner is None:
        raise NotFoundError(f"there is no site {site_id!r}")
    if connection.execute(select(device.c.id).where(device.c.id == device_id)).first():
        raise ConflictError(f"there is a device {device_id!r} already")
    number = int(connection.execute(select(func.coalesce(func.max(device.c.number), 0) + 1)).scalar_one())
    connection.execute(
        insert(device).values(
            id=device_id,
            number=number,
            tenant=owner,
            site=site_id,
            serial=serial,
            name=name,
            state=str(DeviceState.ENROLLED),
            hardware=hardware,
            made_at=now,
        )
    )
    return number


def find_device(connection: Connection, scope: Scope, device_id: str) -> Row[Any]:
    """The row of a box that ``scope`` may see.

    Raises:
        NotFoundError: There is none, or it is another's; the text is the same.
    """
    row = connection.execute(select(device).where(device.c.id == device_id, scope.holds(device.c.tenant))).first()
    if row is None:
        raise NotFoundError(f"there is no device {device_id!r}")
    return row


def disable_device(connection: Connection, scope: Scope, device_id: str, *, now: datetime) -> None:
    """Hear it no more; its certificates stay in the list of those that are revoked while it is so.

    Raises:
        NotFoundError: No such device in the scope.
        ConflictError: It was replaced.
    """
    _move(connection, find_device(connection, scope, device_id), DeviceState.DISABLED, disabled_at=now)


def enable_device(connection: Connection, scope: Scope, device_id: str) -> None:
    """Hear it again.

    Raises:
        NotFoundError: No such device in the scope.
        ConflictError: It was replaced.
    """
    _move(connection, find_device(connection, scope, device_id), DeviceState.ENROLLED, disabled_at=None)


def replace_device(connection: Connection, scope: Scope, old: str, new: str, *, now: datetime) -> None:
    """Another machine took a box's place: the old one is heard no more and its certificates are revoked.

    Holds and places in roll-outs are the new one's then (``replacement``); its desired document follows (``heirs``).

    Raises:
        NotFoundError: One of them is not in the scope.
        ConflictError: They are of different sites, one and the same, or the old one was replaced before.
    """
    before, after = find_device(connection, scope, old), find_device(connection, scope, new)
    if before.id == after.id or before.site != after.site or after.state != DeviceState.ENROLLED:
        raise ConflictError(f"{new!r} cannot take the place of {old!r}: it must be another, enrolled, at the same site")
    _move(connection, before, DeviceState.REPLACED, disabled_at=now, replaced_by=new)
    revoke_certificates(connection, old, now=now)
    inherit(connection, old, new, now)


def _move(connection: Connection, row: Row[Any], to: DeviceState, **values: Any) -> None:
    if row.state == DeviceState.REPLACED:
        raise ConflictError(f"{row.id!r} was replaced by {row.replaced_by!r}; enrol the machine as a new device")
    connection.execute(update(device).where(device.c.id == row.id).values(state=str(to), **values))


# Certificates --------------------------------------------------------------------------------------------------------


def add_certificate(connection: Connection, device_id: str, pem: str, *, now: datetime) -> str:
    """Register one that was issued to a box, on trial until it is seen; returns its fingerprint.

    Raises:
        KeyFault: It is no certificate of an EC key, or names another device.
    """
    public_of(pem.encode())
    found = x509.load_pem_x509_certificate(pem.encode())
    names = [attribute.value for attribute in found.subject]
    if names != [device_id]:
        raise KeyFault(f"the certificate names {names}, not the device {device_id!r} alone")
    fingerprint = found.fingerprint(hashes.SHA256()).hex()
    connection.execute(
        insert(certificate).values(
            fingerprint=fingerprint,
            device=device_id,
            serial=f"{found.serial_number:x}",
            pem=pem,
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            state=str(CertificateState.TRIAL),
            made_at=now,
        )
    )
    return fingerprint


def see_certificate(connection: Connection, fingerprint: str, *, now: datetime) -> None:
    """A message was signed with it: from trial to current, and the one before it is superseded."""
    row = connection.execute(select(certificate).where(certificate.c.fingerprint == fingerprint)).first()
    if row is None or row.state != CertificateState.TRIAL:
        return
    connection.execute(
        update(certificate)
        .where(certificate.c.device == row.device, certificate.c.state == str(CertificateState.CURRENT))
        .values(state=str(CertificateState.SUPERSEDED))
    )
    connection.execute(
        update(certificate)
        .where(certificate.c.fingerprint == fingerprint)
        .values(state=str(CertificateState.CURRENT), seen_at=now)
    )


def public_keys(connection: Connection, device_id: str) -> list[EllipticCurvePublicKey]:
    """Keys whose signatures count as the box's: of every certificate that is not revoked, the newest first."""
    asked = select(certificate.c.pem).where(
        certificate.c.device == device_id, certificate.c.state != str(CertificateState.REVOKED)
    )
    found = []
    for pem in connection.scalars(asked.order_by(certificate.c.made_at.desc())):
        try:
            found.append(public_of(pem.encode()))
        except KeyFault:  # it opens nothing
            continue
    return found


def revoke_certificates(connection: Connection, device_id: str, *, now: datetime) -> list[str]:
    """Revoke all of a box; returns the serial numbers for the list that the broker reads (CRL)."""
    rows = connection.execute(
        select(certificate.c.serial).where(
            certificate.c.device == device_id, certificate.c.state != str(CertificateState.REVOKED)
        )
    ).all()
    connection.execute(
        update(certificate)
        .where(certificate.c.device == device_id, certificate.c.state != str(CertificateState.REVOKED))
        .values(state=str(CertificateState.REVOKED), revoked_at=now)
    )
    return [row.serial for row in rows]


# Audit ---------------------------------------------------------------------------------------------------------------


def write_audit(
    connection: Connection,
    *,
    act: str,
    subject: str,
    actor: str,
    now: datetime,
    account: int | None = None,
    tenant_id: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Add a row, chained to the one before, in the transaction of what it tells.

    Args:
        connection: Of ``db.write``.
        act: What was done, as ``device.replace``.
        subject: To what: an id.
        actor: Who: an account's name, or ``system``.
        now: When.
        account: Number of the account.
        tenant_id: Whose: who else may read the row.
        detail: Before and after, in ids and figures.
    """
    if connection.dialect.name == "postgresql":
        # Two writers at once would chain to the same row. SQLite's write transaction is alone by itself.
        connection.exec_driver_sql("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE")
    before = connection.execute(select(audit.c.hash).order_by(audit.c.number.desc()).limit(1)).scalar_one_or_none()
    row = {
        "at": now,
        "account": account,
        "actor": actor,
        "tenant": tenant_id,
        "act": act,
        "subject": subject,
        "detail": detail or {},
    }
    connection.execute(insert(audit).values(**row, hash=_chain(before or "", row)))


def broken_audit(connection: Connection) -> int | None:
    """The number of the first row that does not follow from the one before; None where the chain holds."""
    before = ""
    for row in connection.execute(select(audit).order_by(audit.c.number)):
        values = row._asdict()
        number, found = values.pop("number"), values.pop("hash")
        if found != _chain(before, values):
            return int(number)
        before = found
    return None


def roles_of(connection: Connection, account: int) -> list[tuple[str, str]]:
    """Tenant and role of each membership of an account."""
    rows = connection.execute(
        select(account_role.c.tenant, account_role.c.role).where(account_role.c.account == account)
    )
    return [(row.tenant, row.role) for row in rows]


def _chain(before: str, row: dict[str, Any]) -> str:
    told = json.dumps({**row, "at": row["at"].isoformat()}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{before}\n{told}".encode()).hexdigest()


def _check_id(text: str) -> None:
    if not _ID.fullmatch(text):
        raise ConflictError(f"{text!r}: an id is 8 to 40 of a-z, 0-9 and -")
