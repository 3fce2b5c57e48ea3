"""Who this box is to its fleet: ids, key, certificate, where its server listens, and which keys it obeys.

The folder ``fleet`` of the state holds ``identity.json`` (written last: where it is missing, the box is not enrolled),
``device.key``, ``device.crt`` (the chain), ``ca.crt`` and ``trust.json``. A new pair of key and certificate comes as a
folder ``next``, so that no power cut leaves a key without its certificate, and the old pair stays in ``before`` until
a broker has taken the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.config.values import HttpsUrl
from appliance.errors import ConfigError
from appliance.fleet.keys import DeviceKey, KeyFault, public_of
from appliance.fleet.wire import Address, Id
from engines.durable import sync_folder, write_private
from engines.errors import SignatureError
from engines.signing import PublicKey, load_public

FOLDER = "fleet"
_IDENTITY, _TRUST, _KEY, _CERTIFICATE, _CA = "identity.json", "trust.json", "device.key", "device.crt", "ca.crt"
_NEXT, _BEFORE = "next", "before"
_ANEW = "enrol the box anew: scanside fleet enrol"
D = TypeVar("D", bound="_Document")


class NotEnrolledError(ConfigError):
    """This box belongs to no fleet yet."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Broker(_Document):
    """Where the server's broker listens: MQTT over TLS, the same through port 443 by ALPN, or by WebSocket."""

    kind: Literal["tls", "alpn", "wss"] = "tls"
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9/._-]{0,100}$")] = "/mqtt"


class Trust(_Document):
    """Public keys (Ed25519, PEM) of the server, by role.

    Attributes:
        online: Sign acknowledgements, desired documents and every job.
        release: Sign, besides one of ``online``, what ``wire.TWO_SIGNATURES`` lists.
        release_threshold: How many different ones of ``release`` must.
    """

    online: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]
    release: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    release_threshold: Annotated[int, Field(ge=1, le=8)] = 1

    def online_keys(self) -> tuple[PublicKey, ...]:
        """The keys of ``online``.

        Raises:
            SignatureError: One is no key.
        """
        return tuple(load_public(pem, f"online-{n}") for n, pem in enumerate(self.online, 1))

    def release_keys(self) -> tuple[PublicKey, ...]:
        """The keys of ``release``.

        Raises:
            SignatureError: One is no key.
        """
        return tuple(load_public(pem, f"release-{n}") for n, pem in enumerate(self.release, 1))


class Enrolment(_Document):
    """``identity.json``: what the server said when it took the box in."""

    tenant: Id
    device: Id
    server_url: HttpsUrl
    brokers: Annotated[tuple[Broker, ...], Field(min_length=1, max_length=8)]


@dataclass(frozen=True, slots=True)
class Identity:
    """A box that is enrolled."""

    folder: Path
    enrolment: Enrolment
    trust: Trust
    online: tuple[PublicKey, ...]
    release: tuple[PublicKey, ...]
    key: DeviceKey
    ends_at: datetime
    #: Of the files as they were read; another one says that something was renewed.
    stamp: tuple[tuple[int, int, int], ...]

    @property
    def address(self) -> Address:
        """Its topics."""
        return Address(self.enrolment.tenant, self.enrolment.device)

    @property
    def key_path(self) -> Path:
        """The private key, PEM."""
        return self.folder / _KEY

    @property
    def certificate_path(self) -> Path:
        """The certificate with its chain, PEM."""
        return self.folder / _CERTIFICATE

    @property
    def ca_path(self) -> Path:
        """Who signs the broker's and the server's certificates."""
        return self.folder / _CA

    @property
    def is_on_trial(self) -> bool:
        """Whether no broker has taken this certificate yet, while the one before it is still here."""
        return (self.folder / _BEFORE).is_dir()

    def is_stale(self) -> bool:
        """Whether the files have changed since they were read."""
        return (self.folder / _NEXT).is_dir() or _stamp(self.folder) != self.stamp

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read it, and end a renewal that was cut off.

        Raises:
            NotEnrolledError: The box is not enrolled.
            ConfigError: A file does not hold what it must.
            KeyFault: Key and certificate do not belong together, or cannot be read.
        """
        if not (folder / _IDENTITY).exists():
            raise NotEnrolledError(f"{folder}: this box is not enrolled; call: scanside fleet enrol")
        with _alone(folder):
            _swap(folder)
            return cls._read(folder)

    @classmethod
    def _read(cls, folder: Path) -> Identity:
        stamp = _stamp(folder)
        enrolment, trust = _read(folder / _IDENTITY, Enrolment), _read(folder / _TRUST, Trust)
        key = DeviceKey.load(folder / _KEY)
        certificate = _pem(folder / _CERTIFICATE)
        if not key.fits(public_of(certificate)):
            raise KeyFault(f"{folder / _CERTIFICATE}: of another key than {_KEY}; {_ANEW}")
        try:
            online, release = trust.online_keys(), trust.release_keys()
        except SignatureError as error:
            raise ConfigError(f"{folder / _TRUST}: {error}; {_ANEW}") from error
        return cls(
            folder=folder,
            enrolment=enrolment,
            trust=trust,
            online=online,
            release=release,
            key=key,
            ends_at=x509.load_pem_x509_certificate(certificate).not_valid_after_utc,
            stamp=stamp,
        )

    @staticmethod
    def save(folder: Path, enrolment: Enrolment, trust: Trust, *, key: DeviceKey, chain: bytes, ca: bytes) -> Identity:
        """Write all of it, on disk for good; a box that was enrolled before is another one from here on.

        Raises:
            KeyFault: The certificate is not of this key.
        """
        if not key.fits(public_of(chain)):
            raise KeyFault("the certificate that came is not of the key that asked for it; enrol again")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / _IDENTITY).unlink(missing_ok=True)
        for name in (_NEXT, _BEFORE):
            shutil.rmtree(folder / name, ignore_errors=True)
        sync_folder(folder)
        key.save(folder / _KEY)
        write_private(folder / _CERTIFICATE, chain)
        write_private(folder / _CA, ca)
        save_trust(folder, trust)
        write_private(folder / _IDENTITY, enrolment.model_dump_json(indent=1).encode())
        return Identity.load(folder)

    def renew(self, key: DeviceKey, chain: bytes) -> None:
        """Take a new pair, on trial: the link connects with it within seconds, and goes back where no broker takes it.

        Raises:
            KeyFault: The certificate is not of this key.
        """
        if not key.fits(public_of(chain)):
            raise KeyFault("the certificate that came is not of the key that asked for it; renew again")
        part = self.folder / f"{_NEXT}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        key.save(part / _KEY)
        write_private(part / _CERTIFICATE, chain)
        if not self.is_on_trial:  # else the last pair that a broker took is kept already
            self._keep()
        with _alone(self.folder):
            part.rename(self.folder / _NEXT)
            sync_folder(self.folder)

    def prove(self) -> None:
        """A broker has taken this certificate: the one before it is needed no more."""
        shutil.rmtree(self.folder / _BEFORE, ignore_errors=True)

    def fall_back(self) -> bool:
        """Take the pair before this one again, where there is one. Returns whether there was."""
        if not self.is_on_trial or (self.folder / _NEXT).exists():
            return False
        (self.folder / _BEFORE).rename(self.folder / _NEXT)
        sync_folder(self.folder)
        return True

    def _keep(self) -> None:
        part = self.folder / f"{_BEFORE}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        self.key.save(part / _KEY)
        write_private(part / _CERTIFICATE, _pem(self.certificate_path))
        part.rename(self.folder / _BEFORE)


def save_trust(folder: Path, trust: Trust) -> None:
    """Write ``trust.json``; the link and the jobs read it anew."""
    write_private(folder / _TRUST, trust.model_dump_json(indent=1).encode())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else reads or swaps meanwhile: the link, the renewal and the command line all do."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _swap(folder: Path) -> None:
    """Move what lies in ``next`` into place. Cut off at any point, the next call ends it."""
    fresh = folder / _NEXT
    if not fresh.is_dir():
        return
    for name in (_KEY, _CERTIFICATE):
        if (fresh / name).exists():
            (fresh / name).replace(folder / name)
    sync_folder(folder)
    shutil.rmtree(fresh, ignore_errors=True)


def _stamp(folder: Path) -> tuple[tuple[int, int, int], ...]:
    found = []
    for name in (_IDENTITY, _TRUST, _KEY, _CERTIFICATE, _CA):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFault(f"{path}: cannot be read: {error.strerror}; {_ANEW}") from error


def _read(path: Path, kind: type[D]) -> D:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; {_ANEW}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}; {_ANEW}") from error


def days_left(identity: Identity, now: datetime) -> float:
    """How long the certificate still holds, in days; negative where it has ended."""
    return (identity.ends_at - now.astimezone(timezone.utc)).total_seconds() / 86_400
