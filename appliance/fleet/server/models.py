"""Which models boxes can fetch: brought in, listed, withdrawn. They are the vendor's; every tenant may see them.

A model is listed twice: in the TUF repository, which release keys sign and boxes believe, and in a table, which pages
and roll-outs read. The repository is written first; a command that was cut off in between is simply called again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, insert, select, update
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # its __all__ has not all

from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import write_audit
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_files import INCOMING, missing
from appliance.fleet.server.repository_rules import model_target
from appliance.fleet.server.tables import model
from appliance.fleet.wire import JobArgs
from engines.archive import pack, unpack
from engines.errors import EngineError
from engines.gate import GateReport, gate_package
from engines.package import load_package
from engines.signing import PrivateKey, PublicKey

Gate = Callable[[Path, Sequence[PublicKey]], GateReport]


@dataclass(frozen=True, slots=True)
class Signers:
    """Who signs a change: release keys for this one call, and the server's own."""

    release: Sequence[PrivateKey]
    online: PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a package says of itself, and where it lies in the repository."""

    package: str
    version: str
    digest: str
    status: str
    title: dict[str, str]
    markets: list[str]
    min_agent: str
    target: TargetFile


def bring_model(
    repository: Repository, source: Path, makers: Sequence[PublicKey], *, min_agent: str = "", gate: Gate = gate_package
) -> Found:
    """Check a package as a box will, and put it among the blobs; nobody sees it yet.

    Args:
        repository: Where to.
        source: A package's folder or archive.
        makers: Whose signatures under packages count.
        min_agent: The lowest version of Scanside that can run it; "" where it does not matter.
        gate: ``engines.gate.gate_package``; tests give another.

    Raises:
        ConfigError: It is not signed by a maker, altered, wrong, or cannot be kept.
        NotFoundError: There is no repository.
    """
    if not repository.exists():
        raise missing()
    with tempfile.TemporaryDirectory(dir=repository.folder, prefix=INCOMING) as name:
        incoming = Path(name)
        try:
            # From here on a copy of our own, which nobody changes after it was checked.
            archive = source if source.is_file() else pack(source, incoming / "brought.zip")
            folder = unpack(archive, incoming / "package")
            report = gate(folder, makers)
            package = load_package(folder, keys=makers)
            if (package.name, package.version, package.digest) != (report.name, report.version, report.digest):
                raise ConfigError(f"{source} was altered while it was checked; call this again")
            checked = pack(folder, incoming / "checked.zip")
        except EngineError as error:
            raise ConfigError(str(error).replace(str(incoming / "package"), str(source))) from error
        path = model_target(package.name, package.version)
        _nameable(package.name, package.version, package.digest, path)
        markets = sorted(package.manifest.regulatory)
        custom = {
            "package": package.name,
            "version": package.version,
            "digest": package.digest,
            "min_agent": min_agent,
            "markets": markets,
        }
        return Found(
            package=package.name,
            version=package.version,
            digest=package.digest,
            status=package.manifest.status,
            title=package.manifest.title.model_dump(mode="json"),
            markets=markets,
            min_agent=min_agent,
            target=repository.put(checked, path, custom),
        )


def list_model(
    engine: Engine, repository: Repository, found: Found, signers: Signers, *, actor: str, now: datetime
) -> None:
    """Let boxes fetch what was brought in.

    Raises:
        ConflictError: Another package of this name and version was there before, or too few release keys sign.
        ConfigError: The repository is damaged, or does not know the server's key.
    """
    with read(engine) as connection:
        _refuse_another(connection, found)
    if repository.targets().get(found.target.path) != found.target:
        repository.publish(signers.release, signers.online, now, add=[found.target])
    with write(engine) as connection:
        before = _refuse_another(connection, found)
        values = {
            "digest": found.digest,
            "target": found.target.path,
            "size": found.target.length,
            "sha256": found.target.hashes["sha256"],
            "status": found.status,
            "title": found.title,
            "markets": found.markets,
            "min_agent": found.min_agent,
            "withdrawn_at": None,
            "withdrawn_by": None,
        }
        key = (model.c.package == found.package, model.c.version == found.version)
        if before is None:
            fresh = {"package": found.package, "version": found.version, "added_at": now, "added_by": actor}
            connection.execute(insert(model).values(**fresh, **values))
        else:
            connection.execute(update(model).where(*key).values(**values))
        told = {"digest": found.digest, "sha256": found.target.hashes["sha256"], "keys": _keyids(signers)}
        _told(connection, "model.add", found.package, found.version, actor, now, told)


def withdraw_model(
    engine: Engine,
    repository: Repository,
    package: str,
    version: str,
    signers: Signers,
    *,
    why: str,
    actor: str,
    now: datetime,
) -> None:
    """List it no more: no box fetches it from now on. Boxes that have it are told by jobs (``model.withdraw``).

    Raises:
        NotFoundError: There is no such model.
        ConflictError: It is withdrawn already, or too few release keys sign.
    """
    with read(engine) as connection:
        row = get_model(connection, package, version)
    if row.withdrawn_at is not None:
        raise ConflictError(f"{package} {version} was withdrawn on {row.withdrawn_at:%Y-%m-%d}")
    if row.target in repository.targets():
        repository.publish(signers.release, signers.online, now, withdraw=[row.target])
    with write(engine) as connection:
        key = (model.c.package == package, model.c.version == version)
        connection.execute(update(model).where(*key).values(withdrawn_at=now, withdrawn_by=actor))
        _told(connection, "model.withdraw", package, version, actor, now, {"why": why, "keys": _keyids(signers)})


def list_models(connection: Connection) -> list[Row[Any]]:
    """All of them, the withdrawn too (``withdrawn_at``): by package, the newest first."""
    return list(connection.execute(select(model).order_by(model.c.package, model.c.added_at.desc(), model.c.version)))


def get_model(connection: Connection, package: str, version: str) -> Row[Any]:
    """One of them.

    Raises:
        NotFoundError: There is none.
    """
    row = connection.execute(select(model).where(model.c.package == package, model.c.version == version)).first()
    if row is None:
        raise NotFoundError(f"there is no model {package} {version}; 'scanside-fleet model list' shows them")
    return row


def _refuse_another(connection: Connection, found: Found) -> Row[Any] | None:
    key = (model.c.package == found.package, model.c.version == found.version)
    row = connection.execute(select(model).where(*key)).first()
    if row is not None and row.digest != found.digest:
        raise ConflictError(
            f"{found.package} {found.version} is known with the digest {row.digest[:16]}, this one has"
            f" {found.digest[:16]}; a version never changes: give it another"
        )
    return row


def _nameable(package: str, version: str, digest: str, target: str) -> None:
    """Refuse here what no job could name."""
    try:
        JobArgs(package=package, version=version, digest=digest, target=target)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{first['loc'][0]} {first['input']!r} fits in no job: {first['msg']}") from error


def _keyids(signers: Signers) -> list[str]:
    return [key.public.keyid for key in signers.release]


def _told(
    connection: Connection, act: str, package: str, version: str, actor: str, now: datetime, detail: dict[str, Any]
) -> None:
    write_audit(connection, act=act, subject=f"{package} {version}", actor=actor, now=now, detail=detail)
