"""The toy X-ray package of the tests: there is no bundled X-ray package yet, and it is never shipped."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.rows import ROOT


def toy_package(folder: Path) -> Path:
    """Write the package below ``folder``."""
    sys.path.insert(0, str(ROOT / "tests" / "toy"))
    from toy_packages import make_toy_xray_package  # type: ignore[import-not-found]

    made: Path = make_toy_xray_package(folder / "toy")
    return made
