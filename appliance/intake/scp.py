"""The C-STORE and C-ECHO SCP: the listener, its bounds, and a stop that loses nothing.

Many idle sockets do not lock a scanner out: a connection takes a place among the associations only with its
A-ASSOCIATE-RQ, and until then the oldest of those that wait makes room for a new one.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import ssl
import threading
from collections import Counter
from dataclasses import replace

from appliance.clock import Clock
from appliance.dicom.headers import read_header
from appliance.errors import ConfigError
from appliance.intake.association import Association, StoppingError
from appliance.intake.contract import HeaderReader, ScpSettings, Sink, TlsSettings
from appliance.intake.peers import Peers
from appliance.intake.receive import Parts, Services
from appliance.intake.tls import certificate_names, server_context
from appliance.intake.transport import Wire
from appliance.store.spool import Spool

log = logging.getLogger(__name__)

__all__ = ["ScpSettings", "Sink", "StorageScp", "TlsSettings"]

_BACKLOG = 512
#: After associations were told to abort, how long their threads have before the sockets are cut.
_ABORT_S = 2.0


class StorageScp:
    """Listens, and serves every association on a thread of its own."""

    def __init__(
        self,
        settings: ScpSettings,
        sink: Sink,
        peers: Peers,
        spool: Spool,
        clock: Clock,
        *,
        read_header: HeaderReader = read_header,
        services: Services | None = None,
    ) -> None:
        """Prepare; ``start`` listens.

        Args:
            settings: How.
            sink: Who records.
            peers: Who may call.
            spool: Where objects go.
            clock: For the rows.
            read_header: Tests give another.
            services: What else than storage and verification is given.

        Raises:
            ConfigError: Certificate, key or CA cannot be read.
        """
        self.parts = Parts(
            settings=settings, sink=sink, spool=spool, read_header=read_header, clock=clock, services=services or {}
        )
        self.peers = replace(peers, required_called_ae=settings.ae_title) if settings.require_called_ae else peers
        self.tls = server_context(settings.tls) if settings.tls else None
        self._max_waiting, self._max_open = _within_file_limit(settings)
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._alive: set[_Connection] = set()
        #: Those without an A-ASSOCIATE-RQ yet, oldest first.
        self._waiting: dict[_Connection, None] = {}
        self._open: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._aborting = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        settings = self.parts.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            self._listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen for DICOM on {settings.host} port {settings.port}: {error.strerror}; "
                "choose another port or end the program that has it"
            ) from error
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name="dicom-listener", daemon=True
        )
        self._acceptor.start()
        return int(self._listener.getsockname()[1])

    @property
    def open_associations(self) -> int:
        """How many associations are open now."""
        with self._lock:
            return self._open.total()

    def stop(self, timeout: float = 15.0) -> bool:
        """Stop listening, let associations finish, then abort them.

        An association on which nothing comes is aborted within about a second; one in the middle of a transfer may go
        on until ``timeout``. Whatever was answered 0x0000 is kept in any case.

        Args:
            timeout: Seconds of grace.

        Returns:
            Whether all ended; False means that a thread still waits for disk or sink.
        """
        self._stopping.set()
        if self._listener is not None and self._acceptor is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() alone does not
            self._acceptor.join()
            self._listener.close()
        if self._wait_ended(timeout):
            return True
        self._aborting.set()
        if self._wait_ended(_ABORT_S):
            return True
        with self._lock:
            for connection in self._alive:
                connection.cut()
        return self._wait_ended(_ABORT_S)

    def _wait_ended(self, timeout_s: float) -> bool:
        with self._lock:
            return self._ended.wait_for(lambda: not self._alive, timeout_s)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    log.warning("cannot accept a DICOM connection: %s", error.strerror)
                    self._drop_oldest_above(0)  # no descriptor is left: let go of those who only wait
                    self._stopping.wait(0.05)
                continue
            self._drop_oldest_above(self._max_waiting - 1)
            connection = _Connection(self, sock, str(address[0]))
            with self._lock:
                self._alive.add(connection)
                self._waiting[connection] = None
            try:
                threading.Thread(target=connection.run, name="dicom-association", daemon=True).start()
            except RuntimeError as error:
                log.warning("cannot serve a DICOM connection: %s", error)
                sock.close()
                self.leave(connection)

    def _drop_oldest_above(self, count: int) -> None:
        with self._lock:
            if len(self._waiting) > count:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                oldest.cut()

    def admit(self, connection: _Connection) -> str | None:
        """Count a connection as an association; None, or why it has no place."""
        address = connection.address
        with self._lock:
            self._waiting.pop(connection, None)
            if self._open.total() >= self._max_open:
                return f"the limit of {self._max_open} associations is reached"
            if self._open[address] >= self.parts.settings.max_per_host:
                return f"the limit of {self.parts.settings.max_per_host} associations from {address} is reached"
            self._open[address] += 1
            connection.admitted = True
        return None

    def check_stop(self, *, idle: bool) -> None:
        """Raise ``StoppingError`` when an association must end."""
        if self._aborting.is_set() or (idle and self._stopping.is_set()):
            raise StoppingError

    def release(self, connection: _Connection) -> None:
        """Give back the place of an association; its connection may linger for a moment."""
        with self._lock:
            if connection.admitted:
                connection.admitted = False
                self._open[connection.address] -= 1
                if not self._open[connection.address]:
                    del self._open[connection.address]

    def leave(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._alive.discard(connection)
            self._waiting.pop(connection, None)
            self._ended.notify_all()


class _Connection:
    """One accepted socket and its thread; the ``Gate`` of its association."""

    def __init__(self, scp: StorageScp, sock: socket.socket, address: str) -> None:
        self._scp = scp
        self._sock = sock
        self.address = address
        self.admitted = False

    def run(self) -> None:
        """Serve the connection to its end; nothing that happens here touches another one."""
        scp, settings = self._scp, self._scp.parts.settings
        try:
            names = None
            if scp.tls is not None:
                self._sock.settimeout(settings.acse_timeout_s)
                # Two steps, so that ``cut`` reaches the socket while it shakes hands.
                self._sock = secured = scp.tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
                secured.do_handshake()
                if settings.tls is not None and settings.tls.ae_in_certificate:
                    names = certificate_names(secured)
            wire = Wire(self._sock, max_pdu_bytes=settings.max_pdu_bytes, pdu_deadline_s=settings.pdu_deadline_s)
            Association(scp.parts, scp.peers, self, wire, self.address).run(names)
        except ssl.SSLError as error:
            with contextlib.suppress(Exception):
                scp.parts.sink.refused(
                    association_id=None,
                    source=self.address,
                    status=0,
                    message=f"connection rejected: no TLS with a valid client certificate ({error.reason})",
                )
        except OSError:
            pass  # the peer went away before it said anything
        except Exception:  # the last frame of the thread: a bug ends one association, loudly
            log.exception("a bug ended an association")
        finally:
            self._sock.close()
            scp.release(self)
            scp.leave(self)

    def admit(self) -> str | None:
        """Take one place; None, or why there is none."""
        return self._scp.admit(self)

    def release(self) -> None:
        """Give the place back, if one was taken."""
        self._scp.release(self)

    def check_stop(self, *, idle: bool) -> None:
        """Raise ``StoppingError`` when the association must end."""
        self._scp.check_stop(idle=idle)

    def cut(self) -> None:
        """Wake the thread; it finds its connection gone."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def _within_file_limit(settings: ScpSettings) -> tuple[int, int]:
    """Connections that may wait, and associations, such that descriptors are left for files, database and screens."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.max_pending, settings.max_associations
    ours = max(soft - 128, soft // 2)
    # A waiting connection holds a socket, an association also a part file and for a moment a folder.
    return min(settings.max_pending, ours // 4), min(settings.max_associations, ours // 4)
