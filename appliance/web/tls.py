"""HTTPS as BCP 195 wants it."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from appliance.dicom.bcp195 import harden
from appliance.errors import ConfigError


def server_context(certificate_path: Path, key_path: Path) -> ssl.SSLContext:
    """The context of the screens' server.

    Raises:
        ConfigError: A file is missing, unreadable or no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    try:
        context.load_cert_chain(certificate_path, key_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"screen.tls: certificate {certificate_path} with key {key_path}: {error}; "
            "give PEM files that belong together and that the service may read"
        ) from error
    return context


def validity(certificate_path: Path) -> tuple[datetime, datetime]:
    """From when until when the certificate holds that a PEM file shows first: a server's own.

    Raises:
        ConfigError: The file cannot be read or holds no certificate.
    """
    from cryptography import x509  # asked for once, by a box with TLS

    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{certificate_path}: no certificate can be read: {error}; give a PEM file") from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
