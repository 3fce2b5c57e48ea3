"""Golden cases of ``cxr-triage``: phantoms of chests, and the bounds of what the shipped graph says of them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

from appliance.simulate.chest_xray import Effusion, Opacity, chest_xray
from appliance.simulate.phantom import Phantom
from cxr.data import TARGETS, prepare

#: What an engine may differ by on the golden cases; its own rule is tighter.
BOUND = 0.02


def write_golden(folder: Path, onnx_bytes: bytes) -> dict[str, dict[str, float]]:
    """Write the cases; what the graph says of each, by file and finding."""
    folder.mkdir(exist_ok=True)
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    drawn = {
        "plain.npz": chest_xray(1, matrix=256),
        "effusion.npz": chest_xray(2, effusion=Effusion(height_mm=70.0), matrix=256),
        "opacity.npz": chest_xray(3, opacity=Opacity(radius_mm=35.0), matrix=256),
    }
    listing, said = [], {}
    for name, phantom in drawn.items():
        _write(folder / name, phantom)
        scores, _ = session.run(None, {"image": prepare(phantom.pixels.astype(np.int16))[None, None]})
        said[name] = {finding: round(float(s), 4) for finding, s in zip(TARGETS, scores[0], strict=True)}
        bounds = {f: [round(max(0.0, s - BOUND), 4), round(min(1.0, s + BOUND), 4)] for f, s in said[name].items()}
        listing.append({"file": name, "origin": "phantom", "scores": bounds})
    (folder / "golden.json").write_text(json.dumps(listing, indent=2) + "\n")
    return said


def _write(path: Path, phantom: Phantom) -> None:
    """One case; the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    arrays = {
        "array": phantom.pixels.astype(np.int16)[None],
        "positions_mm": np.zeros(1),
        "spacing_mm": np.array(phantom.spacing_mm),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in arrays.items():
            held = io.BytesIO()
            np.save(held, values, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), held.getvalue(), zipfile.ZIP_DEFLATED
            )
