"""``python tools/bench``: the figures that the design must reach, measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Make this folder importable as the package ``bench``, here and in what is started, and run it."""
    paths = [str(_ROOT), str(_ROOT / "tools")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    from bench.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
