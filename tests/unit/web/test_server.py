"""The server's thread: loopback only, a taken port said plainly, and an end that does not wait for endless streams."""

from __future__ import annotations

import asyncio
import socket
import threading

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route

from appliance.errors import ConfigError, ConflictError, NotFoundError, StoreError
from appliance.web import sse
from appliance.web.access import ANYBODY, EVERYONE, Guarded
from appliance.web.app import MAX_BODY_BYTES, make_app, read_json
from appliance.web.guard import Rules
from appliance.web.pages import in_english
from appliance.web.pool import Pool
from appliance.web.server import WebServer


class _Calls:
    def __init__(self):
        self.names = []
        self.end = asyncio.Event()

    def start(self):
        self.names.append("start")

    def stop(self):
        self.names.append("stop")
        self.end.set()

    def over(self):
        self.names.append("end")


@pytest.fixture
def calls():
    return _Calls()


class _Strangers:
    """Nobody is known."""

    async def caller(self, _):
        return None

    async def unknown(self, _):
        return PlainTextResponse("who are you?", status_code=401)


class _Pages:
    """Draws an error as a line of HTML."""

    def trouble(self, _, status, what="", *, detail=""):
        return HTMLResponse(f"<h1>{status}</h1>{what} {detail}", status_code=status)


def _make(routes, pool, **more):
    return make_app(routes, pool, access=_Strangers(), pages=_Pages(), rules=Rules(), **more)


@pytest.fixture
def app(calls):
    pool = Pool()

    async def hello(_):
        return PlainTextResponse("hello")

    async def echo(request: Request):
        return JSONResponse(await read_json(request))

    async def fail(request: Request):
        kinds = {"missing": NotFoundError, "conflict": ConflictError, "store": StoreError}
        raise kinds[request.path_params["kind"]]("why")

    async def stream(_):
        async def events():
            yield sse.event("beat", {"text": "a\nb"}, seq=7)
            await calls.end.wait()

        return sse.EventStream(events())

    async def threads(_):
        names = [await pool.run(lambda: threading.current_thread().name) for _ in range(20)]
        return JSONResponse(sorted(set(names)))

    routes = [
        Guarded("/", hello, roles=ANYBODY),
        Guarded("/echo", echo, roles=ANYBODY, methods=["POST"]),
        Guarded("/fail/{kind}", fail, roles=ANYBODY),
        Guarded("/stream", stream, roles=ANYBODY),
        Guarded("/threads", threads, roles=ANYBODY),
        Guarded("/private", hello, roles=EVERYONE),
    ]
    return _make(routes, pool, on_start=calls.start, on_stop=calls.stop, on_end=calls.over)


@pytest.fixture
def server(app):
    made = WebServer(app, port=0)
    yield made
    made.stop()


@pytest.fixture
def client(server):
    address = f"http://127.0.0.1:{server.start()}"
    with httpx.Client(base_url=address, headers={"Origin": address}, timeout=60) as opened:
        yield opened


@pytest.mark.req("R-SCREEN-06")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.example", ""])  # noqa: S104 - refused
def test_another_address_than_this_machine_is_refused_before_anything_listens(app, host):
    with pytest.raises(ConfigError, match=r"screen\.host"):
        WebServer(app, host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_names_of_this_machine_are_served(app, host):
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    server = WebServer(app, host, 0)
    port = server.start()
    try:
        name = f"[{host}]" if ":" in host else host
        assert httpx.get(f"http://{name}:{port}/", timeout=60).text == "hello"
        assert server.is_serving
    finally:
        server.stop()
    assert not server.is_serving


def test_a_taken_port_is_said_with_the_key_to_change(app):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match=r"screen\.port"):
        WebServer(app, port=taken.getsockname()[1]).start()


def test_the_end_does_not_wait_for_an_endless_stream_and_calls_in_order(server, client, calls):
    with client.stream("GET", "/stream") as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(5)] == ["retry: 1000", "", "id: 7", "event: beat", 'data: {"text":"a\\nb"}']
        server._server.config.timeout_graceful_shutdown = 600
        server.stop(60)
        assert not server.is_serving
    assert calls.names == ["start", "stop", "end"]


def test_an_application_that_does_not_start_is_an_error(app, calls):
    def broken():
        raise RuntimeError("no store")

    pool = Pool()
    server = WebServer(_make([], pool, on_start=broken, on_stop=calls.stop, on_end=calls.over), port=0)
    with pytest.raises(ConfigError, match="did not start"):
        server.start()
    server.stop()


def test_streams_are_not_cached_and_not_buffered(client):
    with client.stream("GET", "/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"


def test_blocking_work_stays_on_four_threads_for_ever(client):
    assert set(client.get("/threads").json()) <= {f"web-db_{n}" for n in range(4)}


def test_an_address_that_does_not_say_who_may_is_a_mistake_of_ours(calls):
    async def hello(_):
        return PlainTextResponse("hello")

    with pytest.raises(ValueError, match="Guarded"):
        _make([Route("/", hello)], Pool(), on_start=calls.start, on_stop=calls.stop, on_end=calls.over)


def test_a_stranger_is_asked_who_they_are_before_anything_is_looked_at(client):
    answer = client.get("/private")
    assert (answer.status_code, answer.text) == (401, "who are you?")


@pytest.mark.parametrize(("kind", "status"), [("missing", 404), ("conflict", 409)])
def test_expected_errors_have_their_status_and_say_why(client, kind, status):
    answer = client.get(f"/fail/{kind}")
    assert (answer.status_code, answer.json()) == (status, {"error": "why"})
    page = client.get(f"/fail/{kind}", headers={"Accept": "text/html"})
    assert (page.status_code, page.text) == (status, f"<h1>{status}</h1> why")


def test_a_store_that_does_not_answer_is_told_in_our_words_and_in_its_own_in_the_log(client, caplog):
    answer = client.get("/fail/store")
    assert (answer.status_code, answer.headers["x-trouble"]) == (503, "store")
    assert answer.json() == {"error": in_english("store")}
    assert client.get("/fail/store", headers={"Accept": "text/html"}).text == "<h1>503</h1>store "
    assert "does not answer: why" in caplog.text


def test_a_body_must_be_a_small_json_object(client):
    client.get("/")
    headers = {"X-CSRF-Token": client.cookies["scanside_csrf"], "Content-Type": "application/json"}

    def send(body, **more):
        return client.post("/echo", content=body, headers=headers | more).status_code

    assert send(b'{"a": 1}') == 200
    assert send(b"[1]") == 400
    assert send(b"{") == 400
    assert send(b"\xff") == 400
    assert send(b" " * (MAX_BODY_BYTES + 1)) == 413
    assert send(b"{}", **{"Content-Type": "text/plain"}) == 415


def _has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
