"""The graph of ``bone-age``, made of ordinary ONNX operators; training fills its weights and changes nothing else.

``image`` [1, 1, 256, 256] in 0..1 becomes

* ``ripeness`` [1, 1]: four convolutions, averages over 4 x 4 cells, one weight for each. ``model.yaml`` turns it into
  months: 120 + 60 times it;
* ``hand`` [1, 1], 0..1: is this one hand, fingers up, on a dark ground? A rule that no training changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.gate import check_graph

SIZE = 256
OPSET = 17
IR_VERSION = 8
MAX_BYTES = 2_000_000
#: Months that ripeness 0 stands for, and what 1 adds.
MIDDLE, SPAN = 120.0, 60.0
#: Kernel, channels in, channels out; each halves rows and columns.
LAYERS = ((5, 1, 12), (3, 12, 24), (3, 24, 48), (3, 48, 128))
CELLS = 4
#: Rows and columns of the last layer's maps that one cell averages.
POOL = SIZE // 2 ** len(LAYERS) // CELLS
FEATURES = LAYERS[-1][2] * CELLS * CELLS

# The rule, on blocks of 4 x 4 pixels, 64 x 64 of them.
_BLOCKS = 64
#: A block shows something where it is brighter than this share of the brightest.
_SHOWS = 0.14
#: Rows that the fingers must cross, of those with four to five strips; counted in blocks.
_FINGER_ROWS = 5.0
_STRIPS = (3.5, 5.5)
#: Rows at the lower edge, where one strip, the wrist, must be.
_WRIST_ROWS = 6
#: Most of the blocks along the left, right and upper edge that may show something.
_EDGE_SHARE = 0.12
#: Least and most of all blocks.
_SHARE = (0.05, 0.55)

Weights = dict[str, NDArray[np.float32]]


def untrained(seed: int = 0) -> Weights:
    """Weights drawn from a seed, as training begins with them; the read-out says about 120 months of everything."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for number, (size, come, go) in enumerate(LAYERS):
        spread = np.sqrt(2 / (size * size * come))
        weights[f"kernel{number}"] = (rng.standard_normal((go, come, size, size)) * spread).astype(np.float32)
        weights[f"offset{number}"] = np.zeros(go, np.float32)
    weights["readout"] = (rng.standard_normal((1, FEATURES)) * 1e-3).astype(np.float32)
    weights["bias"] = np.zeros(1, np.float32)
    return weights


def graph(weights: Mapping[str, NDArray[np.float32]], *, features: bool = False) -> bytes:
    """The checked graph with these weights; the same bytes every time.

    Args:
        weights: As ``untrained`` names and shapes them.
        features: Give ``features`` [1, FEATURES], what the read-out weighs, in place of the outputs.

    Raises:
        SystemExit: It is too large.
        PackageError: The box's own gate would refuse it.
    """
    made = _Nodes()
    for name, values in weights.items():
        made.weight(name, values)
    value = "image"
    for number, (size, _, _) in enumerate(LAYERS):
        pads = [size // 2] * 4
        value = made.op(
            "Conv", f"conv{number}", value, f"kernel{number}", f"offset{number}",
            kernel_shape=[size, size], strides=[2, 2], pads=pads,
        )  # fmt: skip
        value = made.op("Relu", f"relu{number}", value)
    value = made.op("AveragePool", "cells", value, kernel_shape=[POOL, POOL], strides=[POOL, POOL])
    value = made.op("Flatten", "features", value)
    outputs = {"features": [1, FEATURES]}
    if not features:
        made.op("Gemm", "ripeness", value, "readout", "bias", transB=1)
        _hand(made)
        outputs = {"ripeness": [1, 1], "hand": [1, 1]}
    kind = TensorProto.FLOAT
    held = helper.make_graph(
        made.nodes,
        "bone_age",
        [helper.make_tensor_value_info("image", kind, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [one for name, one in made.weights.items() if not features or name not in {"readout", "bias"}],
    )
    model = helper.make_model(held, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "scanside"
    onnx.checker.check_model(model, full_check=True)
    check_graph(model, memory_mb=200)
    data = bytes(model.SerializeToString(deterministic=True))
    if len(data) >= MAX_BYTES:
        raise SystemExit(f"model.onnx has {len(data)} bytes, at most {MAX_BYTES}")
    return data


class _Nodes:
    """Nodes that grow by one call per operator; a node is named like the value that it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: object, kind: type = np.float32) -> str:
        self.weights.setdefault(name, numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def number(self, value: float) -> str:
        return self.weight(f"c{value:g}", [[value]])

    def part(self, name: str, value: str, axis: int, start: int, end: int) -> str:
        """Rows (axis 2) or columns (3) from ``start`` to ``end``."""
        where = [self.weight(f"{name}_{what}", [n], np.int64) for what, n in (("from", start), ("to", end))]
        return self.op("Slice", name, value, *where, self.weight(f"axis{axis}", [axis], np.int64))

    def mean(self, name: str, value: str) -> str:
        """Of everything: [1, 1]."""
        return self.op("ReduceMean", name, value, axes=[2, 3], keepdims=0)

    def is_above(self, name: str, value: str, least: float) -> str:
        """1 where it is, else 0."""
        return self.op("Cast", name, self.op("Greater", f"{name}_is", value, self.number(least)), to=TensorProto.FLOAT)

    def no_more(self, name: str, value: str, most: float) -> str:
        """1 up to ``most``, falling to 0 at twice that."""
        falls = self.op(
            "Sub", f"{name}_falls", self.number(2.0), self.op("Div", f"{name}_of", value, self.number(most))
        )
        return self.op("Clip", name, falls, self.weight("zero", 0.0), self.weight("one", 1.0))

    def no_less(self, name: str, value: str, least: float) -> str:
        """1 from ``least``, 0 at and below half of it."""
        twice = self.op("Mul", f"{name}_twice", value, self.number(2.0 / least))
        rises = self.op("Sub", f"{name}_rises", twice, self.number(1.0))
        return self.op("Clip", name, rises, self.weight("zero", 0.0), self.weight("one", 1.0))


def _hand(g: _Nodes) -> None:
    """Four or five strips side by side in enough rows, one at the lower edge, dark left, right and above."""
    side = SIZE // _BLOCKS
    small = g.op("AveragePool", "blocks", "image", kernel_shape=[side, side], strides=[side, side])
    shows = g.is_above("shows", small, _SHOWS)
    # A strip begins where a block shows something and its left neighbour does not.
    right, left = g.part("right", shows, 3, 1, _BLOCKS), g.part("left", shows, 3, 0, _BLOCKS - 1)
    begins = g.op("Mul", "begins", right, g.op("Sub", "nothing_left", g.number(1.0), left))
    # Of the 63 columns: the mean is exact enough in halves (FP16), and the bounds lie between whole numbers.
    strips = g.op("ReduceMean", "strips", begins, axes=[3], keepdims=1)
    columns = _BLOCKS - 1
    several = g.is_above("several", strips, _STRIPS[0] / columns)
    too_many = g.is_above("too_many", strips, _STRIPS[1] / columns)
    fingers = g.op("Sub", "fingers", several, too_many)
    upper = g.mean("fingers_share", g.part("fingers_upper", fingers, 2, 0, 3 * _BLOCKS // 4))
    enough = g.no_less("fingers_enough", upper, _FINGER_ROWS / (3 * _BLOCKS // 4))
    low = g.part("strips_low", strips, 2, _BLOCKS - _WRIST_ROWS, _BLOCKS)
    some = g.is_above("wrist_some", low, 0.5 / columns)
    more = g.is_above("wrist_more", low, 1.5 / columns)
    wrist = g.no_less("wrist", g.mean("wrist_share", g.op("Sub", "wrist_one", some, more)), 0.99)
    edges = [
        g.mean("edge_left", g.part("at_left", shows, 3, 0, 1)),
        g.mean("edge_right", g.part("at_right", shows, 3, _BLOCKS - 1, _BLOCKS)),
        g.mean("edge_above", g.part("at_top", shows, 2, 0, 1)),
    ]
    dark = g.no_more("dark", g.op("Max", "edge_most", *edges), _EDGE_SHARE)
    share = g.mean("share", shows)
    size = g.op("Mul", "size", g.no_less("size_least", share, _SHARE[0]), g.no_more("size_most", share, _SHARE[1]))
    g.op("Min", "hand", enough, wrist, dark, size)
