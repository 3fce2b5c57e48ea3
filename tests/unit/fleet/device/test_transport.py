"""The way to the broker: an HTTP proxy that says anything, and a broker that says too much."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage

from appliance.fleet.device.transport import (
    Arrived,
    Disconnected,
    LeftOut,
    PahoTransport,
    ProxyError,
    through_proxy,
)


def answered(answer, host="broker.example", port=8883, credentials=None):
    """Ask a proxy that says ``answer`` and hangs up; returns what it was asked."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        try:
            through_proxy(ours, host, port, credentials)
        finally:
            theirs.settimeout(20)
            asked = theirs.recv(65536)
    return asked


@pytest.mark.req("R-FLEET-08")
def test_a_tunnel_is_asked_for_by_name_with_credentials_where_there_are_some():
    ok = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"
    assert answered(ok) == b"CONNECT broker.example:8883 HTTP/1.1\r\nHost: broker.example:8883\r\n\r\n"
    assert answered(ok, "fd00::5", 443).startswith(b"CONNECT [fd00::5]:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic Ym94OnBhc3M=\r\n" in answered(ok, credentials="box:pass")


@pytest.mark.req("R-FLEET-08")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "302"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "hung up"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "speaks before"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000, "without an end"),
    ],
)
def test_a_proxy_that_says_no_is_told_from_one_that_says_nothing_we_know(answer, words):
    with pytest.raises(ProxyError, match=words):
        answered(answer)


@given(answer=st.binary(max_size=300))
def test_no_answer_of_a_proxy_is_more_than_a_refusal(answer):
    try:
        answered(answer)
    except ProxyError:
        return
    assert answer.startswith(b"HTTP/1.")


def test_a_broker_that_announces_a_huge_packet_is_left(identity, monkeypatch):
    """paho would gather a quarter of a gigabyte for whoever says that it comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        line, _ = listener.accept()
        with line, contextlib.suppress(ConnectionResetError):
            line.settimeout(60)
            line.recv(65536)
            line.sendall(b"\x20\x03\x00\x00\x00" + b"\x30\xff\xff\xff\x7f" + b"x" * 4096)
            while line.recv(65536):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    heard = []
    broker = identity.enrolment.brokers[0].model_copy(update={"port": listener.getsockname()[1], "host": "127.0.0.1"})
    transport = PahoTransport(identity, broker, lambda: None)
    monkeypatch.setattr(type(transport._client), "_ssl_wrap_socket", lambda _self, line: line)
    transport.connect(b"{}", ["a/b"])
    while not heard or not isinstance(heard[-1], Disconnected):
        heard.append(transport.events.get(timeout=60))
    assert heard[-1].why == "lost"
    transport.join(60)
    thread.join(60)
    listener.close()
    assert not transport._client._in_packet["packet"]


def test_of_a_flood_that_nobody_looks_at_so_much_is_kept_and_the_rest_is_said_to_be_gone(identity):
    transport = PahoTransport(identity, identity.enrolment.brokers[0], lambda: None)

    def flood(n):
        for _ in range(n):
            transport._on_message(None, None, MQTTMessage(topic=b"a/b"))
        return [transport.events.get() for _ in range(transport.events.qsize())]

    assert flood(64) == [Arrived("a/b", b"")] * 64
    assert flood(500) == [*[Arrived("a/b", b"")] * 64, LeftOut()]
    assert flood(500) == [*[Arrived("a/b", b"")] * 64, LeftOut()]


def test_a_name_that_nobody_knows_ends_the_connection_and_tells_so(identity):
    broker = identity.enrolment.brokers[0].model_copy(update={"host": "no-such-host.invalid"})
    rung = threading.Event()
    transport = PahoTransport(identity, broker, rung.set)
    transport.connect(b"{}", ["a/b"])
    assert transport.events.get(timeout=60) == Disconnected("dns")
    assert rung.wait(60)
    transport.join(20)


def test_a_connection_that_is_closed_while_it_dials_ends(identity):
    listener = socket.create_server(("127.0.0.1", 0))  # takes a line and says nothing
    broker = identity.enrolment.brokers[0].model_copy(update={"port": listener.getsockname()[1], "host": "127.0.0.1"})
    transport = PahoTransport(identity, broker, lambda: None)
    transport.connect(b"{}", ["a/b"])
    line, _ = listener.accept()
    transport.close(politely=False)
    assert isinstance(transport.events.get(timeout=60), Disconnected)
    transport.join(20)
    line.close()
    listener.close()
