"""Write the golden cases of ``head-ct-hyperdensity``: one head with a bleed of 12 ml, one without.

python tools/models/golden_head_ct.py
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/models")]

from ball_head import ball, head  # noqa: E402 - a script beside this one

from engines.types import Volume  # noqa: E402

FOLDER = ROOT / "engines/models/head-ct-hyperdensity/golden"
BLEED_ML = 12.0
#: A whole head in few slices, with little noise: small files.
SCAN = {"thickness_mm": 7.5, "slices": 20, "noise_hu": 1.5, "shape": (196, 160), "calcified": True}


def write(name: str, volume: Volume) -> None:
    """Write one case; the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    # Air, scalp and bone without noise: most of the file.
    soft = np.where(volume.array < -300, -1000, np.where(volume.array > 500, 1000, volume.array))
    array = np.where((soft > -90) & (soft < -30), -60, soft).astype(np.int16)
    arrays = {"array": array, "positions_mm": volume.positions_mm, "spacing_mm": volume.spacing_mm}
    with zipfile.ZipFile(FOLDER / name, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in arrays.items():
            held = io.BytesIO()
            np.save(held, np.asarray(values), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), held.getvalue(), zipfile.ZIP_DEFLATED
            )


def main() -> int:
    """Write both cases and what is expected of them."""
    FOLDER.mkdir(exist_ok=True)
    write("bleed.npz", head(7, balls=[ball(BLEED_ML)], **SCAN))
    write("no-bleed.npz", head(8, **SCAN))
    bounds = {
        "bleed.npz": [round(0.9 * BLEED_ML, 1), round(1.1 * BLEED_ML, 1)],
        "no-bleed.npz": [0, 0.4],
    }
    expected = [
        {"file": file, "origin": "phantom", "scores": {"hyperdensity": bound}} for file, bound in bounds.items()
    ]
    (FOLDER / "golden.json").write_text(json.dumps(expected, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
