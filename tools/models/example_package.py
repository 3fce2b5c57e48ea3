"""What the scripts of the example packages share: a folder with ``model.yaml``, graphs and golden cases, no Python.

The example packages are for tests and for whoever makes packages: their graphs have the shape of real models, their
weights are drawn from a seed or set by hand, and nothing that they say is for patients.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
CT_CLASSES = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"]


class Graph:
    """Nodes that grow by one call per operator; a node is named like the value that it makes."""

    def __init__(self) -> None:
        """Start empty."""
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose one output is ``name``."""
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: object, kind: type = np.float32) -> str:
        """Add a constant."""
        self._weights.setdefault(name, numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def model(self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int | str]]) -> bytes:
        """The checked graph, float32 in and out; the same bytes every time."""
        graph = helper.make_graph(
            self._nodes,
            "example",
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in outputs.items()],
            list(self._weights.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def text(en: str, zh: str) -> dict[str, str]:
    """A text in both languages."""
    return {"en": en, "zh_Hans": zh}


def write_package(
    folder: Path,
    manifest: Mapping[str, Any],
    graphs: Mapping[str, bytes],
    golden: Mapping[str, tuple[Mapping[str, Any], Mapping[str, tuple[float, float]]]],
) -> Path:
    """Write a package.

    Args:
        folder: Is made.
        manifest: Of ``model.yaml``.
        graphs: By file name.
        golden: By file name: arrays of a ``Volume``, and the bounds of each score.
    """
    (folder / "golden").mkdir(parents=True)
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph)
    (folder / "model.yaml").write_text(yaml.safe_dump(dict(manifest), allow_unicode=True, sort_keys=False))
    for name, (arrays, _) in golden.items():
        _write_arrays(folder / "golden" / name, arrays)
    cases = [{"file": name, "origin": "phantom", "scores": scores} for name, (_, scores) in golden.items()]
    (folder / "golden" / "golden.json").write_text(json.dumps(cases, indent=2) + "\n")
    (folder / "CARD.md").write_text(
        f"# {manifest['name']}\n\nAn example of a package with several graphs. Not for patients: its weights were "
        "drawn from a seed or set by hand, never trained.\n"
    )
    return folder


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An ``.npz`` with the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in arrays.items():
            held = io.BytesIO()
            np.save(held, np.asarray(values), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, held.getvalue(), zipfile.ZIP_DEFLATED)


def balls(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    around: float,
    found: Sequence[tuple[tuple[float, float, float], float, float]],
) -> dict[str, Any]:
    """Balls (centre (z, y, x) in mm, diameter in mm, HU) in something even: the arrays of a golden case."""
    axes = [np.arange(n) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    array = np.full(shape, around, np.float32)
    for centre, diameter, hu in found:
        z, y, x = (axis - c for axis, c in zip(axes, centre, strict=True))
        away = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
        # A voxel at the edge is partly filled.
        share = np.clip((diameter / 2 - away) / min(spacing_mm) + 0.5, 0, 1)
        array += share * (hu - array)
    return {
        "array": np.rint(array).astype(np.int16),
        "positions_mm": axes[0],
        "spacing_mm": np.asarray(spacing_mm[1:]),
    }
