"""The service manager's notification socket (sd_notify(3)), without a library: one datagram."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> bool:
    """Tell systemd, e.g. ``READY=1`` or ``WATCHDOG=1``. Returns whether there is a socket to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), address)
        return True
    return False


def watchdog_period_s() -> float | None:
    """Half of what ``WatchdogSec`` allows, or None where systemd watches nothing."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() else None
