"""What a measurement gives: a row of the table, and what rows are told."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Where distributions put daemons; not on everybody's PATH.
SYSTEM_PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    name: str
    #: What was measured, for a person.
    figure: str
    measured: str
    bound: str
    #: Whether the bound holds; None where it cannot be told (a neighbour is not installed, a time is only stated).
    ok: bool | None
    details: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    @property
    def verdict(self) -> str:
        """For the table."""
        return {True: "ok", False: "OVER", None: "-"}[self.ok]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run: where to work and how much."""

    folder: Path
    #: A tenth of the size: shows that everything is measured, not how fast it is.
    quick: bool = False
    #: The load row runs its real hour, the soak its half.
    full: bool = False

    def size(self, whole: int, least: int = 1) -> int:
        """``whole``, or a tenth of it."""
        return max(least, whole // 10) if self.quick else whole

    def new_folder(self, name: str) -> Path:
        """An empty folder for one box."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def say(self, text: str) -> None:
        """Tell who waits what goes on."""
        print(f"bench: {text}", file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and the largest, rounded."""
    return {
        "p50": round(statistics.median(values), 1),
        "p95": round(percentile(values, 0.95), 1),
        "max": round(max(values), 1),
        "n": len(values),
    }


def medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each key over all that have it."""
    keys = dict.fromkeys(key for one in measured for key in one)
    return {key: round(statistics.median(one[key] for one in measured if key in one), 1) for key in keys}
