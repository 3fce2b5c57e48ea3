"""In which window CT slices are shown."""

from __future__ import annotations

from collections.abc import Iterable

#: Centre and width in HU by body part; the first that a package names counts.
_WINDOWS = {"HEAD": (40.0, 80.0), "BRAIN": (40.0, 80.0), "SKULL": (40.0, 80.0), "CHEST": (-500.0, 1500.0)}
_SOFT_TISSUE = (40.0, 400.0)


def window_of(body_parts: Iterable[str]) -> tuple[float, float]:
    """The window in which a package's slices are shown: centre and width in HU."""
    return next((_WINDOWS[part] for part in body_parts if part in _WINDOWS), _SOFT_TISSUE)
