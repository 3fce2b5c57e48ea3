"""Write ``example-segmenter``: the shape of a 3D nnU-Net as a package, bone instead of an organ.

    python tools/models/segmenter.py FOLDER

Two folds of a small U-Net (convolution, instance norm, leaky ReLU; down by stride, up by transposed convolution, skip
connection), run in overlapping patches with Gaussian weights and all mirror axes, logits averaged, softmax. Most
weights are drawn from the fold's seed. One channel is set by hand and carries the picture through every block to the
last layer, so that the folds really segment what is dense: CT is clipped from 300 HU up, where bone is bright and all
else is even, and the last layer's other weights are small.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from example_package import CT_CLASSES, Graph, balls, text, write_package

PATCH = (16, 32, 32)
SPACING_MM = 4.0
CHANNELS = (4, 8)
#: What is carried is made so small that instance norm's epsilon, not its variance, divides it: only the mean is taken.
_QUIET = 1e-4
_EPSILON = 1e-5
#: Of the carried channel at the last layer; half of the contrast, less what the means of four blocks take.
_EDGE = 0.28
_STEEP = 40.0
_SEEDED = 0.02


def fold(seed: int) -> bytes:
    """The graph of one fold: ``volume`` [1, 1, *PATCH] to ``logits`` [1, 2, *PATCH] (background, bone)."""
    g, rng = Graph(), np.random.default_rng(seed)
    shallow, deep = CHANNELS
    skip = _block(g, rng, "encoder0", "volume", 1, shallow)
    low = _block(g, rng, "encoder1", skip, shallow, deep, stride=2)
    up_weights = rng.normal(0, (2 / deep) ** 0.5, (deep, shallow, 2, 2, 2))
    up = g.op("ConvTranspose", "up", low, g.weight("up_w", up_weights), strides=[2, 2, 2])
    # The skip comes first, so that the carried channel is channel 0 again.
    joined = g.op("Concat", "joined", skip, up, axis=1)
    last = _block(g, rng, "decoder0", joined, 2 * shallow, shallow)
    weights = rng.normal(0, _SEEDED, (2, shallow, 1, 1, 1))
    weights[:, 0, 0, 0, 0] = 0, _STEEP
    g.op("Conv", "logits", last, g.weight("logits_w", weights), g.weight("logits_b", [0, -_STEEP * _EDGE]))
    return g.model({"volume": (1, 1, *PATCH)}, {"logits": (1, 2, *PATCH)})


def _block(g: Graph, rng: np.random.Generator, name: str, value: str, before: int, after: int, stride: int = 1) -> str:
    """Two times convolution, instance norm, leaky ReLU; the first may shrink."""
    for k in range(2):
        weights = rng.normal(0, (2 / (27 * before)) ** 0.5, (after, before, 3, 3, 3))
        weights[0] = 0
        weights[0, 0, 1, 1, 1] = _QUIET
        scale, shift = np.ones(after), rng.normal(0, 0.1, after)
        scale[0], shift[0] = _EPSILON**0.5 / _QUIET, 0
        own = f"{name}_{k}"
        made = g.op(
            "Conv",
            f"{own}_conv",
            value,
            g.weight(f"{own}_w", weights),
            pads=[1] * 6,
            strides=[stride if k == 0 else 1] * 3,
        )
        normed = g.op(
            "InstanceNormalization",
            f"{own}_norm",
            made,
            g.weight(f"{own}_scale", scale),
            g.weight(f"{own}_shift", shift),
            epsilon=_EPSILON,
        )
        value, before = g.op("LeakyRelu", own, normed, alpha=0.01), after
    return value


def manifest(**changes: Any) -> dict[str, Any]:
    """``model.yaml`` as data; ``changes`` replace top-level keys."""
    finding = {
        "id": "dense-bone",
        "code": {"value": "272673000", "scheme": "SCT", "meaning": "Bone structure"},
        "title": text("Dense bone (example)", "致密骨（示例）"),
        "advice": text("None: this is an example.", "无：仅为示例。"),
        "category": 3,
        "score_unit": "ml",
        "measurements": [
            {
                "name": "volume",
                "title": text("Volume of dense bone", "致密骨体积"),
                "code": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"},
                "unit": "ml",
            }
        ],
        "operating_points": [{"name": "any", "threshold": 1.0, "default": True}],
    }
    first = {
        "onnx": "fold-0.onnx",
        "input": {
            "role": "ct",
            "modality": ["CT"],
            "sop_classes": CT_CLASSES,
            "envelope": {"slices": {"min": 8}, "orientation": "axial", "max_oblique_deg": 35, "max_tilt_deg": 30},
        },
        "preprocess": {
            "name": "ct-volume",
            "params": {
                "tensor": "volume",
                "spacing_mm": [SPACING_MM] * 3,
                "clip_hu": [300, 700],
                "mean": 300,
                "sd": 400,
            },
        },
        "head": {
            "name": "segment",
            "params": {
                "output": "logits",
                "labels": {"dense-bone": 1},
                "activation": "softmax",
                "min_mm3": 500,
                "unit": "ml",
            },
        },
    }
    return {
        "schema": 1,
        "name": "example-segmenter",
        "version": "1.0.0",
        "title": text("Example: segmenter in the shape of nnU-Net", "示例：nnU-Net 形式的分割模型"),
        "status": "demonstrator",
        "licence": "Apache-2.0",
        "intended_use": "measurement",
        "notify": "passive",
        "looked_for": text("What is as dense as bone.", "密度与骨相当的结构。"),
        "not_looked_for": text("Everything else.", "其他一切。"),
        "stages": [first, {"onnx": "fold-1.onnx"}],
        "pipeline": {
            "steps": [
                {
                    "stages": [0, 1],
                    "tile": {"patch": list(PATCH), "overlap": 0.5, "weights": "gaussian", "mirror_axes": [0, 1, 2]},
                }
            ]
        },
        "findings": [finding],
        "precisions": ["fp32"],
        "limits": {"time_s": 60, "memory_mb": 1024},
        **changes,
    }


def write(folder: Path) -> Path:
    """Write the package."""
    shape, spacing = (14, 36, 36), (4.0, 4.0, 4.0)
    ball = ((26.0, 70.0, 60.0), 32.0, 700.0)
    true_ml = np.pi / 6 * ball[1] ** 3 / 1000
    golden = {
        "ball.npz": (balls(shape, spacing, 0, [ball]), {"dense-bone": (0.8 * true_ml, 1.2 * true_ml)}),
        "water.npz": (balls(shape, spacing, 0, []), {"dense-bone": (0.0, 0.0)}),
    }
    return write_package(folder, manifest(), {"fold-0.onnx": fold(1), "fold-1.onnx": fold(2)}, golden)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
