"""An HTTP server of a test that answers as it is told, over TLS too, and keeps what it got."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Got:
    """One request."""

    method: str
    path: str
    headers: dict
    body: bytes


@dataclass
class Stub:
    """What was asked; ``answer(got)`` gives status, headers and body, or None to say nothing."""

    answer: object
    got: list = field(default_factory=list)
    port: int = 0
    connections: int = 0


@contextlib.contextmanager
def http_stub(answer, *, tls=None):
    stub = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got = Got(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            stub.got.append(got)
            told = stub.answer(got)
            if told is None:
                self.close_connection = True
                return
            status, headers, data = told
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_POST  # noqa: N815 - BaseHTTPRequestHandler's

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self):
            connection, address = super().get_request()
            stub.connections += 1
            if tls is not None:
                connection.settimeout(60)
                connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def finish_request(self, request, client_address):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                request.do_handshake()
            super().finish_request(request, client_address)

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
