"""Write the golden cases of ``chest-ct-nodule``: a chest with one nodule of 14 mm, and one of vessels alone.

python tools/models/chest_nodule_golden.py [FOLDER]
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct  # noqa: E402

FOLDER = ROOT / "engines/models/chest-ct-nodule/golden"
#: Few voxels and no noise: small files.
SCAN = ChestScan(matrix=128, thickness_mm=4.5, slices=68, noise_hu=0.0)
#: Steps in HU inside of the lungs; outside of them nothing is looked at.
STEP_HU = 20
CASES = {"nodule.npz": (23, (Nodule(diameter_mm=14.0),), (0.57, 0.67)), "vessels.npz": (24, (), (0.32, 0.42))}


def arrays(seed: int, nodules: tuple[Nodule, ...]) -> dict[str, np.ndarray]:
    """What a ``Volume`` holds."""
    phantom = chest_ct(seed, nodules=nodules, scan=SCAN)
    hu = np.clip(phantom.pixels, -1000, 60)
    flat = np.where(hu > -150, 60, np.where(hu < -950, -1000, np.rint(hu / STEP_HU) * STEP_HU))
    return {
        "array": flat.astype(np.int16),
        "positions_mm": np.asarray([p[2] for p in phantom.positions_mm]),
        "spacing_mm": np.asarray(phantom.spacing_mm),
    }


def write(path: Path, held: dict[str, np.ndarray]) -> None:
    """Write one case; the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in held.items():
            data = io.BytesIO()
            np.save(data, values, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, data.getvalue(), zipfile.ZIP_DEFLATED)


def main() -> int:
    """Write both cases and what is expected of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, (seed, nodules, _) in CASES.items():
        write(folder / name, arrays(seed, nodules))
    expected = [
        {"file": name, "origin": "phantom", "scores": {"nodule": list(bounds)}}
        for name, (_, _, bounds) in CASES.items()
    ]
    (folder / "golden.json").write_text(json.dumps(expected, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
