"""Who may ask, what may be loaded, and that acts come from our own pages."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from appliance.web.guard import COOKIE, HEADER, Guard, Rules

TOKEN = "a" * 32


async def _app(scope, receive, send):
    await PlainTextResponse(scope["state"]["csrf"])(scope, receive, send)


def _ask(method="GET", rules=None, body=b"", path="/", **headers):
    given = {"host": "127.0.0.1:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items() if value],
    }  # fmt: skip
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": body}

    asyncio.run(Guard(_app, rules or Rules())(scope, receive, send))
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[-1]["body"].decode()


def _act(**changes):
    headers = {"origin": "http://127.0.0.1:8080", "cookie": f"{COOKIE}={TOKEN}", HEADER.replace("-", "_"): TOKEN}
    return _ask("POST", **(headers | changes))[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080"])
def test_the_machines_own_names_are_answered(host):
    assert _ask(host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.0.2.7", "[::2]"]
)
def test_another_name_bound_to_our_address_is_not_answered(host):
    status, headers, body = _ask(host=host)
    assert status == 421
    assert "set-cookie" not in headers
    assert "screen.names" in body


def test_every_answer_carries_a_policy_that_allows_nothing_from_elsewhere_and_nothing_inline():
    _, headers, _ = _ask()
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_a_new_reader_gets_a_token_that_scripts_cannot_read():
    _, headers, body = _ask()
    assert headers["set-cookie"] == f"{COOKIE}={body}; Path=/; HttpOnly; SameSite=Strict"
    assert len(body) == 32


def test_a_known_reader_keeps_the_token():
    _, headers, body = _ask(cookie=f"{COOKIE}={TOKEN}")
    assert body == TOKEN
    assert "set-cookie" not in headers


@pytest.mark.parametrize("cookie", ["<script>", "short", "a" * 33, '"' + "a" * 31])
def test_a_token_that_we_did_not_make_is_replaced(cookie):
    assert len(_ask(cookie=f"{COOKIE}={cookie}")[2]) == 32
    assert _ask(cookie=f"{COOKIE}={cookie}")[2] != cookie


def test_an_act_of_our_own_page_passes():
    assert _act() == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "https://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1:9090"},
        {"cookie": ""},
        {HEADER.replace("-", "_"): ""},
        {HEADER.replace("-", "_"): "b" * 32},
        {"cookie": f"{COOKIE}=b{TOKEN[1:]}"},
    ],
)
def test_an_act_from_elsewhere_or_without_token_is_refused(changes):
    assert _act(**changes) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_not_understood(method):
    assert _ask(method)[0] == 405


def test_an_address_longer_than_any_of_ours_is_refused_before_it_is_taken_apart():
    assert _ask(path="/studies/" + "9" * 5000)[0] == 414
