"""A stretch of network between a client and a server of a test, which can be frozen and cut."""

from __future__ import annotations

import contextlib
import socket
import threading

from appliance.ports import held_port


class Relay:
    """Passes bytes both ways between a port of its own and another one; a context manager.

    Frozen, it takes connections, keeps all of them open and passes nothing: cables and switches that lose every
    packet look so. Cut, it has no connections and takes none.
    """

    def __init__(self, target_port):
        """Lead to a port of this machine."""
        self._target = ("127.0.0.1", target_port)
        self._listener = self._acceptor = None
        self._held = contextlib.ExitStack()
        self.port = held_port(self._held)  # also while it is cut
        self._flows = threading.Event()
        self._flows.set()
        self._sockets = set()
        self._threads = []

    def __enter__(self):
        self.mend()
        return self

    def __exit__(self, *_):
        self.cut()
        self._flows.set()
        self._held.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def freeze(self):
        """Pass nothing from now on; nothing is lost either, as TCP sends again."""
        self._flows.clear()

    def thaw(self):
        """Pass everything on that waited."""
        self._flows.set()

    def cut(self):
        """Close every connection, and take none."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._acceptor.join()  # what it has taken is among the connections now
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def mend(self):
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._acceptor = self._start(self._accept, self._listener)

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._sockets.add(near)
                self._start(self._pair, near)

    def _pair(self, near):
        self._flows.wait()
        with near, contextlib.suppress(OSError), socket.create_connection(self._target) as far:
            self._sockets.add(far)
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()
            self._sockets -= {near, far}

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
