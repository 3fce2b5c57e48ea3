"""A package with two inputs, a frontal and a lateral chest X-ray, for tests of whoever finds, prepares or runs both."""

from __future__ import annotations

import onnx
import yaml
from onnx import TensorProto, helper
from worker_kit import CR, DX, _manifest

SIZE = 64
VIEWS = {"frontal": ["PA", "AP"], "lateral": ["LL", "LATERAL"]}


def _input(role):
    envelope = {"view_positions": VIEWS[role]}
    return {
        "input": {"role": role, "modality": ["DX", "CR"], "sop_classes": [DX, CR], "envelope": envelope},
        "preprocess": {"name": "xray", "params": {"tensor": role, "size": SIZE}},
    }


def pair_manifest(*, optional=False, **changes):
    """``model.yaml`` as data."""
    head = {"name": "classify", "params": {"output": "scores", "findings": ["bright"]}}
    stage = {"onnx": "model.onnx", **_input("frontal"), "head": head}
    further = {**_input("lateral"), "stage": 0, "optional": optional}
    return _manifest("toy-pair", stage, pipeline={"inputs": [further]}, **changes)


def make_pair_package(folder, **changes):
    """A package whose score is three quarters of the frontal's mean and one quarter of the lateral's."""
    nodes, parts = [], []
    for role, share in (("frontal", 0.75), ("lateral", 0.25)):
        nodes += [
            helper.make_node("ReduceMean", [role], [f"{role}_mean"], keepdims=0),
            helper.make_node("Mul", [f"{role}_mean", f"{role}_share"], [f"{role}_part"]),
        ]
        parts.append(helper.make_tensor(f"{role}_share", TensorProto.FLOAT, [], [share]))
    nodes += [
        helper.make_node("Add", ["frontal_part", "lateral_part"], ["both"]),
        helper.make_node("Reshape", ["both", "shape"], ["scores"]),
    ]
    parts.append(helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1]))
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info(role, TensorProto.FLOAT, [1, 1, SIZE, SIZE]) for role in VIEWS],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1])],
        parts,
    )
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(folder / "model.onnx")
    )
    (folder / "model.yaml").write_text(yaml.safe_dump(pair_manifest(**changes)))
    return folder
