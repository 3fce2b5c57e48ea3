"""``make models``: compute bundled packages anew, or see by hashes whether that is due.

    python tools/models [--check | --readme] [--data FOLDER] [PACKAGE ...]

Graph, golden cases, figures and, where they are generated, card and manifest; then the README's table of figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(Path(__file__).parent)]

from readme_table import is_new, renew, table  # noqa: E402 - scripts beside this one
from recipes import RECIPES, keep_shared, shared_sha256, stale  # noqa: E402

from engines.package import bundled_packages  # noqa: E402

_README = _ROOT / "README.md"


def main() -> int:
    """Make, or check."""
    parser = argparse.ArgumentParser(description="Compute the bundled packages anew")
    parser.add_argument("packages", nargs="*", help="names; all when left out")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compute nothing; exit 1 where a hash is another now")
    what.add_argument("--readme", action="store_true", help="compute nothing but the README's table")
    parser.add_argument("--data", type=Path, help="what packages learn from (default: under $SCANSIDE_TEST_DATA)")
    asked = parser.parse_args()
    folders = bundled_packages()
    names = asked.packages or sorted(folders)
    if unknown := [name for name in names if name not in folders or name not in RECIPES]:
        parser.error(f"no recipe or no package: {', '.join(unknown)}; recipes: {', '.join(RECIPES)}")
    left_out: list[str] = []
    if not asked.check and not asked.readme:
        left_out = [name for name in names if not _made(name, folders[name], asked.data)]
    if asked.readme or (not asked.check and len(left_out) < len(names)):
        renew(_README, table(folders))
    faults = [fault for name in names if name not in left_out for fault in stale(name, folders[name])]
    faults += [] if is_new(_README, table(folders)) else [f"{_README}: its table is old; run tools/models --readme"]
    print("\n".join(faults or ["every metrics.json that was looked at belongs to its graph, code and data"]))
    return 1 if faults or left_out else 0


def _made(name: str, package: Path, data: Path | None) -> bool:
    """Run the commands; False, with the reason told, where something that they need is absent."""
    recipe = RECIPES[name]
    if recipe.trained and importlib.util.find_spec("torch") is None:
        print(f"{name}: left out, it needs PyTorch: {sys.executable} -m pip install 'torch==2.13.0' (pyproject: train)")
        return False
    held = os.environ.get("SCANSIDE_TEST_DATA", "")
    folder = data or (Path(held) / recipe.data if held else None)
    if recipe.data and (folder is None or not folder.is_dir()):
        print(f"{name}: left out, its images are not here: name their folder with --data or SCANSIDE_TEST_DATA")
        return False
    # Taken before: what changes while they run was not what they ran with.
    shared = shared_sha256(recipe)
    for command in recipe.commands:
        begun = time.monotonic()
        words = [word.format(data=folder) for word in shlex.split(command)]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        subprocess.run([sys.executable, *words], cwd=_ROOT, env=environment, check=True)
        print(f"{name}: {words[0]} took {time.monotonic() - begun:.0f} s", flush=True)
    keep_shared(package, shared)
    return True


if __name__ == "__main__":
    sys.exit(main())
