"""A box that fetches, and an HTTPS server of a TUF repository that can be as bad as a line or an attacker makes it."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

from fleet_jobs_kit import DIGEST as DIGEST_OF
from fleet_jobs_kit import JobBox, enrol, keys
from fleet_kit import FleetCa
from package_rows_kit import NAME
from tuf_kit import TufKit

from appliance.clock import FakeClock
from appliance.fleet.device.desk import tuf_fetcher
from appliance.fleet.device.fetcher import TufFetcher
from appliance.fleet.device.identity import Identity
from appliance.store import Store

TARGET, DIGEST = "models/toy/2.0.0.zip", "bb" * 32
GIB = 1024**3


@functools.cache
def ca():
    """One authority and the certificate of ``localhost``, for all tests of a process."""
    made = FleetCa(tempfile.mkdtemp(prefix="tuf-ca-"))
    return made, made.issue("localhost", server=True)


class TufServer:
    """Serves ``folder``/metadata and ``folder``/targets below /v1/tuf.

    Attributes:
        cut_after: After so many bytes of a file of ``cut_path`` the line goes, once.
        ranges: Whether parts are given.
        twist: By the end of a path: what is sent in place of the bytes there; None: 404.
        trickle: Seconds between single bytes of a target.
        silent: By the end of a path: nothing is ever answered.
        endless: By the end of a path: its bytes are followed by others, for ever.
        asked: (path, first byte) of every request.
        sent: Bytes of bodies, by path.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.cut_after, self.ranges, self.twist, self.trickle, self.silent = None, True, {}, None, ""
        self.endless, self.cut_path = "", "targets/models"
        self.asked, self.sent = [], Counter()
        self.over = threading.Event()

    def __enter__(self):
        _, issued = ca()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self):
                self.request.settimeout(20)
                self.request.do_handshake()
                super().setup()

            def do_GET(self):
                with contextlib.suppress(OSError):
                    owner.answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_):
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, handler):
        path = handler.path.removeprefix("/v1/tuf/")
        asked = handler.headers.get("Range", "")
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.asked.append((path, begin))
        if self.silent and path.endswith(self.silent):
            self.over.wait(20)
            return
        data = self._data(path)
        if data is None:
            handler.send_error(404)
            return
        begin = begin if self.ranges else 0
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        is_endless = self.endless and path.endswith(self.endless)
        if not is_endless:
            handler.send_header("Content-Length", str(len(data) - begin))
        handler.end_headers()
        self._send(handler, path, data[begin:])
        while is_endless and not self.over.is_set():
            handler.wfile.write(bytes(100_000))
            self.sent[path] += 100_000

    def _data(self, path):
        for end, twisted in self.twist.items():
            if path.endswith(end):
                return twisted
        file = self.folder / path
        return file.read_bytes() if file.is_file() else None

    def _send(self, handler, path, data):
        if not path.startswith((self.cut_path, "targets/models")):
            handler.wfile.write(data)
        elif self.trickle is not None:
            for n in range(len(data)):
                handler.wfile.write(data[n : n + 1])
                handler.wfile.flush()
                if self.over.wait(self.trickle):
                    return
        elif self.cut_after is not None:
            data, self.cut_after = data[: self.cut_after], None
            handler.wfile.write(data)
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            handler.wfile.write(data)
        self.sent[path] += len(data)


class FetchBox:
    """An enrolled box with a fetcher; its clock moves only where it waits."""

    def __init__(self, root, url, *, release=("release",), threshold=1, clock=None, **more):
        self.folder = Path(root) / "state" / "fleet"
        self.clock = clock or FakeClock()
        self.store = Store.open(Path(root) / "state", self.clock, reserve_bytes=0)
        if not (self.folder / "identity.json").exists():
            enrol(self.folder, url=url, ca=ca()[0].path.read_bytes(), release=release, threshold=threshold)
        self.rate, self.wanted, self.told, self.waited = 10**9, {TARGET}, [], 0.0
        self.room = 100 * GIB
        self.on_wait = lambda: False
        self.fetcher = TufFetcher(
            store=self.store,
            clock=self.clock,
            folder=self.folder,
            identity=lambda: Identity.load(self.folder),
            bytes_per_s=lambda: self.rate,
            wanted=lambda: self.wanted,
            wait=self._wait,
            free=lambda _: self.room,
            stall_s=more.pop("stall_s", 10.0),
            **more,
        )

    def _wait(self, seconds):
        if seconds:
            self.clock.advance(seconds)
            self.waited += seconds
        return self.on_wait()

    def fetch(self, target=TARGET, digest=DIGEST):
        return self.fetcher.fetch(target, digest, self.told.append)

    def close(self):
        self.store.close()


def repository(folder, *, release=("release",), threshold=1, **more):
    """A repository by the keys of ``fleet_jobs_kit``."""
    return TufKit(
        folder, release=[keys()[name] for name in release], online=keys()["online"], threshold=threshold, **more
    )


@contextlib.contextmanager
def scene(root, data=b"x" * 3_000_000, **more):
    """A repository with one model, its server, and a box."""
    kit = repository(Path(root) / "tuf")
    kit.add(TARGET, data, package="toy", version="2.0.0", digest=DIGEST)
    with TufServer(kit.folder) as server:
        box = FetchBox(Path(root) / "box", server.url, **more)
        try:
            yield SimpleNamespace(kit=kit, server=server, box=box, data=data)
        finally:
            box.close()


class TufJobBox(JobBox):
    """A box whose jobs fetch from ``url``; its acts take a file that holds the digest, and spaces."""

    def __init__(self, root, url, **more):
        self.room, self.fetch_waits = 100 * GIB, []
        super().__init__(root, url=url, ca=ca()[0].path.read_bytes(), **more)

    def make_fetcher(self):
        made = tuf_fetcher(self.config, self.store, self.clock, lambda: self.inbox)
        made.wait, made.free, made.stall_s = self._wait, lambda _: self.room, 10.0
        return made

    def _wait(self, seconds):
        if seconds:
            self.clock.advance(seconds)
        return False


def put_models(kit, *versions, size=700_000, package=NAME):
    """List packages that ``TufJobBox`` installs."""
    for version in versions:
        data = DIGEST_OF[version].encode().ljust(size)
        kit.add(f"toy-{version}.zip", data, package=package, version=version, digest=DIGEST_OF[version])


def stick_files(kit, *targets):
    """What of a repository goes on a stick: all metadata, and these targets."""
    blobs = [kit.blob(target) for target in (*targets, "trust.json")]
    found = [*(kit.folder / "metadata").iterdir(), *blobs]
    return {path.relative_to(kit.folder).as_posix(): path for path in found}
