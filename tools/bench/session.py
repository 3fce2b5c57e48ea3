"""What our session adds to bare ONNX Runtime, on one graph, in one process, run by turns."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from bench.rows import ROOT, Bench, Row

_SIZE = 512
_CHANNELS = 8
_BOUND_SHARE, _BOUND_MS = 0.03, 0.5


def measure(bench: Bench) -> list[Row]:
    """The median of many single runs of each; a neighbour's noise meets both alike."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from engines.backends.onnxruntime import OnnxRuntimeSession

    image = np.random.default_rng(1).normal(size=(1, 1, _SIZE, _SIZE)).astype(np.float32)
    graph = _graph()
    with OnnxRuntimeSession(graph, name="bench") as session:
        bare, names = _bare(graph), [o.name for o in session.outputs]
        ours: list[float] = []
        theirs: list[float] = []
        for index in range(bench.size(400, 40)):
            # Who goes first changes, so that neither always finds the caches warm.
            for which in (ours, theirs) if index % 2 else (theirs, ours):
                begun = time.perf_counter()
                if which is ours:
                    session.run({"image": image})
                else:
                    bare.run(names, {"image": image})
                which.append((time.perf_counter() - begun) * 1000)
    warm = len(ours) // 10
    mine, base = statistics.median(ours[warm:]), statistics.median(theirs[warm:])
    over = mine - base
    return [
        Row(
            name="session",
            figure=f"one run of a session over bare ONNX Runtime, {_SIZE} x {_SIZE}, one thread, p50",
            measured=f"{over:+.3f} ms on {base:.2f} ms ({over / base:+.1%})",
            bound=f"{_BOUND_SHARE:.0%} or {_BOUND_MS} ms",
            ok=over <= max(_BOUND_MS, _BOUND_SHARE * base),
            details={"session_ms": round(mine, 4), "bare_ms": round(base, 4), "runs": len(ours)},
        )
    ]


def _bare(graph: bytes) -> Any:
    """The same library with the same settings, without our code."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _graph() -> bytes:
    """A few convolutions: as quick as a network on such a picture gets, which makes the bound hard."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(2)
    shapes = {"w1": (_CHANNELS, 1, 3, 3), "w2": (_CHANNELS, _CHANNELS, 3, 3), "w3": (2, _CHANNELS, 1, 1)}
    held = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Conv", ["image", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "w3"], ["map"]),
        node("GlobalAveragePool", ["map"], ["scores"]),
    ]
    inputs = [value("image", TensorProto.FLOAT, [1, 1, _SIZE, _SIZE])]
    outputs = [value("scores", TensorProto.FLOAT, [1, 2, 1, 1]), value("map", TensorProto.FLOAT, [1, 2, 128, 128])]
    made = helper.make_graph(nodes, "bench", inputs, outputs, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph
