"""The hospital's sign-in, by OpenID Connect: authorization code with PKCE, state and nonce (OpenID Connect Core §3.1).

Everything here blocks: call it in a pool. Nothing is kept of the provider but its configuration, for ten minutes.
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode, urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.oauth2.client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from appliance.clock import Clock
from appliance.config import Oidc
from appliance.dicom.bcp195 import harden, trust
from appliance.errors import ApplianceError, ConfigError
from appliance.records import UserRole

#: Signatures with a key that the provider alone has; a shared secret (HS256) or none at all is no proof.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_TIMEOUT_S = 5.0
_MAX_BYTES = 1024 * 1024
_CONFIGURATION_S = 600.0
#: How far the provider's clock may be from ours.
_LEEWAY_S = 60


class ProviderDown(ApplianceError):  # noqa: N818 - a state, not a fault
    """The provider does not answer, or not as one does."""


class Refused(ApplianceError):  # noqa: N818 - a state, not a fault
    """What came does not prove who somebody is, or they have no role here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A sign-in that is under way at the provider."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says it is. ``subject`` is never given to anybody else; ``name`` may change."""

    subject: str
    name: str
    full_name: str
    role: UserRole
    #: When they last proved who they are to the provider; None where it does not say.
    proved_at: datetime | None


class Provider:
    """The provider of ``screen.oidc``."""

    def __init__(self, settings: Oidc, clock: Clock) -> None:
        """Read the secret and the CA.

        Raises:
            ConfigError: One of the files cannot be read.
        """
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._configuration: tuple[float, dict[str, Any]] | None = None
        self._keys: KeySet | None = None
        try:
            secret = settings.client_secret_path and settings.client_secret_path.read_text("utf-8").partition("\n")[0]
            self._tls = ssl.create_default_context()
            if settings.ca_path is not None:
                self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                trust(self._tls, settings.ca_path)
            harden(self._tls)
        except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
            raise ConfigError(f"screen.oidc: {error}; give files that the service may read") from error
        self._secret = (secret or "").strip()

    def begin(self, redirect_uri: str, *, again: bool = False) -> tuple[str, Begun]:
        """Where to send a browser, and what to keep until it comes back.

        Args:
            redirect_uri: Where the browser comes back to.
            again: Have the person prove themselves although the provider knows them (§3.1.2.1).

        Raises:
            ProviderDown: Its configuration cannot be had.
        """
        begun = Begun(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
        )
        url, _ = self._client(redirect_uri).create_authorization_url(
            self._endpoint("authorization_endpoint"),
            state=begun.state,
            nonce=begun.nonce,
            code_verifier=begun.verifier,
            **({"prompt": "login", "max_age": "0"} if again else {}),
        )
        return str(url), begun

    def finish(self, begun: Begun, answer: Mapping[str, str]) -> Person:
        """Who came back.

        Args:
            begun: Of ``begin``; its state was the answer's.
            answer: The query of the address that the provider sent the browser to.

        Raises:
            ProviderDown: The token cannot be had.
            Refused: The provider refused, its token does not hold, or the person has no role here.
        """
        if "error" in answer:
            # Anybody can write it into the address: no line of the log is theirs to make.
            raise Refused(f"the provider said {answer['error']!r:.80}")
        if answer.get("iss", self._settings.issuer) != self._settings.issuer:
            raise Refused("another provider answered")  # RFC 9207
        try:
            token = self._client(begun.redirect_uri).fetch_token(
                self._endpoint("token_endpoint"),
                grant_type="authorization_code",
                code=answer.get("code", ""),
                redirect_uri=begun.redirect_uri,
                code_verifier=begun.verifier,
            )
        except (AuthlibBaseError, ValueError) as error:
            raise Refused(f"the code was not taken: {error}") from error
        return self._person(self._claims(token, begun.nonce))

    def _claims(self, token: Mapping[str, Any], nonce: str) -> CodeIDToken:
        """The ID token, checked (OpenID Connect Core §3.1.3.7)."""
        settings = self._settings
        text = token.get("id_token")
        if not isinstance(text, str):
            raise Refused("the provider gave no ID token")
        try:
            try:
                decoded = self._decode(text)
            except (InvalidKeyIdError, ValueError):
                self._keys = None  # they were changed since
                decoded = self._decode(text)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": settings.issuer},
                    # Authlib itself looks at the audience only where there is an azp.
                    "aud": {"essential": True, "value": settings.client_id},
                },
                {"nonce": nonce, "client_id": settings.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(now=int(self._clock.now().timestamp()), leeway=_LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError) as error:
            raise Refused(f"the ID token does not hold: {error}") from error
        return claims

    def _decode(self, text: str) -> jwt.Token:
        if self._keys is None:
            self._keys = KeySet.import_key_set(self._get(self._endpoint("jwks_uri")))  # type: ignore[arg-type]
        registry = JWSRegistry(algorithms=list(_ALGORITHMS), strict_check_header=False)
        return jwt.decode(text, key=self._keys, registry=registry)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        groups = _at(claims, self._settings.claim)
        listed = groups if isinstance(groups, list) else [groups]
        held = {one for one in listed if isinstance(one, str)}
        role = next((role for group, role in self._settings.roles.items() if group in held), None)
        if role is None:
            raise Refused("no group of this person has a role here")
        subject = str(claims["sub"])
        name = next((str(claims[key]) for key in ("preferred_username", "email") if claims.get(key)), subject)
        full_name = str(claims.get("name") or name)
        proved = claims.get("auth_time")  # Authlib has seen to it that it is a number
        return Person(
            subject=f"{self._settings.issuer} {subject}",
            name=name,
            full_name=full_name,
            role=role,
            proved_at=datetime.fromtimestamp(proved, timezone.utc) if proved else None,
        )

    def _client(self, redirect_uri: str) -> OAuth2Client:
        return OAuth2Client(
            _Session(self),
            client_id=self._settings.client_id,
            client_secret=self._secret or None,
            scope=self._settings.scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )

    def _endpoint(self, name: str) -> str:
        """An address of the provider's configuration (OpenID Connect Discovery §4)."""
        with self._lock:
            now = self._clock.monotonic()
            if self._configuration is None or now - self._configuration[0] > _CONFIGURATION_S:
                found = self._get(self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self._settings.issuer:
                    raise ProviderDown(f"it calls itself {found.get('issuer')!r}; write that as screen.oidc.issuer")
                self._configuration, self._keys = (now, found), None
            address = self._configuration[1].get(name)
        if not isinstance(address, str) or not address.startswith("https://"):
            raise ProviderDown(f"its configuration has no https address as {name}")
        return address

    def _get(self, address: str) -> dict[str, Any]:
        status, body = self.ask("GET", address, None, {"Accept": "application/json"})
        try:
            found = json.loads(body) if status == 200 else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderDown(f"{address} answered {status} and no JSON object")
        return found

    def ask(self, method: str, address: str, body: str | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """One request over TLS: no redirect is followed, no proxy asked.

        Raises:
            ProviderDown: No answer in time, or by somebody whom the CA does not vouch for.
        """
        parts = urlsplit(address)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=self._tls
        )
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body, dict(headers))
            answer = connection.getresponse()
            data = answer.read(_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ProviderDown(f"{parts.hostname} does not answer: {error}") from error
        finally:
            connection.close()
        if len(data) > _MAX_BYTES:
            raise ProviderDown(f"{parts.hostname} answered with more than {_MAX_BYTES} bytes")
        return answer.status, data


class _Session:
    """What Authlib asks the provider with."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> _Answer:
        url, given, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return _Answer(*self._provider.ask("POST", url, body, given))


@dataclass(frozen=True, slots=True)
class _Answer:
    """As Authlib reads one."""

    status_code: int
    body: bytes

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise ProviderDown(f"the provider answered {self.status_code}")

    def json(self) -> Any:
        return json.loads(self.body)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or one inside others by a path of names with dots."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
