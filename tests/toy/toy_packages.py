"""Toy packages for the bench and for tests of whoever runs packages. Never shipped, never for patients.

``make_toy_xray_package`` writes a whole, working X-ray package; ``make_fake_package`` one whose engine misbehaves: as
the graph itself where ONNX can do it (``nan``, ``hang``, ``slow``), and for every mode by the fake backend, which
reads the mode from ``fake.json`` in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
FINDING = "bright-blob"
SIZE = 256


def make_toy_xray_package(folder: Path, **changes: Any) -> Path:
    """Write package ``toy-bright-blob``: one bright blob on a chest X-ray scores high. ``changes`` replace keys."""
    return _write(folder, _blob_graph(), {"name": "toy-bright-blob", **changes})


def make_fake_package(folder: Path, mode: str, *, seconds: float = 2.0, **changes: Any) -> Path:
    """Write package ``toy-<mode>`` whose engine misbehaves.

    Args:
        folder: Is made.
        mode: Of the fake backend: ok, nan, inf, constant, crash, hang, memory, error, slow.
        seconds: How long ``slow`` takes in the fake backend.
        **changes: Replace keys of the manifest.
    """
    graphs = {"nan": _nan_graph, "hang": lambda: _loop_graph(2**62), "slow": lambda: _loop_graph(300_000)}
    _write(folder, graphs.get(mode, _blob_graph)(), {"name": f"toy-{mode}", **changes})
    told: dict[str, Any] = {"mode": mode}
    if mode == "slow":
        told["seconds"] = seconds
    (folder / "fake.json").write_text(json.dumps(told))
    return folder


def add_golden(folder: Path) -> Path:
    """Give ``toy-bright-blob`` two golden cases: a picture with a bright blob, and one without."""
    rows, columns = np.mgrid[:512, :512]
    plain = (1000 + rows * 2).astype(np.float32)
    blob = plain + 4000 * np.exp(-((rows - 200) ** 2 + (columns - 300) ** 2) / (2 * 12.0**2)).astype(np.float32)
    (folder / "golden").mkdir()
    for name, picture in (("blob", blob), ("plain", plain)):
        np.savez_compressed(
            folder / "golden" / f"{name}.npz",
            array=picture[None].astype(np.int16),
            positions_mm=np.zeros(1),
            spacing_mm=np.array([0.5, 0.5]),
        )
    listing = [
        {"file": "blob.npz", "scores": {FINDING: [0.5, 1.0]}},
        {"file": "plain.npz", "scores": {FINDING: [0.0, 0.3]}},
    ]
    (folder / "golden" / "golden.json").write_text(json.dumps(listing))
    return folder


def manifest(**changes: Any) -> dict[str, Any]:
    """A complete ``model.yaml`` as data; ``changes`` replace top-level keys."""
    finding = {
        "id": FINDING,
        "code": {"value": "TOY1", "scheme": "99SCANSIDE", "meaning": "Bright blob"},
        "title": _text("Bright blob (toy)", "亮斑（玩具）"),
        "advice": _text("None: this is a toy.", "无：仅供测试。"),
        "category": 3,
        "operating_points": [
            {"name": "standard", "threshold": 0.5, "default": True},
            {"name": "sensitive", "threshold": 0.3},
        ],
    }
    stage = {
        "onnx": "model.onnx",
        "input": {
            "role": "chest-xray",
            "modality": ["DX", "CR"],
            "sop_classes": [CR, DX],
            "envelope": {"body_parts": ["CHEST"], "view_positions": ["PA", "AP"]},
        },
        "preprocess": {"name": "xray", "params": {"size": SIZE}},
        "head": {"name": "classify", "params": {"output": "scores", "findings": [FINDING]}},
    }
    return {
        "schema": 1,
        "name": "toy-bright-blob",
        "version": "1.0.0",
        "title": _text("Toy: bright blob", "玩具：亮斑"),
        "status": "demonstrator",
        "licence": "Apache-2.0",
        "intended_use": "triage",
        "notify": "passive",
        "looked_for": _text("One bright blob.", "单个亮斑。"),
        "not_looked_for": _text("Everything else.", "其他一切。"),
        "stages": [stage],
        "findings": [finding],
        "limits": {"time_s": 5, "memory_mb": 256},
        **changes,
    }


def _write(folder: Path, model: onnx.ModelProto, changes: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest(**changes), allow_unicode=True, sort_keys=False))
    return folder


def _text(en: str, zh: str) -> dict[str, str]:
    return {"en": en, "zh_Hans": zh}


def _model(nodes: list[onnx.NodeProto], weights: Mapping[str, Any]) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _blob_graph() -> onnx.ModelProto:
    """Two convolutions and a peak: the shape of a small network, with weights that anyone can check."""

    def box(size: int) -> np.ndarray:
        return np.full((1, 1, size, size), 1 / size**2, np.float32)

    node = helper.make_node
    return _model(
        [
            node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
            # Without the repeated edge every picture's border would look like a blob.
            node("Pad", ["small", "two"], ["framed_near"], mode="edge"),
            node("Pad", ["small", "ten"], ["framed_around"], mode="edge"),
            node("Conv", ["framed_near", "narrow"], ["near"]),
            node("Conv", ["framed_around", "wide"], ["around"]),
            node("Sub", ["near", "around"], ["blob"]),
            node("Relu", ["blob"], ["bright"]),
            node("GlobalMaxPool", ["bright"], ["peak"]),
            node("Reshape", ["peak", "one_by_one"], ["flat"]),
            node("Sub", ["flat", "middle"], ["off"]),
            node("Mul", ["off", "steep"], ["logit"]),
            node("Sigmoid", ["logit"], ["scores"]),
        ],
        {
            "narrow": box(5),
            "wide": box(21),
            "one_by_one": np.array([1, 1], np.int64),
            "two": np.array([0, 0, 2, 2, 0, 0, 2, 2], np.int64),
            "ten": np.array([0, 0, 10, 10, 0, 0, 10, 10], np.int64),
            "middle": np.float32(0.25),
            "steep": np.float32(20.0),
        },
    )


def _nan_graph() -> onnx.ModelProto:
    """The mean divided by itself minus itself: 0 / 0."""
    node = helper.make_node
    return _model(
        [
            node("ReduceMean", ["image"], ["mean"], keepdims=0),
            node("Sub", ["mean", "mean"], ["zero"]),
            node("Div", ["zero", "zero"], ["bad"]),
            node("Reshape", ["bad", "one_by_one"], ["scores"]),
        ],
        {"one_by_one": np.array([1, 1], np.int64)},
    )


def _loop_graph(times: int) -> onnx.ModelProto:
    """A native call that only a signal from outside ends, where ``times`` is large."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sqrt", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [1, 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 1]),
        ],
    )
    node = helper.make_node
    return _model(
        [
            node("ReduceMean", ["image"], ["mean"], keepdims=0),
            node("Reshape", ["mean", "one_by_one"], ["start"]),
            node("Loop", ["times", "true", "start"], ["scores"], body=body),
        ],
        {
            "one_by_one": np.array([1, 1], np.int64),
            "times": np.array(times, np.int64),
            "true": np.array(True),
        },
    )
