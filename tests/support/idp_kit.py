"""A hospital's OpenID Connect provider, written with Authlib and served over HTTPS; it can be told to misbehave."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import KeySet, RSAKey
from tls_kit import server_side

CLIENT, SECRET = "scanside", "s3cret of the client"


class _Client(ClientMixin):
    def __init__(self, redirect_uris):
        self.redirect_uris = redirect_uris

    def get_client_id(self):
        return CLIENT

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_redirect_uri(self, uri):
        return uri in self.redirect_uris

    def check_client_secret(self, secret):
        return secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_response_type(self, kind):
        return kind == "code"

    def check_grant_type(self, kind):
        return kind == "authorization_code"


class _Code(SimpleNamespace):
    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope

    def get_nonce(self):
        return self.nonce

    def get_auth_time(self):
        return int(time.time())

    def get_acr(self):
        return None

    def get_amr(self):
        return None


class Idp(AuthorizationServer):
    """The provider.

    Attributes:
        person: Claims of whoever signs in there; None: they press Cancel.
        changes: Claims that replace what a good ID token has.
        signs_with: The key of ID tokens; another than the published one for a forger.
        is_down: Whether every request is cut.
    """

    def __init__(self):
        super().__init__()
        self.clients = _Client(set())
        self.first_key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self.issuer = ""
        self.reset()
        self.register_token_generator("default", BearerTokenGenerator(lambda *_, **__: secrets.token_urlsafe(24)))
        self.register_grant(_Grant, [CodeChallenge(required=True), _IdToken()])

    def reset(self):
        """As it behaves when nothing is wrong."""
        self.codes = {}
        self.key = self.signs_with = self.first_key
        self.algorithm = "RS256"
        self.person = {"sub": "4711", "preferred_username": "li.wei", "name": "Li Wei", "groups": ["radiologists"]}
        self.changes = {}
        self.is_down = False

    def query_client(self, client_id):
        return self.clients if client_id == CLIENT else None

    def save_token(self, token, request):
        pass

    def send_signal(self, *_, **__):
        pass

    def create_oauth2_request(self, request):
        method, path, headers, fields = request
        made = _Request(method, self.issuer + path, headers=headers)
        made.fields = fields
        made.payload = BasicOAuth2Payload(fields)
        return made

    def handle_response(self, status, body, headers):
        return status, json.dumps(body) if isinstance(body, dict) else body, list(headers)

    def answer(self, method, path, headers, body):
        """Status, body and headers for one request."""
        parts = urlsplit(path)
        fields = dict(parse_qsl(body if method == "POST" else parts.query))
        request = (method, path, headers, fields)
        if parts.path == "/.well-known/openid-configuration":
            endpoints = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            found = {name: self.issuer + place for name, place in endpoints.items()}
            return self.handle_response(200, {"issuer": self.issuer} | found, [])
        if parts.path == "/keys":
            return self.handle_response(200, KeySet([self.key]).as_dict(private=False), [])
        if parts.path == "/authorize":
            oauth = self.create_oauth2_request(request)
            grant = self.get_authorization_grant(oauth)
            return self.create_authorization_response(oauth, grant_user=self.person, grant=grant)
        if parts.path == "/token":
            return self.create_token_response(request)
        return 404, "", []


class _Request(OAuth2Request):
    @property
    def args(self):
        return self.fields

    @property
    def form(self):
        return self.fields


class _Grant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

    def save_authorization_code(self, code, request):
        data = request.payload.data
        self.server.codes[code] = _Code(
            code=code,
            redirect_uri=request.payload.redirect_uri,
            scope=request.payload.scope,
            nonce=data.get("nonce"),
            code_challenge=data.get("code_challenge"),
            code_challenge_method=data.get("code_challenge_method"),
            person=request.user,
        )

    def query_authorization_code(self, code, client):
        return self.server.codes.get(code)

    def delete_authorization_code(self, authorization_code):
        del self.server.codes[authorization_code.code]

    def authenticate_user(self, authorization_code):
        return authorization_code.person


class _IdToken(OpenIDCode):
    def __call__(self, grant):
        self.server = grant.server
        super().__call__(grant)

    def exists_nonce(self, nonce, request):
        return False

    def resolve_client_private_key(self, client):
        return self.server.signs_with

    def get_client_algorithm(self, client):
        return self.server.algorithm

    def get_encode_header(self, client):
        return {"alg": self.server.algorithm, "kid": self.server.signs_with.kid}

    def get_client_claims(self, client):
        return {"iss": self.server.issuer, "aud": CLIENT}

    def generate_user_info(self, user, scope):
        return user | self.server.changes


@contextlib.contextmanager
def serving_idp(pair):
    """A running provider with the certificate of ``pair``."""
    idp = Idp()

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def _all(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if idp.is_down:
                self.close_connection = True
                return
            status, text, headers = idp.answer(self.command, self.path, dict(self.headers), body)
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _all  # noqa: N815 - http.server's own names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = server_side(pair).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None
    idp.issuer = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield idp
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
