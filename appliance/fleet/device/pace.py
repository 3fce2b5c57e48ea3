"""How fast the link may go, as rules that know no network: when to dial, how much to send, what to leave alone.

All of them count monotonic seconds; the wall clock may say what it likes (T35).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

#: The widest interval in which the next attempt may lie.
_MOST_S = 300.0
#: A connection that stood so long was a good one: the next attempt comes soon again.
_STABLE_S = 60.0
#: After the start, so that a site whose power comes back does not dial all at once.
FIRST_S = 30.0
#: Being thrown out so often by somebody with our name is no chance.
_TAKEOVERS = 3
_TAKEN_OVER_S = 600.0
#: A connection that stood so long says that nobody else has our name any more.
_ALONE_S = 3600.0
#: What is refused is tried again after so long, doubling.
_HELD_S, _MOST_HELD_S = 300.0, 3600.0


@dataclass
class Backoff:
    """Full jitter: the n-th attempt in a row comes after ``uniform(0, min(300, 2^n))`` seconds.

    Attributes:
        rng: Chance; without it all boxes would come back at one moment.
        attempts: Failures in a row.
        takeovers: How often somebody else was met in our name since a connection stood for an hour.
    """

    rng: random.Random
    attempts: int = 0
    takeovers: int = 0

    def first(self, within_s: float = FIRST_S) -> float:
        """How long to wait after the start."""
        return self.rng.uniform(0, within_s)

    def after(self, stood_s: float) -> float:
        """How long to wait after a connection that stood so long; 0 where it never did."""
        if stood_s >= _ALONE_S:
            self.takeovers = 0
        if stood_s >= _STABLE_S:
            self.attempts = 0
        self.attempts = min(self.attempts + 1, 30)
        if self.is_doubled:
            return _TAKEN_OVER_S + self.rng.uniform(0, _STABLE_S)
        return self.rng.uniform(0, min(_MOST_S, 2.0**self.attempts))

    def met_another(self) -> None:
        """Somebody else connected in our name."""
        self.takeovers += 1

    @property
    def is_doubled(self) -> bool:
        """Whether two boxes have one identity: a disk was copied."""
        return self.takeovers >= _TAKEOVERS

    def is_alone(self, stands_s: float) -> bool:
        """Whether a connection that stands so long proves that nobody else has our name."""
        return stands_s >= _ALONE_S


@dataclass
class Bucket:
    """So many bytes a second over time, a second's worth at once; a larger message goes and is paid for afterwards."""

    at_mono: float
    debt: float = 0.0

    def is_open(self, now_mono: float, bytes_per_s: int) -> bool:
        """Whether the next message may go."""
        self.debt = max(0.0, self.debt - (now_mono - self.at_mono) * bytes_per_s)
        self.at_mono = now_mono
        return self.debt <= bytes_per_s

    def take(self, size: int) -> None:
        """A message went."""
        self.debt += size


@dataclass
class Held:
    """What a broker refuses is left alone for a while, longer each time; trying again at once would lose the line."""

    _until: dict[str, tuple[float, float]] = field(default_factory=dict)

    def refuse(self, what: str, now_mono: float) -> None:
        """It was refused; of several that were on their way together, the first counts."""
        if self.is_held(what, now_mono):
            return
        delay = self._until[what][1] * 2 if what in self._until else _HELD_S
        delay = min(delay, _MOST_HELD_S)
        self._until[what] = (now_mono + delay, delay)

    def is_held(self, what: str, now_mono: float) -> bool:
        """Whether it is not to be tried now."""
        return what in self._until and now_mono < self._until[what][0]

    def is_suspect(self, what: str) -> bool:
        """Whether its last try was refused; of such, one at a time is tried."""
        return what in self._until

    def take(self, what: str) -> bool:
        """It was taken. Returns whether it had been refused before."""
        return self._until.pop(what, None) is not None

    def keep(self, names: Collection[str]) -> None:
        """Forget everything but these."""
        self._until = {what: held for what, held in self._until.items() if what in names}

    def __len__(self) -> int:
        """How many things are refused."""
        return len(self._until)
