"""``python tools/train/bone_age``: write the untrained package, or train one on phantoms or on images of your own."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    """Make this folder importable as the package ``bone_age`` and run it."""
    sys.path[:0] = [str(_ROOT), str(_ROOT / "tools/train")]
    from bone_age.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
