"""Ports for programs of others that cannot be told to take any port."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def held_port(held: ExitStack) -> int:
    """A TCP port of the loopback that nobody else is given until ``held`` ends.

    A socket is bound to it and never listens: the kernel hands the port to nobody who asks for any, and a server that
    names it has it all the same (``SO_REUSEADDR``, which the program must set as well).
    """
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    return int(probe.getsockname()[1])
