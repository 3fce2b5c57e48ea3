"""Changes of the keys that boxes obey: in the table, in the repository's root, and in its ``trust.json``, as one.

Release keys change in one step. The server's own key changes in two, because boxes must know the new one before the
server signs with it, and must have taken that before the old one counts no more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, select, update

from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.server.registry import DeviceState
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.server_keys import ONLINE, ServerKeys, add_key, keys_of, trust
from appliance.fleet.server.tables import audit, device, job, server_key
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import JobState
from engines.durable import sync_folder, write_private
from engines.errors import SignatureError
from engines.signing import PrivateKey, PublicKey, generate, load_private

_NEXT = "online.next.key"
#: Of the audit; its detail says whether that changed anything for boxes.
PUBLISHED, REPOSITORY = "key.publish", "repository"


def publish_trust(
    connection: Connection,
    repository: Repository,
    release_threshold: int,
    signers: Sequence[PrivateKey],
    online: PrivateKey,
    now: datetime,
) -> bool:
    """Let the repository say what the table says, in the transaction that changed it; returns whether there is one.

    Raises:
        ConflictError: There is one, and too few release keys sign, old or new.
        ConfigError: Fewer release keys are left than must sign.
    """
    if not repository.exists():
        return False
    repository.publish(signers, online, now, trust=trust(connection, release_threshold))
    return True


def begin_online(connection: Connection, folder: Path, now: datetime) -> PublicKey:
    """Make the server's next key, which boxes are to know from now on. Called again it is the same one.

    Args:
        connection: Of ``db.write``.
        folder: ``keys`` of the server's folder.
        now: When.

    Raises:
        ConfigError: The file of the next key cannot be used.
    """
    path = folder / _NEXT
    if not path.exists():
        write_private(path, generate().pem().encode())
    try:
        public = load_private(path).public
    except SignatureError as error:
        raise ConfigError(f"{error}; remove the file, and begin again") from error
    add_key(connection, public, "online", "server", now=now)
    return public


def made_at(connection: Connection, keyid: str) -> datetime:
    """Since when a key counts.

    Raises:
        NotFoundError: There is none.
    """
    asked = select(server_key.c.made_at).where(server_key.c.keyid == keyid)
    found: datetime | None = connection.execute(asked).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"there is no key {keyid!r}; 'scanside-fleet key list' shows them")
    return found


def changed_at(connection: Connection) -> datetime | None:
    """When last was changed whose signatures count, or how many must sign; None before the first key."""
    keys = connection.execute(select(func.max(server_key.c.made_at), func.max(server_key.c.retired_at))).one()
    named = (audit.c.subject == REPOSITORY, audit.c.act == PUBLISHED)
    published = select(audit.c.at, audit.c.detail).where(*named).order_by(audit.c.at.desc())
    found = [row.at for row in connection.execute(published) if row.detail.get("changes")][:1]
    return max((one for one in (*keys, *found) if one is not None), default=None)


def behind(since: datetime) -> Select[Any]:
    """Ids of boxes that have not taken the keys of ``since``: neither enrolled nor done with ``root.update`` later."""
    done = exists().where(
        and_(
            job.c.device == device.c.id,
            job.c.op == str(Op.ROOT_UPDATE),
            job.c.state == str(JobState.SUCCEEDED),
            job.c.made_at >= since,
        )
    )
    asked = select(device.c.id).where(device.c.state == str(DeviceState.ENROLLED), device.c.made_at < since, ~done)
    return asked.order_by(device.c.id)


def next_online(connection: Connection, folder: Path) -> PrivateKey:
    """The key that takes over: of the file, or, where the last call was cut off, of the one that signs already.

    Raises:
        ConflictError: No change of the server's key has begun.
    """
    path = folder / _NEXT
    known = keys_of(connection, "online")
    try:
        found = load_private(path) if path.exists() else ServerKeys.open(folder).online
    except SignatureError as error:
        raise ConfigError(str(error)) from error
    if len(known) < 2 or found.public.raw not in {key.raw for key in known}:
        raise ConflictError("no change of the server's key has begun; call 'scanside-fleet key rotate online' first")
    return found


def take_over(folder: Path) -> None:
    """Sign with the next key from now on; the old file stays beside it, under its id. A running server is restarted."""
    path, own = folder / _NEXT, folder / ONLINE
    if path.exists():
        kept = folder / f"online.{ServerKeys.open(folder).online.public.keyid}.old"
        kept.unlink(missing_ok=True)
        os.link(own, kept)
        path.replace(own)
        sync_folder(folder)


def retire_online(connection: Connection, keep: PublicKey, now: datetime) -> list[str]:
    """Count every other key of the server no more; returns their ids."""
    asked = (server_key.c.role == "online", server_key.c.retired_at.is_(None), server_key.c.keyid != keep.keyid)
    gone = list(connection.execute(select(server_key.c.keyid).where(*asked)).scalars())
    connection.execute(update(server_key).where(*asked).values(retired_at=now))
    return gone
