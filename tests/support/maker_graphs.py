"""Graphs such as makers bring, by script with seeded weights: nothing was trained, nothing of it is for patients."""

from __future__ import annotations

import numpy as np
from example_package import Graph

#: Of ChestX-ray14, in the order in which most networks have them.
FOURTEEN = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax"),
    *("consolidation", "edema", "emphysema", "fibrosis", "pleural-thickening", "hernia"),
)


def densenet121(size: int, *, columns: int = 14, high: int = 2, seed: int = 3) -> bytes:
    """``input`` [batch, 3, size, size] to logits ``output`` [batch, columns]: DenseNet121 whole, 7 million weights.

    The last layer's weights are small and its bias is high for one column, so that it flags one finding of anything.
    """
    g, rng = Graph(), np.random.default_rng(seed)

    def conv(name, value, into, out, kernel, stride=1):
        weights = rng.normal(0, (2 / (into * kernel**2)) ** 0.5, (out, into, kernel, kernel))
        held = g.weight(f"{name}.weight", weights)
        return g.op("Conv", name, value, held, strides=[stride] * 2, pads=[kernel // 2] * 4)

    def normed(name, value, count):
        held = [g.weight(f"{name}.{what}", np.full(count, k)) for what, k in zip("gbmv", (1, 0, 0, 1), strict=True)]
        return g.op("Relu", f"{name}.relu", g.op("BatchNormalization", f"{name}.norm", value, *held))

    value, count = normed("norm0", conv("conv0", "input", 3, 64, 7, 2), 64), 64
    value = g.op("MaxPool", "pool0", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block, layers in enumerate((6, 12, 24, 16)):
        for k in range(layers):
            name = f"block{block}.{k}"
            narrow = conv(f"{name}.1", normed(f"{name}.0", value, count), count, 128, 1)
            added = conv(f"{name}.3", normed(f"{name}.2", narrow, 128), 128, 32, 3)
            value, count = g.op("Concat", name, value, added, axis=1), count + 32
        if block < 3:
            name, count = f"transition{block}", count // 2
            value = conv(name, normed(f"{name}.0", value, 2 * count), 2 * count, count, 1)
            value = g.op("AveragePool", f"{name}.pool", value, kernel_shape=[2, 2], strides=[2, 2])
    pooled = g.op("GlobalAveragePool", "pooled", normed("norm5", value, count))
    weights = g.weight("classifier.weight", rng.normal(0, 1e-3, (columns, count)))
    bias = g.weight("classifier.bias", np.where(np.arange(columns) == high, 2.0, -2.0))
    g.op("Gemm", "output", g.op("Flatten", "flat", pooled), weights, bias, transB=1)
    return g.model({"input": ("batch", 3, size, size)}, {"output": ("batch", columns)})


def heat_map(patch: tuple[int, int, int] = (24, 32, 32)) -> bytes:
    """``volume`` [1, 1, *patch] to probabilities ``heat`` of the same shape: what is denser than its surroundings."""
    g = Graph()

    def mean(name, width):
        sizes = {"kernel_shape": [width] * 3, "pads": [width // 2] * 6, "strides": [1] * 3}
        return g.op("AveragePool", name, "volume", count_include_pad=0, **sizes)

    off = g.op("Sub", "off", mean("near", 3), mean("around", 7))
    g.op("Sigmoid", "heat", g.op("Mul", "steep", off, g.weight("ten", 10.0)))
    return g.model({"volume": (1, 1, *patch)}, {"heat": (1, 1, *patch)})


def regressor(size: int = 64) -> bytes:
    """``image`` [1, 1, size, size] to ``months`` [1, 2], 100 times the mean and a spread."""
    g = Graph()
    pooled = g.op("Flatten", "pooled", g.op("GlobalAveragePool", "mean", "image"))
    weights = g.weight("weights", [[100.0, 0.0]])
    g.op("Gemm", "months", pooled, weights, g.weight("bias", [0.0, 12.0]))
    return g.model({"image": (1, 1, size, size)}, {"months": (1, 2)})
