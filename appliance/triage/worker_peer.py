"""The process and the socket on the other side: start it, let it in, read it, end it. Knows frames, not questions.

One thread does all of it, so that the child's parent thread lives as long as the link (PR_SET_PDEATHSIG goes by the
thread) and a worker that does not read its socket blocks nobody.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.triage.frames import Frames, ProtocolError, socket_address

log = logging.getLogger(__name__)

_TICK_S = 0.2
_CHUNK = 1 << 16
_END_S = 1.0
_RESPAWN_S = 1.0
_HALF_MESSAGE_S = 5.0
#: Far above what two cores can do in a second: each prepared slice makes one message of some 200 bytes.
_MAX_MESSAGES_PER_S, _MAX_BYTES_PER_S = 20_000, 32 << 20
_PEER_CREDENTIALS = struct.Struct("3i")


class Owner(Protocol):
    """Who is told what happens; called from the I/O thread, one call at a time."""

    def on_started(self, pid: int) -> None:
        """A child was started, or a worker of another unit has connected."""

    def on_frame(self, body: bytes) -> None:
        """A whole message came.

        Raises:
            ProtocolError: It must not be; the worker is ended.
        """

    def on_ended(self, pid: int, why: str, *, by_alarm: bool) -> None:
        """The worker is gone (``by_alarm``: by its own timer), or could not be started (``pid`` 0)."""


class WorkerPeer:
    """At most one worker process with its connection."""

    def __init__(self, socket_path: Path, command: Sequence[str] | None, *, clock: Clock, owner: Owner) -> None:
        """Prepare.

        Args:
            socket_path: Where to listen; readable for this user only.
            command: What to start as a child; None where the worker is a unit of its own.
            clock: For bounds in time.
            owner: Who is told.
        """
        self._socket_path = socket_path
        self._command = tuple(command) if command is not None else None
        self._clock = clock
        self._owner = owner
        self._lock = threading.Lock()
        self._out = bytearray()
        self._wanted = False
        self._stopping = False
        self._kill_why = ""
        # From here on only the I/O thread's.
        self._thread = threading.Thread(target=self._run, name="worker-link", daemon=True)
        self._wake_r, self._wake_w = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._selector = selectors.DefaultSelector()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pid = 0
        self._frames = Frames()
        self._partial_since: float | None = None
        self._spawn_at = clock.monotonic()
        self._window: tuple[float, int, int] = (0.0, 0, 0)

    def start(self) -> None:
        """Listen.

        Raises:
            StoreError: The socket cannot be made.
        """
        try:
            self._socket_path.unlink(missing_ok=True)
            with socket_address(self._socket_path) as address:
                self._listener.bind(address)
            # Before listen(): nobody can have connected in between.
            self._socket_path.chmod(0o600)
            self._listener.listen(4)
        except OSError as error:
            self._listener.close()
            raise StoreError(f"{self._socket_path}: cannot listen for the worker: {error.strerror}") from error
        for sock in (self._listener, self._wake_r, self._wake_w):
            sock.settimeout(0)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """End the worker, stop listening, and wait for both (about a second at most)."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        for sock in (self._listener, self._wake_r, self._wake_w):
            sock.close()
        self._selector.close()
        self._socket_path.unlink(missing_ok=True)

    def want(self, wanted: bool) -> None:  # noqa: FBT001 - want(True), want(False)
        """Say whether a worker should run; one that runs when it is no longer wanted is ended."""
        with self._lock:
            if self._wanted and not wanted:
                self._kill_why = "ended until its next try"
            self._wanted = wanted
        self._wake()

    def kill(self, why: str) -> None:
        """End the worker at once."""
        with self._lock:
            self._kill_why = why
        self._wake()

    def send(self, data: bytes) -> None:
        """Send when the worker takes it; lost where there is none."""
        with self._lock:
            self._out += data
        self._wake()

    @property
    def backlog_bytes(self) -> int:
        """How much the worker has not yet taken."""
        return len(self._out)

    def _wake(self) -> None:
        with suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._wake_w.send(b"\0")

    # -- the I/O thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._look_after()
            for key, mask in self._selector.select(_TICK_S):
                if key.fileobj is self._wake_r:
                    with suppress(BlockingIOError):
                        self._wake_r.recv(_CHUNK)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._socket:
                    if mask & selectors.EVENT_READ:
                        self._read()
                    if mask & selectors.EVENT_WRITE and key.fileobj is self._socket:
                        self._write()
        self._end("the daemon stops")

    def _look_after(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            kill_why, self._kill_why = self._kill_why, ""
            wanted, waiting = self._wanted, bool(self._out)
        if kill_why:
            self._end(kill_why, kill=True)
        elif self._child is not None and self._socket is None and self._child.poll() is not None:
            self._end("before it connected")
        elif self._partial_since is not None and now - self._partial_since > _HALF_MESSAGE_S:
            self._end(f"half a message for {_HALF_MESSAGE_S:g} s", kill=True)
        if wanted and self._command is not None and self._child is None and now >= self._spawn_at:
            self._spawn(self._command)
        if self._socket is not None:
            interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
            self._selector.modify(self._socket, interest)

    def _spawn(self, command: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            # Each arena keeps what it once held; images are large and threads few.
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        try:
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                # Standard output is the daemon's own answer (--json); libraries of the worker may print.
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._spawn_at = self._clock.monotonic() + _RESPAWN_S
            self._owner.on_ended(0, f"cannot be started: {error.strerror}", by_alarm=False)
            return
        self._pid = self._child.pid
        self._owner.on_started(self._pid)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        pid, uid, _ = _PEER_CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        )
        foreign = uid != os.geteuid() or (self._command is not None and (self._child is None or pid != self._child.pid))
        if foreign or self._socket is not None:
            log.warning("a connection from process %d of user %d to the worker's socket is refused", pid, uid)
            sock.close()
            return
        sock.settimeout(0)
        self._socket, self._pid, self._frames, self._partial_since = sock, pid, Frames(), None
        self._selector.register(sock, selectors.EVENT_READ)
        if self._command is None:
            self._owner.on_started(pid)

    def _read(self) -> None:
        assert self._socket is not None  # noqa: S101 - for the type checker; _run has looked
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("")
            return
        try:
            bodies = self._frames.feed(data)
            self._count(len(bodies), len(data))
            for body in bodies:
                self._owner.on_frame(body)
        except ProtocolError as error:
            self._end(f"broke the protocol: {error}", kill=True)
            return
        if not self._frames.is_partial:
            self._partial_since = None
        elif self._partial_since is None or bodies:
            self._partial_since = self._clock.monotonic()

    def _count(self, messages: int, size: int) -> None:
        now = self._clock.monotonic()
        begun, seen, taken = self._window
        if now - begun >= 1.0:
            begun, seen, taken = now, 0, 0
        self._window = (begun, seen + messages, taken + size)
        if seen + messages > _MAX_MESSAGES_PER_S or taken + size > _MAX_BYTES_PER_S:
            raise ProtocolError(f"a flood of {seen + messages} messages, {taken + size} bytes within a second")

    def _write(self) -> None:
        assert self._socket is not None  # noqa: S101 - for the type checker; _run has looked
        with self._lock:
            chunk = bytes(self._out[: 4 * _CHUNK])
        try:
            sent = self._socket.send(chunk)
        except OSError:  # would block, or gone: then reading tells
            return
        with self._lock:
            del self._out[:sent]

    def _end(self, why: str, *, kill: bool = False) -> None:
        """Close the connection and see the process end; by force where it was told to, or does not by itself."""
        had_one = self._socket is not None or self._child is not None
        if kill:
            # Before its connection closes: what the close would make it do is not to be done.
            self._kill()
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        with self._lock:
            self._out.clear()
        how, by_alarm = "", False
        if self._child is not None:
            if not kill:
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(_END_S)
            # Also after a good end: nothing that it started may outlive it.
            self._kill()
            try:
                status = self._child.wait(_END_S)
                how, by_alarm = _told(status), status == -signal.SIGALRM
            except subprocess.TimeoutExpired:
                # Inside of a driver even SIGKILL waits; the next worker does not.
                how = f"process {self._child.pid} does not end"
                log.warning("the worker %s", how)
            self._child = None
        self._partial_since = None
        if had_one:
            text = why if kill else "; ".join(part for part in (how, why) if part)
            self._owner.on_ended(self._pid, text or "closed its connection", by_alarm=by_alarm and not kill)
        self._pid = 0

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._child is not None:
                os.killpg(self._child.pid, signal.SIGKILL)
            elif self._pid not in {0, os.getpid()}:
                os.kill(self._pid, signal.SIGKILL)


def _told(status: int) -> str:
    if status == -signal.SIGALRM:
        return "ended by its own time limit (SIGALRM)"
    if status < 0:
        with suppress(ValueError):
            return f"ended by signal {signal.Signals(-status).name}"
        return f"ended by signal {-status}"
    return f"exited with status {status}"
