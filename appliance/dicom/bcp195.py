"""TLS as BCP 195 (RFC 9325) and PS3.15 §B.12 want it: for the listener and for every server that we call."""

from __future__ import annotations

import ssl
from pathlib import Path

#: For TLS 1.2: forward secrecy and authenticated encryption. The suites of TLS 1.3 are all of that kind.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
_CRL = b"-----BEGIN X509 CRL-----"


def harden(context: ssl.SSLContext) -> None:
    """TLS 1.2 or later, and no weak suite."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)


def trust(context: ssl.SSLContext, ca_path: Path) -> None:
    """Take certificates of this CA alone; where its CRL stands in the same file, none that it has revoked.

    Raises:
        OSError: The file cannot be read.
        ssl.SSLError: It holds no certificate in PEM form.
    """
    context.load_verify_locations(ca_path)
    if _CRL in ca_path.read_bytes():
        # An expired CRL refuses everybody, loudly: who publishes one must renew it.
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
