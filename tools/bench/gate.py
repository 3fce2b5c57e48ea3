"""How long the gate takes for a package of 30 MB: signature, files, rules, shapes, in its limited child, cold."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from bench.rows import ROOT, Bench, Row

_BOUND_S = 2.0
_MB = 30


def measure(bench: Bench) -> list[Row]:
    """Gate a signed package whose graph is 30 convolutions with 30 MB of weights."""
    from engines.gate import gate_package

    folder = bench.new_folder("gate") / "wide"
    key = _package(folder)
    took = []
    for _ in range(bench.size(10)):
        begun = time.perf_counter()
        gate_package(folder, [key])
        took.append(time.perf_counter() - begun)
    median = statistics.median(took)
    return [
        Row(
            name="gate",
            figure=f"gate of a signed package with a {_MB} MB graph",
            measured=f"{median:.2f} s (most {max(took):.2f} s, n={len(took)})",
            bound=f"{_BOUND_S:g} s",
            ok=median <= _BOUND_S,
            details={"seconds": [round(one, 3) for one in took]},
        )
    ]


def _package(folder: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a key of the tests' kit
    """The tests' signed toy package, its graph replaced by a heavy one."""
    sys.path[:0] = [str(ROOT / "tests" / "toy"), str(ROOT / "tests" / "support")]
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    from package_kit import make_unsigned_package

    from engines.package import sign_package
    from engines.signing import generate

    blocks, channels = 30, 170
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[16, 16], strides=[16, 16])]
    weights = [numpy_helper.from_array(np.ones((channels, 1, 1, 1), np.float32), "first")]
    nodes.append(helper.make_node("Conv", ["small", "first"], ["x0"]))
    for block in range(blocks):
        values = rng.standard_normal((channels, channels, 3, 3), np.float32)
        weights.append(numpy_helper.from_array(values, f"w{block}"))
        nodes.append(helper.make_node("Conv", [f"x{block}", f"w{block}"], [f"c{block}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{block}"], [f"x{block + 1}"]))
    nodes.append(helper.make_node("ReduceMax", [f"x{blocks}"], ["peak"], axes=[1, 2, 3], keepdims=0))
    weights.append(numpy_helper.from_array(np.array([1, 1], np.int64), "one_by_one"))
    nodes.append(helper.make_node("Reshape", ["peak", "one_by_one"], ["flat"]))
    nodes.append(helper.make_node("Sigmoid", ["flat"], ["scores"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wide",
        [value("image", TensorProto.FLOAT, [1, 1, 256, 256])],
        [value("scores", TensorProto.FLOAT, [1, 1])],
        weights,
    )
    make_unsigned_package(folder)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    key = generate("bench")
    sign_package(folder, [key])
    return key.public
