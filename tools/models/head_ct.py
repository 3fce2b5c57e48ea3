"""Write the graph of ``head-ct-hyperdensity``: a transparent rule made of ordinary ONNX operators.

    python tools/models/head_ct.py            write engines/models/head-ct-hyperdensity/model.onnx
    python tools/models/head_ct.py --check    say whether that file is what this script writes

The rule, on slabs of 1 mm pixels (D slabs are the batch of every operator in the plane):
1. inside of the skull: bone lies to the left, right, front and back (rays; they survive gaps where a flood leaks);
2. local brain: a wide average of brain tissue (18-52 HU) around each pixel; where there is too little brain or too
   much fat or air nearby (face, orbits, mastoid), nothing is a candidate;
3. contrast: lightly smoothed HU minus local brain;
4. a candidate has enough contrast; near bone, where beam hardening and partial volume brighten the brain, more;
5. what is calcium in the deep interior (choroid plexus, pineal gland) is no candidate, nor is its blurred rim.
Components, volumes and every refusal are the head's (``engines/heads/hyperdensity.py``).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).resolve().parents[2] / "engines/models/head-ct-hyperdensity/model.onnx"
OPSET = 17
IR_VERSION = 8

SIZE = 256  # grid, 1 mm
HALF = SIZE // 2  # 2 mm, for rays and neighbourhoods
QUARTER = SIZE // 4  # 4 mm, for wide averages

BONE_HU = 250.0
TISSUE_HU = (-20.0, 105.0)  # what the light smoothing averages over
BRAIN_HU = (18.0, 52.0)  # what counts as brain in the local average
FAT_HU = -25.0
LOCAL_SIGMA_MM = 14.0
GAP_MM = 16.0
NARROW_MM = 24.0
MIN_BRAIN_SHARE = 0.2
MAX_FAT_SHARE = 0.06
CONTRAST_HU = 12.5
NEAR_BONE_MM = 4.0
NEAR_BONE_EXTRA_HU = 9.0
CALCIUM_HU = 105.0
CALCIUM_DEPTH_MM = 16.0
CALCIUM_RIM_MM = 4.0


class Graph:
    """A list of nodes that grows by one call per operator; names are those of the values they make."""

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose one output is ``name``."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: object, kind: type = np.float32) -> str:
        """Add a constant."""
        self.weights.setdefault(name, numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def number(self, value: float) -> str:
        """Add a scalar, once."""
        return self.weight(f"c{value:g}", value)

    def between(self, name: str, value: str, low: float, high: float) -> str:
        """1.0 where ``low < value < high``, else 0.0."""
        above = self.op("Greater", f"{name}_above", value, self.number(low))
        below = self.op("Less", f"{name}_below", value, self.number(high))
        return self.op("Cast", name, self.op("And", f"{name}_both", above, below), to=TensorProto.FLOAT)

    def wide_average(self, name: str, value: str, sigma: float, size: int) -> str:
        """Gaussian in the plane, zeros outside, as two products with a band matrix (a Conv of one channel is slow)."""
        apart = np.subtract.outer(np.arange(size), np.arange(size))
        taps = np.exp(-0.5 * (apart / sigma) ** 2)
        band = self.weight(f"gauss{sigma:g}", taps / taps[size // 2].sum())
        return self.op("MatMul", name, band, self.op("MatMul", f"{name}_across", value, band))

    def light_average(self, name: str, value: str) -> str:
        """Triangle of 5 x 5 pixels in the plane, about a Gaussian of 1.15 pixels, as two box averages."""
        box = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "count_include_pad": 1}
        return self.op("AveragePool", name, self.op("AveragePool", f"{name}_once", value, **box), **box)

    def spread(self, name: str, value: str, reach: int, *, across_slabs: bool) -> str:
        """Largest value within ``reach`` pixels in the plane and, if asked, in the slab above and below."""
        size, pad = 2 * reach + 1, [reach] * 4
        wide = self.op("MaxPool", f"{name}_plane", value, kernel_shape=[size, size], pads=pad, strides=[1, 1])
        if not across_slabs:
            return wide
        stacked = self.op("Transpose", f"{name}_stacked", wide, perm=[1, 0, 2, 3])  # [1, D, H, W]: slabs as channels
        volume = self.op("Unsqueeze", f"{name}_volume", stacked, self.weight("axis0", [0], np.int64))
        pooled = self.op(
            "MaxPool", f"{name}_near", volume, kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0], strides=[1, 1, 1]
        )
        flat = self.op("Squeeze", f"{name}_flat", pooled, self.weight("axis0", [0], np.int64))
        return self.op("Transpose", name, flat, perm=[1, 0, 2, 3])

    def enlarge(self, name: str, value: str, factor: int, mode: str) -> str:
        """Resize in the plane."""
        scales = self.weight(f"times{factor}", [1, 1, factor, factor])
        how = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        if mode == "linear":
            how = {"coordinate_transformation_mode": "half_pixel"}
        return self.op("Resize", name, value, "", scales, mode=mode, **how)


def _inside(g: Graph) -> tuple[str, str]:
    """Bone and inside of the skull at 2 mm: bone is met on the way to all four sides."""
    peak = g.op("MaxPool", "peak", "hu", kernel_shape=[2, 2], strides=[2, 2])
    bone = g.op("Cast", "bone", g.op("Greater", "bone_is", peak, g.number(BONE_HU)), to=TensorProto.FLOAT)
    ones = np.ones((HALF, HALF), np.float32)
    upper, lower = g.weight("upper", np.triu(ones)), g.weight("lower", np.tril(ones))
    seen = [
        g.op("MatMul", "bone_left", bone, upper),
        g.op("MatMul", "bone_right", bone, lower),
        g.op("MatMul", "bone_front", lower, bone),
        g.op("MatMul", "bone_back", upper, bone),
    ]
    least = g.op("Min", "bone_least", *seen)
    enclosed = g.op("Greater", "enclosed", least, g.number(0.5))
    free = g.op("Less", "bone_free", bone, g.number(0.5))
    caught = g.op("Cast", "caught", enclosed, to=TensorProto.FLOAT)
    # A gap in the bone (frontal sinus, suture, burr hole) lets rays out along a stripe: close stripes.
    reach = round(GAP_MM / 4)
    outside = g.op("Sub", "not_wide", g.number(1.0), g.spread("wide", caught, reach, across_slabs=False))
    closed = g.op("Sub", "closed", g.number(1.0), g.spread("outside_wide", outside, reach, across_slabs=False))
    hollow = g.op("Mul", "hollow", closed, g.op("Cast", "bone_free_f", free, to=TensorProto.FLOAT))
    # Brain is wide everywhere; muscle, marrow and sinus between bones are not. One block is given back at the rim.
    reach = round(NARROW_MM / 4)
    solid = g.op(
        "Sub",
        "solid",
        g.number(1.0),
        g.spread("narrowed", g.op("Sub", "full", g.number(1.0), hollow), reach, across_slabs=False),
    )
    wide = g.spread("opened", solid, reach + 1, across_slabs=False)
    inside = g.op("Mul", "inside_2mm", wide, hollow)
    return bone, inside


def _local_brain(g: Graph, inside: str) -> tuple[str, str]:
    """Local brain density, and where there is brain enough and no fat or air, at 4 mm."""
    mean = g.op("AveragePool", "mean_4mm", "hu", kernel_shape=[4, 4], strides=[4, 4])
    # Only blocks that lie wholly inside.
    outside = g.op("Sub", "outside_2mm", g.number(1.0), inside)
    covered = g.op("MaxPool", "outside_4mm", outside, kernel_shape=[2, 2], strides=[2, 2])
    whole = g.op("Sub", "inside_4mm", g.number(1.0), covered)
    brain = g.op("Mul", "brain_4mm", g.between("brain_hu", mean, *BRAIN_HU), whole)
    fat_is = g.op("Cast", "fat_hu", g.op("Less", "fat_is", mean, g.number(FAT_HU)), to=TensorProto.FLOAT)
    fat = g.op("Mul", "fat_4mm", fat_is, whole)
    sigma = LOCAL_SIGMA_MM / 4
    share = g.wide_average("brain_share", brain, sigma, QUARTER)
    weighted = g.op("Mul", "brain_weighted", mean, brain)
    total = g.wide_average("brain_total", weighted, sigma, QUARTER)
    # Far from any brain (the middle of a large bleed) the slab's own mean takes over.
    axes = {"axes": [1, 2, 3], "keepdims": 1}
    slab = g.op(
        "Div",
        "slab_mean",
        g.op("ReduceSum", "slab_total", weighted, g.weight("plane", [1, 2, 3], np.int64), keepdims=1),
        g.op(
            "Add",
            "slab_blocks",
            g.op("ReduceSum", "slab_count", brain, g.weight("plane", [1, 2, 3], np.int64), keepdims=1),
            g.number(1e-3),
        ),
    )
    del axes
    weak = g.number(0.02)
    local = g.op(
        "Div",
        "local_4mm",
        g.op("Add", "local_total", total, g.op("Mul", "slab_part", slab, weak)),
        g.op("Add", "local_share", share, weak),
    )
    near_fat = g.wide_average("fat_share", fat, sigma / 2, QUARTER)
    whole_share = g.wide_average("whole_share", whole, sigma, QUARTER)
    enough = g.op("Greater", "brain_enough", share, g.op("Mul", "brain_needed", whole_share, g.number(MIN_BRAIN_SHARE)))
    lean = g.op("Less", "fat_little", near_fat, g.number(MAX_FAT_SHARE))
    room = g.op("Cast", "room_4mm", g.op("And", "room_is", enough, lean), to=TensorProto.FLOAT)
    return local, room


def build() -> onnx.ModelProto:
    """Build the model; the same bytes every time."""
    g = Graph()
    bone, inside = _inside(g)
    local, room = _local_brain(g, inside)
    # Back to 1 mm. Contrast is known up to the inner table (one 2 mm block further), candidates stay off it.
    inner = g.enlarge("inner_1mm", inside, 2, "nearest")
    grown = g.enlarge("inside_1mm", g.spread("inside_grown", inside, 1, across_slabs=False), 2, "nearest")
    tissue = g.op("Mul", "tissue", g.between("tissue_hu", "hu", *TISSUE_HU), grown)
    summed = g.light_average("sum", g.op("Mul", "tissue_only", "hu", tissue))
    share = g.op("Add", "share_safe", g.light_average("share", tissue), g.number(1e-3))
    smooth = g.op("Div", "smooth", summed, share)
    raw = g.op("Sub", "raw", smooth, g.enlarge("local", local, 4, "linear"))
    usable = g.op("Mul", "usable", tissue, g.enlarge("room", room, 4, "nearest"))
    g.op("Mul", "contrast", raw, usable)
    near = g.spread("near_bone", bone, round(NEAR_BONE_MM / 2), across_slabs=True)
    demand = g.op("Add", "demand", g.op("Mul", "extra", near, g.number(NEAR_BONE_EXTRA_HU)), g.number(CONTRAST_HU))
    depth = g.spread("not_deep", bone, round(CALCIUM_DEPTH_MM / 2), across_slabs=False)
    deep = g.op("Sub", "deep", g.number(1.0), depth)
    mean = g.op("AveragePool", "mean_2mm", "hu", kernel_shape=[2, 2], strides=[2, 2])
    dense = g.op("Cast", "dense", g.op("Greater", "dense_is", mean, g.number(CALCIUM_HU)), to=TensorProto.FLOAT)
    calcium = g.spread("calcium", g.op("Mul", "deep_dense", dense, deep), round(CALCIUM_RIM_MM / 2), across_slabs=True)
    never = g.op("Add", "refused", calcium, g.op("Sub", "not_inside", g.number(1.0), inside))
    bar = g.op("Add", "bar", demand, g.op("Mul", "never", never, g.number(1000.0)))
    g.op("Greater", "candidate", "contrast", g.enlarge("bar_1mm", bar, 2, "nearest"))
    g.op("Greater", "inside", inner, g.number(0.5))
    plane: list[int | str | None] = ["D", 1, SIZE, SIZE]
    graph = helper.make_graph(
        g.nodes,
        "head_ct_hyperdensity",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, plane)],
        [
            helper.make_tensor_value_info("contrast", TensorProto.FLOAT, plane),
            helper.make_tensor_value_info("candidate", TensorProto.BOOL, plane),
            helper.make_tensor_value_info("inside", TensorProto.BOOL, plane),
        ],
        list(g.weights.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "scanside"
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description="Write the graph of head-ct-hyperdensity")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the file differs")
    data = build().SerializeToString(deterministic=True)
    if parser.parse_args().check:
        same = TARGET.is_file() and TARGET.read_bytes() == data
        print(f"{TARGET.name} {'is' if same else 'is NOT'} what this script writes")
        return 0 if same else 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(data)
    print(f"{TARGET.name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
