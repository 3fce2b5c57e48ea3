"""Write ``example-nodule-detector``: two graphs, the second looks closer where the first saw something.

    python tools/models/nodule_detector.py FOLDER

At 2 mm a heat map shows what is denser than its surroundings at some size: boxes of several widths against the frame
around each, by running averages, run in patches. Its peaks are cut out at 1 mm, and the second graph asks of each
crop whether it is a ball that stands free: for several radii, how much denser the inside is than the densest place of
the shell around it (a vessel passes through the shell, the chest wall fills half of it). The radius that tells most
gives the diameter. Nothing was trained; nodules at the chest wall are missed by construction.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from example_package import CT_CLASSES, Graph, balls, text, write_package

PATCH = (32, 64, 64)
COARSE_MM = 2.0
FINE_MM = 1.0
CROP = 33
#: Widths of the inner boxes in voxels of 2 mm; the frame is so much wider on both sides.
_WIDTHS = (3, 5, 7)
_FRAME = 3
_RADII_MM = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)


def coarse() -> bytes:
    """``ct`` [1, 1, *PATCH] to ``heat`` of the same shape, 0 to 1."""
    g = Graph()
    found = []
    for width in _WIDTHS:
        outer = width + 2 * _FRAME
        inside, whole = _box(g, f"in{width}", width), _box(g, f"out{width}", outer)
        # The frame's mean: what the large box holds beyond the small one.
        large = g.op("Mul", f"large{width}", whole, g.weight(f"n{outer}", float(outer**3)))
        small = g.op("Mul", f"small{width}", inside, g.weight(f"n{width}", float(width**3)))
        rest = g.op("Sub", f"rest{width}", large, small)
        frame = g.op("Div", f"frame{width}", rest, g.weight(f"d{width}", float(outer**3 - width**3)))
        found.append(g.op("Sub", f"contrast{width}", inside, frame))
    best = g.op("Max", "contrast", *found)
    _sigmoid(g, "heat", best, middle=0.3, steep=12.0)
    shape = (1, 1, *PATCH)
    return g.model({"ct": shape}, {"heat": shape})


def _box(g: Graph, name: str, width: int) -> str:
    """Mean of a cube, as three running averages."""
    value = "ct"
    for axis in range(3):
        kernel = [width if k == axis else 1 for k in range(3)]
        pads = [(n - 1) // 2 for n in kernel] * 2
        value = g.op(
            "AveragePool",
            f"{name}_{axis}",
            value,
            kernel_shape=kernel,
            pads=pads,
            strides=[1, 1, 1],
            count_include_pad=1,
        )
    return value


def fine() -> bytes:
    """``crop`` [1, 1, CROP, CROP, CROP] to ``score`` [1, 1], 0 to 1, and ``diameter`` [1, 1] in mm."""
    g = Graph()
    steps = (np.arange(CROP) - (CROP - 1) / 2) * FINE_MM
    away = np.sqrt(steps[:, None, None] ** 2 + steps[None, :, None] ** 2 + steps[None, None, :] ** 2)
    insides = np.stack([(away <= r - 0.5) / (away <= r - 0.5).sum() for r in _RADII_MM])
    shells = np.stack([(away > r + 1.5) & (away <= r + 4.5) for r in _RADII_MM])
    count = len(_RADII_MM)
    flat = g.op("Reshape", "flat", "crop", g.weight("row", [1, CROP**3], np.int64))
    inside = g.op("MatMul", "inside", flat, g.weight("insides", insides.reshape(count, -1).T))
    # Noise must not pass for a vessel: the shell is looked at after a light average.
    calm = g.op(
        "AveragePool", "calm", "crop", kernel_shape=[3, 3, 3], pads=[1] * 6, strides=[1, 1, 1], count_include_pad=1
    )
    calm_flat = g.op("Reshape", "calm_flat", calm, g.weight("row", [1, CROP**3], np.int64))
    shelled = g.op("Mul", "shelled", calm_flat, g.weight("shells", shells.reshape(count, -1)))
    densest = g.op("ReduceMax", "densest", shelled, axes=[1], keepdims=1)
    across = g.op("Reshape", "across", densest, g.weight("columns", [1, count], np.int64))
    free = g.op("Sub", "free", inside, across)
    best = g.op("ReduceMax", "best", free, axes=[1], keepdims=1)
    _sigmoid(g, "score", best, middle=0.25, steep=20.0)
    # A sharp softmax over the radii: the one that tells most, or the mean of two that tell alike.
    sharp = g.op("Softmax", "share", g.op("Mul", "sharp", free, g.weight("sharpness", 40.0)), axis=1)
    diameters = 2 * np.asarray(_RADII_MM)[:, None]
    g.op("MatMul", "diameter", sharp, g.weight("diameters", diameters))
    return g.model({"crop": (1, 1, CROP, CROP, CROP)}, {"score": (1, 1), "diameter": (1, 1)})


def _sigmoid(g: Graph, name: str, value: str, *, middle: float, steep: float) -> str:
    off = g.op("Sub", f"{name}_off", value, g.weight(f"{name}_middle", middle))
    return g.op("Sigmoid", name, g.op("Mul", f"{name}_logit", off, g.weight(f"{name}_steep", steep)))


def manifest(**changes: Any) -> dict[str, Any]:
    """``model.yaml`` as data; ``changes`` replace top-level keys."""
    finding = {
        "id": "nodule",
        "code": {"value": "427359005", "scheme": "SCT", "meaning": "Solitary nodule of lung"},
        "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
        "title": text("Suspected nodule in the lung (example)", "疑似肺结节（示例）"),
        "advice": text("None: this is an example.", "无：仅为示例。"),
        "category": 3,
        "measurements": [
            {
                "name": "diameter",
                "title": text("Diameter", "直径"),
                "code": {"value": "81827009", "scheme": "SCT", "meaning": "Diameter"},
                "unit": "mm",
            }
        ],
        "operating_points": [{"name": "standard", "threshold": 0.5, "default": True}],
    }
    look = {
        "onnx": "coarse.onnx",
        "input": {
            "role": "chest-ct",
            "modality": ["CT"],
            "sop_classes": CT_CLASSES,
            "envelope": {
                "body_parts": ["CHEST", "THORAX", "LUNG"],
                "slices": {"min": 12},
                "slice_thickness_mm": {"max": 5},
                "orientation": "axial",
                "max_oblique_deg": 20,
            },
            "series_preference": [{"by": "thickness", "target_mm": 1}],
        },
        "preprocess": {
            "name": "ct-volume",
            "params": {
                "tensor": "ct",
                "spacing_mm": [COARSE_MM] * 3,
                "clip_hu": [-1000, 200],
                "mean": -1000,
                "sd": 1200,
                "keep_mm": FINE_MM,
            },
        },
    }
    look_closer = {
        "onnx": "fine.onnx",
        "head": {
            "name": "detect",
            "params": {
                "finding": "nodule",
                "scores": "score",
                "diameters": "diameter",
                "least_score": 0.2,
                "iou": 0.1,
                "at_most": 10,
            },
        },
    }
    return {
        "schema": 1,
        "name": "example-nodule-detector",
        "version": "1.0.0",
        "title": text("Example: nodules on chest CT in two looks", "示例：两阶段胸部 CT 结节检测"),
        "status": "demonstrator",
        "licence": "Apache-2.0",
        "intended_use": "detection",
        "notify": "passive",
        "looked_for": text("Balls of 6 to 20 mm that stand free in the lung.", "肺内 6 至 20 毫米的孤立球形结节。"),
        "not_looked_for": text("Nodules at the chest wall, and everything else.", "胸壁旁结节及其他一切。"),
        "stages": [look, look_closer],
        "pipeline": {
            "steps": [
                {"stages": [0], "tile": {"patch": list(PATCH), "overlap": 0.25}},
                {
                    "stages": [1],
                    "take": {
                        "from": 0,
                        "output": "heat",
                        "by": "peaks",
                        "threshold": 0.6,
                        "at_most": 48,
                        "apart_mm": 8,
                        "size": [CROP] * 3,
                        "spacing_mm": [FINE_MM] * 3,
                        "tensor": "crop",
                    },
                },
            ]
        },
        "findings": [finding],
        "precisions": ["fp32"],
        "limits": {"time_s": 60, "memory_mb": 1500},
        **changes,
    }


def write(folder: Path) -> Path:
    """Write the package."""
    shape, spacing = (24, 48, 48), (2.0, 1.6, 1.6)
    golden = {
        "nodule.npz": (balls(shape, spacing, -850, [((24.0, 40.0, 36.0), 12.0, 20.0)]), {"nodule": (0.9, 1.0)}),
        "air.npz": (balls(shape, spacing, -850, []), {"nodule": (0.0, 0.0)}),
    }
    return write_package(folder, manifest(), {"coarse.onnx": coarse(), "fine.onnx": fine()}, golden)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
