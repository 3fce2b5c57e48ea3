"""``python tools/bench_fleet``: thousands of simulated boxes, one mosquitto, one ingest, and what they reach."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Make the packages of tools and of the tests' kit importable, and run."""
    paths = [str(_ROOT), str(_ROOT / "tools"), str(_ROOT / "tests" / "support")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    from bench_fleet.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
