"""Whole signed packages for tests: the toy X-ray package with card, golden cases and a signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import toy_packages

from engines.package import sign_package
from engines.signing import PrivateKey, PublicKey, generate

FINDING = toy_packages.FINDING


def make_unsigned_package(folder: Path, **changes: Any) -> Path:
    """Write ``toy-bright-blob`` with everything that the gate asks for; ``changes`` replace keys of the manifest."""
    toy_packages.make_toy_xray_package(folder, **changes)
    (folder / "CARD.md").write_text("# Bright blob\n\nA toy. Finds bright blobs on synthesised pictures.\n")
    (folder / "golden").mkdir()
    np.savez_compressed(folder / "golden/blob.npz", **picture(blob=True))
    np.savez_compressed(folder / "golden/plain.npz", **picture(blob=False))
    cases = [
        {"file": "blob.npz", "origin": "synthesised", "scores": {FINDING: [0.6, 1.0]}},
        {"file": "plain.npz", "origin": "synthesised", "scores": {FINDING: [0.0, 0.2]}},
    ]
    (folder / "golden/golden.json").write_text(json.dumps(cases))
    return folder


def make_signed_package(folder: Path, key: PrivateKey | None = None, **changes: Any) -> PublicKey:
    """The same, signed; returns the key to trust."""
    key = key if key is not None else generate("test maker")
    make_unsigned_package(folder, **changes)
    sign_package(folder, [key])
    return key.public


def picture(*, blob: bool) -> dict[str, Any]:
    """The arrays of one golden case: a faint slope, with a bright disc in it or without."""
    rows, columns = np.mgrid[0:256, 0:256]
    array = (rows + columns).astype(np.float32) / 5
    if blob:
        array[np.hypot(rows - 100, columns - 120) < 12] = 1000
    return {"array": array[None], "positions_mm": np.zeros(1), "spacing_mm": np.array([1.0, 1.0])}
