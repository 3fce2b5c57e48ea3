"""``python tools/train/cxr_quality --data FOLDER``: make the package ``cxr-quality`` whole, from images to card."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    """Make this folder and its neighbour ``cxr`` importable and run it."""
    sys.path[:0] = [str(_ROOT), str(_ROOT / "tools/train")]
    from cxr_quality.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
