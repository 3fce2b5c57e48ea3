"""The keys by which boxes know what their server says: ``online`` in a file of the server, ``release`` never here.

``online`` signs acknowledgements, desired documents and every job, and lies beside the database. A key of the role
``release`` signs, as the second, what changes models: the server knows its public half alone, and whoever approves
names the file of the private one on the command line, for the moment of one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, true, update

from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.device.identity import Trust
from appliance.fleet.server.tables import server_key
from engines.durable import write_private
from engines.errors import SignatureError
from engines.signing import PrivateKey, PublicKey, add_signature, generate, load_private, load_public, sign

Role = Literal["online", "release"]
#: In the folder ``keys``.
ONLINE = "online.key"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The private key that the running server has."""

    online: PrivateKey

    @classmethod
    def open(cls, folder: Path) -> ServerKeys:
        """Read it; the first time, make it.

        Raises:
            ConfigError: The file is there and holds no such key, or others may read it.
        """
        path = folder / ONLINE
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, generate().pem().encode())
        try:
            return cls(load_private(path))
        except SignatureError as error:
            raise ConfigError(f"{error}; every box trusts this one key, so put it back from a backup") from error

    def sign(self, kind: str, payload: bytes) -> bytes:
        """An envelope (DSSE) of ``wire.ACK_TYPE``, ``TWIN_TYPE`` or ``JOB_TYPE``."""
        return sign(kind, payload, [self.online])

    def sign_too(self, kind: str, envelope: bytes) -> bytes:
        """An envelope that was made before the server's key changed, for boxes that know the old one no more."""
        return add_signature(envelope, kind, self.online)


def add_key(connection: Connection, key: PublicKey, role: Role, name: str, *, now: datetime) -> None:
    """Let it count; the same again changes nothing. ``key_rotation.publish_trust`` tells boxes that are here already.

    Raises:
        ConflictError: It has the other role, or was retired.
    """
    row = connection.execute(select(server_key).where(server_key.c.keyid == key.keyid)).first()
    if row is not None:
        if row.role != role or row.retired_at is not None:
            raise ConflictError(f"the key {key.keyid} is known as {row.role}, or was retired; make another")
        return
    connection.execute(insert(server_key).values(keyid=key.keyid, role=role, name=name, pem=key.pem(), made_at=now))


def retire_key(connection: Connection, keyid: str, *, now: datetime) -> None:
    """Count its signatures no more.

    Raises:
        NotFoundError: No such key of the role ``release``.
    """
    changed = connection.execute(
        update(server_key)
        .where(server_key.c.keyid == keyid, server_key.c.role == "release", server_key.c.retired_at.is_(None))
        .values(retired_at=now)
    )
    if not changed.rowcount:
        raise NotFoundError(f"there is no release key {keyid!r}; 'scanside-fleet key list' shows them")


def keys_of(connection: Connection, role: Role, *, retired: bool = False) -> tuple[PublicKey, ...]:
    """Public keys of a role that count; with ``retired`` also those that counted once."""
    rows = connection.execute(
        select(server_key.c.pem, server_key.c.name)
        .where(server_key.c.role == role, true() if retired else server_key.c.retired_at.is_(None))
        .order_by(server_key.c.made_at, server_key.c.keyid)
    )
    return tuple(load_public(row.pem, row.name) for row in rows)


def trust(connection: Connection, release_threshold: int) -> Trust:
    """What a box is told at its enrolment to obey.

    Raises:
        ConfigError: The server's own key was never made known.
        ConflictError: There are more than boxes take.
    """
    online = tuple(key.pem() for key in keys_of(connection, "online"))
    if not online:
        raise ConfigError("no key signs for this server yet; start it once with 'scanside-fleet up'")
    release = tuple(key.pem() for key in keys_of(connection, "release"))
    try:
        return Trust(online=online, release=release, release_threshold=release_threshold)
    except ValidationError as error:
        raise ConflictError("boxes know at most eight keys of a kind; retire one first") from error
