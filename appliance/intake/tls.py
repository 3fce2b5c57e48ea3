"""DICOM over TLS: as BCP 195 wants it, and a client certificate of the hospital's own CA (PS3.15 §B.12).

Revocation is checked where the file ``client_ca_path`` holds the CA's CRL beside its certificate; nobody is asked over
the network (OCSP). Certificates are read once: whoever renews them, or the CRL, restarts the service.
"""

from __future__ import annotations

import ssl
from typing import Any

from appliance.dicom.bcp195 import harden, trust
from appliance.errors import ConfigError
from appliance.intake.contract import TlsSettings


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context that accepts only peers with a certificate of ``client_ca_path``.

    Raises:
        ConfigError: A file is missing, unreadable or no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(settings.certificate_path, settings.key_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"TLS certificate {settings.certificate_path} with key {settings.key_path}: {error}; "
            "give PEM files that belong together and that the service may read"
        ) from error
    try:
        trust(context, settings.client_ca_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS client CA {settings.client_ca_path}: {error}; give a PEM file") from error
    return context


def certificate_names(sock: ssl.SSLSocket) -> frozenset[str]:
    """Common name, and DNS and URI alternative names, of the peer's certificate; empty where it has none."""
    certificate: dict[str, Any] = sock.getpeercert() or {}
    subject = certificate.get("subject", ())
    alternatives = certificate.get("subjectAltName", ())
    names = {str(value) for group in subject for key, value in group if key == "commonName"}
    return frozenset(names | {str(value) for key, value in alternatives if key in {"DNS", "URI"}})
