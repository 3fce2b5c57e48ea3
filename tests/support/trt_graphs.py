"""Small graphs with seeded weights for tests of lowering and building; never shipped, never for patients."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, inputs, outputs, weights, opset=17):
    """A checked model; ``inputs`` and ``outputs`` are ``{name: shape}`` of float32 or ``{name: (shape, type)}``."""

    def value(name, told):
        shape, kind = told if isinstance(told, tuple) else (told, TensorProto.FLOAT)
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "test",
        [value(n, t) for n, t in inputs.items()],
        [value(n, t) for n, t in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def bytes_of(model) -> bytes:
    return model.SerializeToString(deterministic=True)


def unet3d() -> bytes:
    """A 3D U-Net as nnU-Net makes them: InstanceNorm, LeakyReLU, strided and transposed convolutions, softmax."""
    base, levels, size = 4, 3, ("d", "h", "w")
    rng = np.random.default_rng(7)
    nodes, weights = [], {}

    def put(name, *shape):
        fan = int(np.prod(shape[1:])) or 1
        weights[name] = (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
        return name

    def block(value, into, out, name, stride=1):
        put(f"{name}_w", out, into, 3, 3, 3)
        put(f"{name}_b", out)
        weights[f"{name}_g"], weights[f"{name}_s"] = np.ones(out, np.float32), np.zeros(out, np.float32)
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"{name}_w", f"{name}_b"],
                [f"{name}_c"],
                f"/{name}/conv",
                kernel_shape=[3] * 3,
                pads=[1] * 6,
                strides=[stride] * 3,
            )
        )
        nodes.append(
            helper.make_node(
                "InstanceNormalization", [f"{name}_c", f"{name}_g", f"{name}_s"], [f"{name}_n"], f"/{name}/norm"
            )
        )
        nodes.append(helper.make_node("LeakyRelu", [f"{name}_n"], [f"{name}_o"], f"/{name}/relu", alpha=0.01))
        return f"{name}_o"

    weights["mean"], weights["std"] = np.float32(40.0), np.float32(350.0)
    nodes += [
        helper.make_node("Sub", ["hu", "mean"], ["centred"], "/scale/sub"),
        helper.make_node("Div", ["centred", "std"], ["scaled"], "/scale/div"),
    ]
    value, channels, skips = "scaled", 1, []
    for level in range(levels):
        width = base * 2**level
        value = block(value, channels, width, f"down{level}", stride=1 if level == 0 else 2)
        channels = width
        skips.append((value, width))
    skips.pop()
    for level, (skip, width) in reversed(list(enumerate(skips))):
        put(f"up{level}_w", channels, width, 2, 2, 2)
        nodes += [
            helper.make_node(
                "ConvTranspose",
                [value, f"up{level}_w"],
                [f"up{level}_c"],
                f"/up{level}/transpose",
                kernel_shape=[2] * 3,
                strides=[2] * 3,
            ),
            helper.make_node("Concat", [f"up{level}_c", skip], [f"up{level}_j"], f"/up{level}/concat", axis=1),
        ]
        value, channels = block(f"up{level}_j", 2 * width, width, f"join{level}"), width
    put("head_w", 2, channels, 1, 1, 1)
    nodes += [
        helper.make_node("Conv", [value, "head_w"], ["logits"], "/head/conv", kernel_shape=[1] * 3),
        helper.make_node("Softmax", ["logits"], ["mask"], "/head/softmax", axis=1),
    ]
    model = model_of(nodes, {"hu": [1, 1, *size]}, {"mask": [1, 2, *size]}, weights)
    onnx.checker.check_model(model)
    return bytes_of(model)
