"""The worker process: decodes foreign pixels, runs models, draws key pictures. ``python -m appliance.triage.worker``.

It may crash, hang or be killed at any time; nothing that it knows is worth keeping. It has no database, opens no
network socket, and writes nothing but pictures into the spool.

* One thread works; another reads the socket, so that an analysis overtakes the hints that wait before it.
* Before foreign or native work a timer is armed whose signal has the default action: the kernel ends a stuck call
  even if it never gives the interpreter back.
* When the socket closes the process ends at once, in the middle of whatever it does.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.triage.engine_messages import Build, CancelBuild, SpotCheck
from appliance.triage.frames import Frames, ProtocolError, socket_address
from appliance.triage.message_base import Message
from appliance.triage.protocol import (
    PROTOCOL,
    Add,
    Compare,
    Drop,
    Finish,
    Hello,
    Load,
    Open,
    Progress,
    ToWorker,
    Unload,
    encode,
    to_worker,
)

if TYPE_CHECKING:
    from appliance.triage.desk import Desk
    from appliance.triage.engine_desk import LookAgain

log = logging.getLogger(__name__)

#: Private memory of the process; the largest bundled package asks for a quarter of it.
MEMORY_MB = 4096
_CHUNK = 1 << 16
#: Memory is given back after so much rest, not between two slices: collecting takes 20 ms, and what is given back must
#: be fetched again page by page, by the very analysis that an alert waits for.
_REST_S = 5.0
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500


class Inbox:
    """What the daemon asked for, the most urgent first: packages, analyses, engines, comparisons, hints."""

    def __init__(self) -> None:
        """Begin empty."""
        self._changed = threading.Condition()
        self._packages: deque[Load | Unload | LookAgain] = deque()
        self._engines: deque[Build | SpotCheck] = deque()
        #: Set while the build that runs should end.
        self.build_cancelled = threading.Event()
        self._analyses: deque[Finish] = deque()
        self._compares: deque[Compare] = deque()
        self._hints: deque[Open | Add | Drop] = deque()

    def put(self, message: ToWorker | LookAgain) -> None:
        """Take a message from the reader, or from the builder's thread."""
        with self._changed:
            if isinstance(message, CancelBuild):
                # At once: an analysis may be running.
                self.build_cancelled.set()
                return
            if isinstance(message, Build | SpotCheck):
                if isinstance(message, Build):
                    self.build_cancelled.clear()
                self._engines.append(message)
            elif isinstance(message, Add | Open | Drop):
                if isinstance(message, Drop):
                    kept = [h for h in self._hints if isinstance(h, Open) or h.series_key != message.series_key]
                    self._hints = deque(kept)
                self._hints.append(message)
            elif isinstance(message, Finish):
                self._analyses.append(message)
            elif isinstance(message, Compare):
                self._compares.append(message)
            else:
                self._packages.append(message)
            self._changed.notify()

    def take(self) -> ToWorker | LookAgain | None:
        """The next message to work on; None when there is none now."""
        with self._changed:
            for queue in self._queues():
                if queue:
                    message: ToWorker | LookAgain = queue.popleft()
                    return message
            return None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until there is a message, at most ``timeout_s``. Returns whether there is one."""
        with self._changed:
            return self._changed.wait_for(lambda: any(self._queues()), timeout_s)

    def _queues(self) -> tuple[deque[Any], ...]:
        return (self._packages, self._analyses, self._engines, self._compares, self._hints)


class Wire:
    """The socket to the daemon, written by the thread that works and the one that waits for a build."""

    def __init__(self, sock: socket.socket) -> None:
        """Speak over a connected socket."""
        self._sock = sock
        self._lock = threading.Lock()

    def say(self, message: Message) -> None:
        """Send a message; the process ends if the daemon is gone.

        Raises:
            ProtocolError: It is longer than the daemon takes.
        """
        try:
            encoded = encode(message)
            with self._lock:
                self._sock.sendall(encoded)
        except OSError:
            os._exit(0)

    def read_into(self, inbox: Inbox) -> None:
        """Read until the daemon closes the socket, then end the process; also on what is no message."""
        frames, status = Frames(), 0
        try:
            while data := self._sock.recv(_CHUNK):
                for body in frames.feed(data):
                    inbox.put(to_worker(body))
        except ProtocolError as error:
            log.error("the daemon broke the protocol: %s", error)  # noqa: TRY400 - the message says it all
            status = 2
        except OSError:
            pass
        # Not sys.exit: the other thread may be inside of a call that never returns.
        os._exit(status)


@contextmanager
def limited(limit_s: float) -> Iterator[None]:
    """Let the kernel end this process if the block takes longer (SIGALRM, default action)."""
    signal.setitimer(signal.ITIMER_REAL, max(limit_s, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def serve(inbox: Inbox, wire: Wire, desk: Desk) -> None:
    """Work through the inbox for ever."""
    while True:
        message = inbox.take()
        if message is None:
            wire.say(Progress(step="idle"))
            if not inbox.wait(_REST_S):
                desk.give_memory_back()
                inbox.wait()
            continue
        desk.handle(message)


def confine(memory_mb: int, *, die_with_parent: bool) -> None:
    """Set what the kernel shall keep: memory, no core file, first to go when memory ends, death with the daemon."""
    # RLIMIT_DATA, not RLIMIT_AS: GPU drivers and thread pools reserve address space that they never touch.
    for what, limit in ((resource.RLIMIT_DATA, memory_mb << 20), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(what, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
    if die_with_parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: Sequence[str]) -> int:
    """Connect, say hello, work until the daemon closes the socket."""
    parser = argparse.ArgumentParser(prog="python -m appliance.triage.worker", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="the daemon's Unix socket")
    parser.add_argument("--spool", type=Path, required=True, help="below it lie all files that may be named")
    parser.add_argument("--threads", type=int, default=0, help="of one inference; 0 = all cores")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="private memory, kept by the kernel")
    parser.add_argument("--die-with-parent", action="store_true", help="for a child of the daemon")
    parser.add_argument("--trust", type=Path, action="append", default=[], help="a package folder (tests)")
    parser.add_argument("--backend", default="onnxruntime", help="what runs graphs (tests)")
    told = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="worker: %(levelname)s %(message)s")
    # pydicom logs a traceback for each image that a decoder refuses; the analysis tells it once, in words.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    faulthandler.enable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    confine(told.memory_mb, die_with_parent=told.die_with_parent)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(told.socket) as address:
            sock.connect(address)
    except OSError as error:
        log.error("%s: cannot connect: %s; is the daemon running?", told.socket, error.strerror)  # noqa: TRY400
        return 1
    wire, inbox = Wire(sock), Inbox()
    wire.say(Hello(protocol=PROTOCOL, pid=os.getpid()))
    threading.Thread(target=wire.read_into, args=(inbox,), name="reader", daemon=True).start()
    # Only now: numpy, OpenCV and the decoders take longer than all of the above.
    from appliance.triage.analysis import Tools
    from appliance.triage.desk import Desk
    from appliance.triage.engine_desk import EngineDesk
    from appliance.triage.shelf import Shelf

    shelf = Shelf(threads=told.threads, trusted=told.trust, backend=told.backend)
    tools = Tools(spool_root=told.spool.resolve(), shelf=shelf, say=wire.say, limited=limited)
    engines = EngineDesk(tools, soon=inbox.put, cancelled=inbox.build_cancelled)
    serve(inbox, wire, Desk(tools, engines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
