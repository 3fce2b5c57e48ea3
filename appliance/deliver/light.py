"""A light or buzzer at a relay: a few bytes to a device. On while an alert calls, off when none does."""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path

from appliance.config import LightSink
from appliance.errors import TransientError
from appliance.store.escalations import Notice

#: Where the kernel shows its devices as files.
SYS = Path("/sys")


class Light:
    """Drives a relay at a USB serial port, or the value file of a GPIO line."""

    def __init__(self, choice: LightSink) -> None:
        """Drive the device of ``choice``; nothing is opened before there is something to say."""
        self._choice = choice

    def tell(self, notice: Notice) -> None:
        """Switch it as many alerts call as the store says; raises ``TransientError`` where the device does not take it.

        The state is written whole each time, so that a repeated notice does no harm.
        """
        self.write(bytes.fromhex(self._choice.on if notice.calling else self._choice.off))

    def write(self, data: bytes) -> None:
        """Write bytes to the device, within its limit."""
        path, limit = self._choice.device_path, time.monotonic() + self._choice.timeout_s
        try:
            # Non-blocking: a serial line whose other end is gone would keep open() and write() for ever.
            device = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                if not _is_device(path, os.fstat(device).st_mode):
                    raise TransientError(f"{path} is no device, pipe or file below /sys/class/; name the light's")
                while data:
                    left = limit - time.monotonic()
                    if left <= 0 or not select.select([], [device], [], left)[1]:
                        raise TransientError(
                            f"{path} took nothing within {self._choice.timeout_s:g} s; look at the light"
                        )
                    data = data[os.write(device, data) :]
            finally:
                os.close(device)
        except OSError as error:
            raise TransientError(
                f"{path}: {error.strerror}; is the light connected, and may the service write to it?"
            ) from error


def _is_device(path: Path, mode: int) -> bool:
    """Whether what was opened may be a light: settings come from a page, and must not write over a file of the box."""
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return True
    # A GPIO line is a plain file there; the kernel links it to /sys/devices.
    return path.is_relative_to(SYS / "class") and path.resolve().is_relative_to(SYS)
