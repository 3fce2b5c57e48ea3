"""From the configuration to the KServe server that sessions are opened on, and which packages run there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from appliance.config import Config, KServe
from appliance.errors import ConfigError
from appliance.triage.engine_messages import KServeWish
from appliance.triage.message_base import MAX_PEM
from engines.backends.kserve import KServeServer
from engines.manifest import Manifest


def runs_on_kserve(config: Config, package: str) -> bool:
    """Whether the configuration gives a package to the KServe server."""
    section = config.kserve
    return section is not None and (not section.packages or package in section.packages)


def kserve_wishes(config: Config) -> Callable[[Manifest], KServeWish | None]:
    """For each package the server on which it should run, or None; certificates are read now, once.

    Raises:
        ConfigError: As ``kserve_server``.
    """
    if config.kserve is None:
        return lambda _: None
    wish = KServeWish(**asdict(kserve_server(config.kserve)))
    return lambda manifest: wish if runs_on_kserve(config, manifest.name) else None


def kserve_server(section: KServe) -> KServeServer:
    """The server with its certificates as text: the worker, which opens sessions, cannot read the configuration.

    Raises:
        ConfigError: A certificate or key cannot be read, is too long, or is none.
    """
    tls = section.tls
    if tls is None:
        return KServeServer(address=section.address, timeout_s=section.timeout_s)
    return KServeServer(
        address=section.address,
        timeout_s=section.timeout_s,
        ca=_pem("ca_path", tls.ca_path),
        certificate=_pem("certificate_path", tls.certificate_path),
        key=_pem("key_path", tls.key_path),
        server_name=tls.server_name,
    )


def _pem(key: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PEM + 1).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"kserve.tls.{key}: {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(msg) from error
    if len(text) > MAX_PEM:
        msg = f"kserve.tls.{key}: {path} is longer than {MAX_PEM // 1024} KiB; name a file for this server alone"
        raise ConfigError(msg)
    if "-----BEGIN " not in text:
        msg = f"kserve.tls.{key}: {path} holds no PEM; convert it with openssl"
        raise ConfigError(msg)
    return text
