"""Golden cases of ``cxr-quality``: phantoms, and the bounds of what the shipped graph says of them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
from cxr.data import prepare
from numpy.typing import NDArray

from appliance.simulate.chest_xray import chest_xray
from appliance.simulate.knee_xray import knee_xray
from cxr_quality.faults import FAULTS

#: What an engine may differ by on the golden cases; its own rule is tighter.
BOUND = 0.02
_MATRIX = 160


def write_golden(folder: Path, onnx_bytes: bytes) -> dict[str, dict[str, float]]:
    """Write the cases; what the graph says of each, by file and fault."""
    folder.mkdir(exist_ok=True)
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    chest, lifelike = (chest_xray(k, matrix=_MATRIX, lifelike=k == 2).pixels for k in (1, 2))
    drawn = {
        "chest.npz": chest,
        "upside-down.npz": lifelike[::-1, ::-1],
        "bases-cut-off.npz": chest[: round(0.6 * _MATRIX)],
        "knee.npz": knee_xray(3, matrix=_MATRIX).pixels,
    }
    listing, said = [], {}
    for name, pixels in drawn.items():
        _write(folder / name, np.ascontiguousarray(pixels).astype(np.int16))
        scores = session.run(None, {"image": prepare(pixels.astype(np.int16))[None, None]})[0][0]
        said[name] = {fault: round(float(s), 4) for fault, s in zip(FAULTS, scores, strict=True)}
        bounds = {f: [round(max(0.0, s - BOUND), 4), round(min(1.0, s + BOUND), 4)] for f, s in said[name].items()}
        listing.append({"file": name, "origin": "phantom", "scores": bounds})
    (folder / "golden.json").write_text(json.dumps(listing, indent=2) + "\n")
    return said


def _write(path: Path, pixels: NDArray[np.int16]) -> None:
    """One case; the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    arrays = {"array": pixels[None], "positions_mm": np.zeros(1), "spacing_mm": np.ones(2)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in arrays.items():
            held = io.BytesIO()
            np.save(held, values, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, held.getvalue(), zipfile.ZIP_DEFLATED)
