"""The server's folder: what lies where, and opening it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from sqlalchemy import Engine

from appliance.errors import ConfigError
from appliance.fleet.server.ca import CertAuthority, DevCa
from appliance.fleet.server.config import DevCaConfig, ServerConfig, StepCaConfig
from appliance.fleet.server.db import open_engine
from appliance.fleet.server.step_ca import Provisioner, StepCa
from appliance.web.tls import server_context

#: The tenant at the top, which the first start makes.
PLATFORM = "platform-1"
KEYS, CA, TLS, ADDRESSES, LOCK = "keys", "ca", "tls", "addresses.json", "up.lock"
#: How long the certificate holds that a development CA makes for the server itself.
SERVER_DAYS = 90


def root_of(config: ServerConfig) -> bytes:
    """Certificate of the CA, PEM.

    Raises:
        ConfigError: The server was never started.
    """
    path = config.ca.root_path if isinstance(config.ca, StepCaConfig) else config.folder / CA / "ca.crt"
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; start the server once with 'scanside-fleet up'") from error


def server_url(config: ServerConfig) -> str:
    """Where boxes enrol; a port that was free is known once the server runs."""
    port = config.https.port
    if port == 0:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((config.folder / ADDRESSES).read_text("ascii"))["https"])
    name = config.names[0]
    return f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"


def authority_of(config: ServerConfig) -> CertAuthority:
    """Who signs for boxes.

    Raises:
        ConfigError: A file of it cannot be read.
    """
    if isinstance(config.ca, DevCaConfig):
        return DevCa.open(config.folder / CA)
    provisioner = Provisioner.load(config.ca.provisioner, config.ca.provisioner_key_path)
    return StepCa(config.ca.url, config.ca.root_path, provisioner)


def https_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS of the addresses that boxes ask.

    Raises:
        ConfigError: The files cannot be read, or do not belong together.
    """
    try:
        return server_context(certificate, key)
    except ConfigError as error:
        raise ConfigError(str(error).replace("screen.tls", "ca.certificate_path and key_path")) from error


def holds_long(path: Path, names: Sequence[str], now: datetime) -> bool:
    """Whether a certificate is for these names and has a third of its life before it."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    said = {str(one.value) for one in alternatives}
    return said == set(names) and found.not_valid_after_utc - now > timedelta(days=SERVER_DAYS / 3)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only server of the folder.

    Raises:
        ConfigError: There is another.
    """
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{path.parent}: a fleet server runs in this folder already") from None
        yield


@contextlib.contextmanager
def database_of(config: ServerConfig) -> Iterator[Engine]:
    """The database, opened and not migrated."""
    path = config.database_path
    if path is not None:
        # Nobody else reads it, whatever the umask; SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = open_engine(config.database_url)
    try:
        yield engine
    finally:
        engine.dispose()
