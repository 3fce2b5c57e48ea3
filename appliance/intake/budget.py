"""How much memory the data sets of N-services may take, of all associations together."""

from __future__ import annotations

import threading


class Budget:
    """Bytes that association threads share."""

    def __init__(self, size: int) -> None:
        """Begin with ``size`` bytes free."""
        self._free = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so many bytes; False where they are not there, and nothing was taken."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        """Give back what ``take`` gave."""
        with self._lock:
            self._free += size
