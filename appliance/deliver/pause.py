"""The back-off of one destination: nothing is tried until it is over, or until a person says to try again."""

from __future__ import annotations

from collections.abc import Callable

from appliance.clock import Clock


class Pause:
    """One thread uses it."""

    def __init__(
        self, clock: Clock, retry_mark: Callable[[], str], on_retry: Callable[[], None] = lambda: None
    ) -> None:
        """Begin without one.

        Args:
            clock: Monotonic.
            retry_mark: Changes when a person asks for a retry (``Deliveries.retry_mark``).
            on_retry: Called when that ended the pause early.
        """
        self._clock = clock
        self._retry_mark = retry_mark
        self._on_retry = on_retry
        self._until = 0.0
        self._mark = ""

    def begin(self, seconds: float) -> None:
        """Nothing for so long."""
        self._until = self._clock.monotonic() + seconds
        self._mark = self._retry_mark()

    def is_on(self) -> bool:
        """Whether to leave the destination alone."""
        if self._clock.monotonic() >= self._until:
            return False
        if self._retry_mark() != self._mark:
            self._until = 0.0
            self._on_retry()
            return False
        return True
