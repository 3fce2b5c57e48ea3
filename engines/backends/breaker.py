"""When to stop asking a server that fails, and when to ask again. A rule only: it sends and waits for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed (ask), open (do not ask while it rests), half open (the rest is over: the next question decides).

    One thread uses it, so that half open means one question and not a crowd of them.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        rest_s: float = 10.0,
        longest_rest_s: float = 300.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin closed.

        Args:
            failures: So many in a row open it.
            rest_s: The first rest; each failed question after a rest doubles the next one.
            longest_rest_s: No rest is longer, so that a server that is mended is found again.
            now: Monotonic seconds.
        """
        self._failures, self._first_rest_s, self._longest_rest_s, self._now = failures, rest_s, longest_rest_s, now
        self._in_a_row = 0
        self._rest_s = rest_s
        self._open_since: float | None = None

    @property
    def rest_left_s(self) -> float:
        """How long nothing is to be asked yet; 0 when asking is allowed."""
        if self._open_since is None:
            return 0.0
        return max(0.0, self._open_since + self._rest_s - self._now())

    def allows(self) -> bool:
        """Whether to ask now."""
        return self.rest_left_s == 0

    def succeeded(self) -> None:
        """The question was answered well: closed again, as if nothing had been."""
        self._in_a_row, self._rest_s, self._open_since = 0, self._first_rest_s, None

    def failed(self, *, for_good: bool = False) -> None:
        """The question was not answered well.

        Args:
            for_good: Asking again soon is of no use (the server has another model): open at once.
        """
        self._in_a_row += 1
        if self._open_since is not None:
            self._rest_s = min(self._rest_s * 2, self._longest_rest_s)
            self._open_since = self._now()
        elif for_good or self._in_a_row >= self._failures:
            self._open_since = self._now()
