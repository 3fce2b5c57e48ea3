"""step-ca (smallstep) as the CA of a fleet: its HTTPS API with tokens of a JWK provisioner.

Of its API only ``/1.0/sign``, ``/1.0/revoke`` and ``/1.0/crl`` are called. The tests answer as its documentation says;
no installation of it was at hand.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from appliance.errors import ConfigError
from appliance.fleet.server.ca import AuthorityDown, Revoked, is_issued_by
from engines.signing import parse_strict

_TIMEOUT_S = 20.0
_MOST_BYTES = 16 * 1024 * 1024
_TOKEN_S = 300


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A JWK provisioner: who may ask for certificates."""

    name: str
    kid: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, name: str, path: Path) -> Provisioner:
        """Read its private key, decrypted ('step crypto jwk decrypt'), as JSON.

        Raises:
            ConfigError: It is none.
        """
        try:
            document = parse_strict(path.read_bytes())
            # Only EC keys have all three; on another curve than P-256 the point is none.
            x, y, d = (int.from_bytes(_unpadded(document[part]), "big") for part in ("x", "y", "d"))
            key = ec.EllipticCurvePrivateNumbers(d, ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())).private_key()
            return cls(name, str(document["kid"]), key)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"ca.provisioner_key_path: {path}: {error}; give the provisioner's private key as JSON,"
                " decrypted by 'step crypto jwk decrypt'"
            ) from error

    def token(self, audience: str, subject: str, root_sha256: str, now_s: int) -> str:
        """A one-time token (JWT, ES256) for one call."""
        head = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        claims = {
            "aud": audience,
            "exp": now_s + _TOKEN_S,
            "iat": now_s,
            "iss": self.name,
            "jti": secrets.token_hex(32),
            "nbf": now_s - 60,
            "sans": [subject],
            "sha": root_sha256,
            "sub": subject,
        }
        told = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self.key.sign(told.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{told}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class StepCa:
    """``CertAuthority`` by step-ca."""

    def __init__(self, url: str, root_path: Path, provisioner: Provisioner) -> None:
        """Prepare; nothing is asked yet.

        Args:
            url: As https://ca.example.org:9000.
            root_path: Its root certificate, PEM; boxes and the broker trust it too.
            provisioner: By whom certificates are asked for.

        Raises:
            ConfigError: The root cannot be read.
        """
        try:
            self._root = x509.load_pem_x509_certificate(root_path.read_bytes())
            self._tls = ssl.create_default_context(cafile=str(root_path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"ca.root_path: {root_path}: {error}; give step-ca's root certificate, PEM") from error
        self._url = url.rstrip("/")
        self._sha256 = self._root.fingerprint(hashes.SHA256()).hex()
        self._provisioner = provisioner
        #: Told it already; a serial is told once per start.
        self._revoked: set[str] = set()

    def root(self) -> bytes:
        """Its root certificate, PEM."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    def issue(self, request: x509.CertificateSigningRequest, device: str, days: int) -> bytes:
        """A certificate for a box, with the chain below the root."""
        answer = self._post(
            "/1.0/sign",
            {
                "csr": request.public_bytes(serialization.Encoding.PEM).decode(),
                "ott": self._token("/1.0/sign", device),
                "notAfter": f"{days * 24}h",
            },
        )
        chain = answer.get("certChain") or [answer.get("crt"), answer.get("ca")]
        if not isinstance(chain, list) or not all(isinstance(one, str) for one in chain):
            raise AuthorityDown(f"{self._url} answered without a certificate")
        pem = self._without_root("".join(chain))
        if not is_issued_by(pem, self.root()):
            raise AuthorityDown(f"{self._url} answered with a certificate that its root did not issue")
        return pem

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        """Tell it of what is revoked, then ask for its list. ``now`` is the CA's own."""
        del now
        for serial in [one.serial for one in revoked if one.serial not in self._revoked]:
            number = str(int(serial, 16))
            told = {"serial": number, "ott": self._token("/1.0/revoke", number), "passive": True, "reasonCode": 0}
            self._post("/1.0/revoke", told, also={400, 409})  # it was revoked before
            self._revoked.add(serial)
        status, body = self._ask("GET", "/1.0/crl", None)
        if status != 200:
            raise AuthorityDown(f"{self._url}/1.0/crl answered {status}; switch its 'crl' on")
        try:
            found = x509.load_der_x509_crl(body)
        except ValueError:
            raise AuthorityDown(f"{self._url}/1.0/crl answered with something else than a list") from None
        return found.public_bytes(serialization.Encoding.PEM)

    def _token(self, path: str, subject: str) -> str:
        return self._provisioner.token(self._url + path, subject, self._sha256, int(time.time()))

    def _without_root(self, chain: str) -> bytes:
        try:
            links = x509.load_pem_x509_certificates(chain.encode())
        except ValueError:
            raise AuthorityDown(f"{self._url} answered with something else than certificates") from None
        kept = [link for link in links if link != self._root]
        return b"".join(link.public_bytes(serialization.Encoding.PEM) for link in kept)

    def _post(self, path: str, document: Mapping[str, Any], also: set[int] | None = None) -> dict[str, Any]:
        status, body = self._ask("POST", path, json.dumps(document))
        if also and status in also:
            return {}
        try:
            answer = parse_strict(body)
        except ValueError:
            answer = None
        if status not in (200, 201) or not isinstance(answer, dict):
            raise AuthorityDown(f"{self._url}{path} answered {status}; its log says why")
        return answer

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        parts = urlsplit(self._url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=self._tls
        )
        try:
            connection.request(method, parts.path + path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise AuthorityDown(f"{self._url} does not answer: {error}") from error
        finally:
            connection.close()
        return answer.status, data


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
