"""How this box enters its fleet and renews its certificate: HTTPS to the server, which the CA's fingerprint proves.

The token holds that fingerprint: the CA's certificate is fetched from whoever answers, compared, and only then is
anything said. A new key goes to disk on trial (``Identity.renew``); the link takes it where a broker does, and goes
back where none does.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import random
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import TypeAdapter, ValidationError

from appliance.clock import Clock
from appliance.config.values import HttpsUrl
from appliance.errors import ApplianceError, ConfigError, ConflictError, TransientError
from appliance.fleet.device.identity import Enrolment, Identity, NotEnrolledError, Trust
from appliance.fleet.keys import DeviceKey
from engines.signing import parse_strict

log = logging.getLogger(__name__)

#: What a signature of ours says that it is for; the server has the same two.
RENEW, PRESENT = "scanside/renew/v1", "scanside/present/v1"
SIGNATURE, DEVICE = "X-Scanside-Signature", "X-Scanside-Device"
_TOKEN = re.compile(r"(box-[a-z2-7]{16})\.[A-Za-z0-9_-]{32}\.([0-9a-f]{64})")
_URL: TypeAdapter[str] = TypeAdapter(HttpsUrl)
_MOST_BYTES = 256 * 1024
_TIMEOUT_S = 30.0
_TRIES = 3
#: Where a machine's serial number stands; the first that holds one.
_SERIALS = (
    "/sys/class/dmi/id/product_serial",
    "/sys/firmware/devicetree/base/serial-number",
    "/sys/class/dmi/id/product_uuid",
    "/etc/machine-id",
)
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
#: Makers who forgot it.
_NO_SERIALS = frozenset({"none", "default", "unknown", "0", "notspecified", "tobefilledbyo.e.m."})
#: Of its life a certificate has so much behind it when it is renewed, and up to this much more, by device.
_RENEW_FROM, _RENEW_SPREAD = 2 / 3, 0.05
#: The certificate is shown to the server so often: one that was restored from a backup knows it again.
_PRESENT_S = 6 * 3600.0
_AGAIN_S, _MOST_AGAIN_S = 300.0, 6 * 3600.0


class EnrolError(ApplianceError):
    """The server refuses; the text is its own."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and whom to believe.

    Attributes:
        url: As https://fleet.example.org:8443.
        ca_path: Its CA, PEM.
        proxy_url: An HTTP proxy on the way.
    """

    url: str
    ca_path: Path
    proxy_url: str | None = None

    def post(self, path: str, body: bytes, signature: str = "") -> dict[str, Any]:
        """Ask, and read the answer.

        Raises:
            EnrolError: The server says no.
            TransientError: It does not answer, or cannot now.
        """
        return self._say("POST", path, body, {"Content-Type": "application/json", SIGNATURE: signature})

    def put(self, path: str, body: bytes, device: str, signature: str) -> dict[str, Any]:
        """Bring a file, signed by the device's key, and read the answer.

        Raises:
            EnrolError: The server says no.
            TransientError: It does not answer, or cannot now.
        """
        headers = {"Content-Type": "application/octet-stream", DEVICE: device, SIGNATURE: signature}
        return self._say("PUT", path, body, headers)

    def line(self, timeout_s: float) -> http.client.HTTPSConnection:
        """To whoever asks for files (``files.HttpsSource``); not connected yet.

        Raises:
            ConfigError: The CA cannot be read.
        """
        return _line(self.url, self.proxy_url, self._context(), timeout_s)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self.ca_path)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{self.ca_path}: no CA: {error}; enrol the box anew") from error
        return context

    def _say(
        self, method: Literal["POST", "PUT"], path: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        status, answer = _ask(self.url, self.proxy_url, self._context(), method, path, body, headers)
        try:
            told = parse_strict(answer)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise TransientError(f"{self.url}{path} answered {status} and no JSON")
        if status == 200:
            return told
        said = str(told.get("error", ""))[:300]
        if status in {429, 500, 502, 503, 504}:
            raise TransientError(f"{self.url}{path} answered {status}: {said}")
        raise EnrolError(f"{self.url} refuses: {said}")


def enrol(
    folder: Path,
    url: str,
    token: str,
    *,
    serial: str,
    hardware: str = "",
    proxy_url: str | None = None,
) -> Identity:
    """Enter a fleet.

    Args:
        folder: The identity's (``state_path/fleet``).
        url: The server's, as the service team gives it.
        token: One-time, likewise.
        serial: Of this machine; the token is for it alone.
        hardware: What kind of machine it is.
        proxy_url: An HTTP proxy on the way.

    Raises:
        ConfigError: URL or token are none, or whoever answers there is not the server of the token.
        ConflictError: The box is in a fleet.
        EnrolError: The server refuses.
        TransientError: It does not answer.
    """
    if (folder / "identity.json").exists():
        raise ConflictError("this box is in a fleet already; 'scanside fleet leave' first")
    found = _TOKEN.fullmatch(token.strip())
    if found is None:
        raise ConfigError("the token is cut off or changed; copy all of it, as the service team gave it")
    try:
        url = _URL.validate_python(url.rstrip("/"))
    except ValidationError as error:
        raise ConfigError(f"{url}: give the server's address as https://fleet.example.org:8443") from error
    ca = fetch_ca(url, found[2], proxy_url)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pinned = folder / "ca.crt.pinned"
    pinned.write_bytes(ca)
    try:
        return _enrol(folder, Server(url, pinned, proxy_url), token.strip(), found[1], serial, hardware)
    finally:
        pinned.unlink(missing_ok=True)


def _enrol(folder: Path, server: Server, token: str, device: str, serial: str, hardware: str) -> Identity:
    key = DeviceKey.generate()
    asked = {"token": token, "serial": serial, "csr": key.csr(device).decode(), "hardware": hardware}
    # The same key each time: where only the answer got lost, the server gives it again.
    told = _tries(lambda: server.post("/v1/enrol", json.dumps(asked).encode()))
    try:
        enrolment = Enrolment.model_validate(
            {name: told[name] for name in ("tenant", "device", "server_url", "brokers")}
        )
        trust = Trust.model_validate(told["trust"])
        chain = str(told["chain"]).encode()
    except (ValidationError, KeyError) as error:
        raise EnrolError(f"{server.url} answered with something else than an enrolment: {error}") from error
    if enrolment.device != device:
        raise EnrolError(f"{server.url} answered for another device; have a new token made")
    return Identity.save(folder, enrolment, trust, key=key, chain=chain, ca=server.ca_path.read_bytes())


def renew(identity: Identity, proxy_url: str | None = None) -> None:
    """Get a certificate for a new key; both are on trial from then on.

    Raises:
        EnrolError: The server refuses.
        TransientError: It does not answer.
    """
    key = DeviceKey.generate()
    device = identity.enrolment.device
    body = json.dumps({"device": device, "csr": key.csr(device).decode()}).encode()
    server = Server(identity.enrolment.server_url, identity.ca_path, proxy_url)
    told = _tries(lambda: server.post("/v1/renew", body, identity.key.sign(RENEW, body)))
    chain = told.get("chain")
    if not isinstance(chain, str):
        raise EnrolError(f"{server.url} answered without a certificate")
    identity.renew(key, chain.encode())


def present(identity: Identity, proxy_url: str | None = None) -> None:
    """Show the server the certificate that we have.

    Raises:
        EnrolError: The server does not take it.
        TransientError: It does not answer.
    """
    chain = identity.certificate_path.read_text("ascii")
    body = json.dumps({"device": identity.enrolment.device, "chain": chain}).encode()
    server = Server(identity.enrolment.server_url, identity.ca_path, proxy_url)
    server.post("/v1/present", body, identity.key.sign(PRESENT, body))


def renew_at(certificate: x509.Certificate) -> datetime:
    """When a certificate is renewed: two thirds into its life and a little more, spread over the fleet."""
    digest = hashlib.sha256(certificate.fingerprint(hashes.SHA256())).digest()
    share = _RENEW_FROM + _RENEW_SPREAD * int.from_bytes(digest[:4], "big") / 2**32
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * share


def serial_number(paths: tuple[str, ...] = _SERIALS) -> str:
    """Of this machine.

    Raises:
        ConfigError: Nothing tells it.
    """
    for path in paths:
        try:
            text = Path(path).read_text("ascii", "replace").strip("\0 \n\t")
        except OSError:
            continue
        if _SERIAL.fullmatch(text) and text.replace(" ", "").lower() not in _NO_SERIALS:
            return text
    raise ConfigError("this machine does not tell its serial number; give the one on its plate with --serial")


class RenewStage:
    """Renews the certificate in time and shows it to the server now and then. A ``Stage`` of the box."""

    name = "fleet-renew"
    max_step_s = 300.0

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        proxy_url: str | None = None,
        rng: random.Random | None = None,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        """Look after the identity in ``folder``.

        Args:
            folder: Of the identity.
            clock: The wall clock decides; the other one paces.
            proxy_url: An HTTP proxy on the way.
            rng: Chance, so that not all boxes ask at once.
            renewed: Called when a new pair lies there on trial.
        """
        self._folder = folder
        self._clock = clock
        self._proxy_url = proxy_url
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, no secret
        self._renewed = renewed
        self._asked = False
        self._delay_s = _AGAIN_S
        self._renew_from = float("-inf")
        self._present_from = clock.monotonic() + self._rng.uniform(0, _AGAIN_S)

    def ask(self) -> None:
        """Renew now (a job says so)."""
        self._asked = True
        self._renew_from = float("-inf")

    def step(self) -> bool:
        """Look, and act where it is time."""
        if (self._folder / "next").exists():
            return False  # the link has not looked at the last one yet
        try:
            identity = Identity.load(self._folder)
        except NotEnrolledError:
            return False
        now_mono = self._clock.monotonic()
        if now_mono >= self._renew_from and not identity.is_on_trial and (self._asked or self._is_due(identity)):
            self._renew(identity, now_mono)
        elif now_mono >= self._present_from:
            self._present_from = now_mono + self._rng.uniform(0.9, 1.1) * _PRESENT_S
            present(identity, self._proxy_url)
        return False

    def _is_due(self, identity: Identity) -> bool:
        certificate = x509.load_pem_x509_certificate(identity.certificate_path.read_bytes())
        return self._clock.now() >= renew_at(certificate)

    def _renew(self, identity: Identity, now_mono: float) -> None:
        self._renew_from = now_mono + self._rng.uniform(0.5, 1.0) * self._delay_s
        self._delay_s = min(self._delay_s * 2, _MOST_AGAIN_S)
        renew(identity, self._proxy_url)
        self._asked, self._delay_s, self._renew_from = False, _AGAIN_S, now_mono + _AGAIN_S
        log.info("fleet: a new certificate is on trial")
        self._renewed()


def fetch_ca(url: str, fingerprint: str, proxy_url: str | None = None) -> bytes:
    """The CA's certificate, PEM, from whoever answers, where it is the one of the fingerprint.

    Raises:
        ConfigError: Somebody else answers.
        TransientError: Nobody does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Nothing is said here and nothing believed but what the fingerprint proves.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    status, body = _ask(url, proxy_url, context, "GET", "/v1/ca.crt", None, {})
    try:
        found = x509.load_pem_x509_certificate(body) if status == 200 else None
    except ValueError:
        found = None
    if found is None or found.fingerprint(hashes.SHA256()).hex() != fingerprint:
        raise ConfigError(
            f"{url} is not the server of this token (its CA is another): check the address; somebody may be in between"
        )
    return body


def _ask(
    url: str,
    proxy_url: str | None,
    context: ssl.SSLContext,
    method: Literal["GET", "POST", "PUT"],
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        line = _line(url, proxy_url, context, _TIMEOUT_S)
        try:
            line.request(method, parts.path.rstrip("/") + path, body, dict(headers))
            answer = line.getresponse()
            data = answer.read(_MOST_BYTES + 1)
        finally:
            line.close()
    except ssl.SSLCertVerificationError as error:
        raise TransientError(f"{host}:{port} shows a certificate that does not hold: {error.verify_message}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransientError(f"{host}:{port} does not answer: {error}") from error
    if len(data) > _MOST_BYTES:
        raise TransientError(f"{host}:{port} answered with more than {_MOST_BYTES} bytes")
    return answer.status, data


def _line(url: str, proxy_url: str | None, context: ssl.SSLContext, timeout_s: float) -> http.client.HTTPSConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if not proxy_url:
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    proxy = urlsplit(proxy_url)
    line = http.client.HTTPSConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout_s, context=context)
    headers = {}
    if proxy.username:
        told = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(told.encode()).decode()}"
    line.set_tunnel(host, port, headers)
    return line


def _tries(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    for _ in range(_TRIES - 1):
        try:
            return call()
        except TransientError as error:
            log.info("fleet: %s; once more", error)
    return call()
