"""When the box says that it has no AI, and when it tries its worker again. A rule over events and monotonic times.

* Raised by worker deaths on three different studies, or by five deaths, within 60 s, or when no worker has been ready
  for 10 s.
* While raised no worker is wanted for 60 s, then for twice as long after each try that failed, up to 10 min. A worker
  that is merely late, or not there yet, stays wanted: it may still come. A try ends by a worker that is ready (it gave
  its golden cases' answers), by its death, or after 60 s.
* A ready worker clears it. The wait starts at 60 s again only after 10 min without trouble.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

DEATH_WINDOW_S = 60.0
MAX_STUDIES = 3
MAX_DEATHS = 5
NOT_READY_S = 10.0
FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 600.0
TRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Since when there is no AI, and why, for a person."""

    since_mono: float
    why: str


class WorkerPolicy:
    """Told what happens to the worker, says whether one is wanted and whether the AI is unavailable.

    Times are monotonic seconds and never go back. One thread uses it.
    """

    def __init__(self, now: float) -> None:
        """Begin without a worker."""
        self._deaths: deque[tuple[float, str | None]] = deque()
        self._not_ready_since: float | None = now
        self._started_at: float | None = None
        self._raised: Unavailable | None = None
        self._cleared_at: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._hold_until = now

    def started(self, now: float) -> None:
        """A worker process was started, or one has connected; if it came unasked, its try begins when it is wanted."""
        self._started_at = max(now, self._hold_until)

    def ready(self, now: float) -> None:
        """The worker has loaded its packages and given their golden cases' answers."""
        self._look(now)
        if not self._is_wanted(now):
            return  # a worker that nobody asked for proves nothing; it is about to be ended
        self._not_ready_since = None
        if self._raised is not None:
            self._raised = None
            self._cleared_at = now
            self._deaths.clear()

    def ended(self, now: float, study: str | None = None) -> None:
        """The worker is gone, or could not be started.

        Args:
            now: When.
            study: The study that it worked on then, ``None`` for no study.
        """
        self._look(now)
        self._started_at = None
        if self._not_ready_since is None:
            self._not_ready_since = now
        self._deaths.append((now, study))
        if self._raised is not None:
            self._try_failed(now)
            return
        why = self._too_many(now)
        if why:
            self._raise(now, why)
            self._hold_back(now)

    def wants_worker(self, now: float) -> bool:
        """Whether a worker should run now; one that runs unwanted is to be ended."""
        self._look(now)
        return self._is_wanted(now)

    def unavailable(self, now: float) -> Unavailable | None:
        """Why the box has no AI now, or ``None``."""
        self._look(now)
        return self._raised

    def _is_wanted(self, now: float) -> bool:
        return self._raised is None or now >= self._hold_until

    def _look(self, now: float) -> None:
        """What passing time alone changes."""
        since = self._not_ready_since
        if self._raised is None and since is not None and now - since > NOT_READY_S:
            # Nothing is held back: the worker may be on its way.
            self._hold_until = now
            self._raise(now, f"no worker has been ready for {NOT_READY_S:g} s")
        late = self._started_at is not None and since is not None and now - self._started_at > TRY_S
        if self._raised is not None and late and self._is_wanted(now):
            self._started_at = None
            self._try_failed(now)

    def _try_failed(self, now: float) -> None:
        if self._is_wanted(now):  # the death of one that was already given up counts once
            self._hold_back(now)

    def _raise(self, now: float, why: str) -> None:
        if self._cleared_at is None or now - self._cleared_at > LONGEST_WAIT_S:
            self._wait_s = FIRST_WAIT_S
        self._raised = Unavailable(now, why)

    def _hold_back(self, now: float) -> None:
        self._hold_until = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _too_many(self, now: float) -> str:
        while self._deaths and now - self._deaths[0][0] > DEATH_WINDOW_S:
            self._deaths.popleft()
        studies = {s for _, s in self._deaths if s is not None}
        if len(studies) >= MAX_STUDIES:
            return f"the worker ended on {len(studies)} different studies within {DEATH_WINDOW_S:g} s"
        if len(self._deaths) >= MAX_DEATHS:
            return f"the worker ended {len(self._deaths)} times within {DEATH_WINDOW_S:g} s"
        return ""
