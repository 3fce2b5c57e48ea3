"""A HIS of a test: takes messages over MLLP, over TLS too, and answers as it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Peer:
    """What came, and how often somebody connected."""

    port: int = 0
    connections: int = 0
    got: list = field(default_factory=list)


def ack_of(message, code, more="", control=None):
    """An acknowledgement of a message; ``control`` may lie."""
    head = message.split(b"\r")[0].split(b"|")
    named = head[9].decode() if control is None else control
    return f"MSH|^~\\&|HIS|H|{head[2].decode()}||20260101||ACK|1|P|2.5.1\rMSA|{code}|{named}\r{more}".encode()


@contextlib.contextmanager
def mllp_peer(answer, *, tls=None, framed=True):
    """``answer(message)`` gives the bytes of the acknowledgement, or None to close without one."""
    peer = Peer()
    listener = socket.create_server(("127.0.0.1", 0))
    peer.port = listener.getsockname()[1]
    threads = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            peer.connections += 1
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    def serve(connection):
        with contextlib.suppress(OSError):
            connection.settimeout(60)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                data = b""
                while True:
                    while b"\x1c\r" not in data:
                        chunk = connection.recv(65536)
                        if not chunk:
                            return
                        data += chunk
                    message, _, data = data.partition(b"\x1c\r")
                    assert message[:1] == b"\x0b"
                    peer.got.append(message[1:])
                    told = answer(message[1:])
                    if told is None:
                        return
                    connection.sendall(b"\x0b" + told + b"\x1c\r" if framed else told)

    main = threading.Thread(target=accept, daemon=True)
    main.start()
    try:
        yield peer
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        main.join(60)
        for thread in threads:
            thread.join(60)
