"""Write the graph of ``chest-ct-nodule``: a transparent rule made of ordinary ONNX operators.

    python tools/models/chest_nodule.py            write engines/models/chest-ct-nodule/model.onnx
    python tools/models/chest_nodule.py --check    say whether that file is what this script writes

The rule, on lungs of 1.5 mm voxels in which everything but the lungs has lung's own density, 0:
1. for balls of six sizes: smooth with the Gaussian that a ball of that size answers best; the larger three at 3 mm;
2. second differences of it, all six of them (the Hessian), by one convolution;
3. roundness without eigenvalues: 3 det / I2 is their harmonic mean, which a tube (one of them small) and a plate (two
   small) do not have, times 27 det / tr^3, which is 1 where all three are alike;
4. of all sizes the best answer counts, scaled so that a dense ball in air has about 0.9.
Peaks, diameters, volumes and every refusal are the host's (``engines/heads/nodule.py``, ``engines/preprocess``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from example_package import Graph
from onnx import helper

TARGET = Path(__file__).resolve().parents[2] / "engines/models/chest-ct-nodule/model.onnx"

#: Depth, rows, columns; each divides by four. What is larger runs in patches.
PATCH = (128, 136, 128)
VOXEL_MM = 1.5
#: Diameters of the balls, on the voxels as they are and on those of twice the size.
FINE_MM = (5.0, 6.5, 8.5)
COARSE_MM = (11.0, 14.0, 18.0)
#: A voxel, and a scanner, have smoothed already: this much, in voxels.
OWN_SIGMA = 0.35
SCALE = 3.6
#: Gaussians end here.
TRUNCATE = 3.5
TINY = 1e-6


class _Graph(Graph):
    """With the one operator that makes several values."""

    def split(self, value: str, names: list[str]) -> None:
        """Each channel by itself."""
        self._nodes.append(helper.make_node("Split", [value], names, name=f"{value}_parts", axis=1))


def _sigma(diameter_mm: float, voxel_mm: float) -> float:
    """Of the Gaussian whose second derivative a ball answers best, in voxels."""
    return float(np.sqrt((diameter_mm / 2 / np.sqrt(3) / voxel_mm) ** 2 - OWN_SIGMA**2))


def _smooth(g: _Graph, name: str, value: str, sigma: float, shape: tuple[int, int, int]) -> str:
    """Gaussian along all three axes, zeros outside, as products with band matrices (a Conv of one channel is slow)."""
    depth, rows, columns = shape

    def band(length: int) -> str:
        apart = np.subtract.outer(np.arange(length), np.arange(length))
        taps = np.exp(-0.5 * (apart / sigma) ** 2) * (np.abs(apart) <= np.ceil(TRUNCATE * sigma))
        return g.weight(f"gauss_{sigma:.3f}_{length}", taps / taps[length // 2].sum())

    across = g.op("MatMul", f"{name}_across", value, band(columns))
    down = g.op("MatMul", f"{name}_down", band(rows), across)
    flat = g.op("Reshape", f"{name}_flat", down, g.weight(f"flat{depth}", [1, depth, rows * columns], np.int64))
    through = g.op("MatMul", f"{name}_through", band(depth), flat)
    whole = g.weight(f"whole{depth}", [1, 1, depth, rows, columns], np.int64)
    return g.op("Reshape", name, through, whole)


def _second_differences() -> np.ndarray:
    """[6, 1, 3, 3, 3]: minus the Hessian zz, yy, xx, zy, zx, yx."""
    kernels = np.zeros((6, 1, 3, 3, 3), np.float32)
    for k in range(3):
        for step, value in ((-1, -1.0), (0, 2.0), (1, -1.0)):
            at = [1, 1, 1]
            at[k] += step
            kernels[(k, 0, *at)] = value
    for k, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        for i in (-1, 1):
            for j in (-1, 1):
                at = [1, 1, 1]
                at[a] += i
                at[b] += j
                kernels[(3 + k, 0, *at)] = -0.25 * i * j
    return kernels


def _roundness(g: _Graph, name: str, value: str, sigma: float) -> str:
    """How much each place is the middle of a dense ball: 0 for tubes, plates and what is thinner than around."""
    weight = g.weight(f"{name}_kernels", _second_differences() * sigma**2)
    hessian = g.op("Conv", f"{name}_hessian", value, weight, kernel_shape=[3, 3, 3], pads=[1] * 6)
    six = [f"{name}_{part}" for part in ("zz", "yy", "xx", "zy", "zx", "yx")]
    g.split(hessian, six)
    zz, yy, xx, zy, zx, yx = six

    def op(kind: str, what: str, *inputs: str) -> str:
        return g.op(kind, f"{name}_{what}", *inputs)

    # Minors of the first row, then determinant and the sum of the principal minors.
    minor_zz = op("Sub", "minor_zz", op("Mul", "yyxx", yy, xx), op("Mul", "yx2", yx, yx))
    minor_zy = op("Sub", "minor_zy", op("Mul", "zyxx", zy, xx), op("Mul", "yxzx", yx, zx))
    minor_zx = op("Sub", "minor_zx", op("Mul", "zyyx", zy, yx), op("Mul", "yyzx", yy, zx))
    part_zz, part_zy = op("Mul", "det_zz", zz, minor_zz), op("Mul", "det_zy", zy, minor_zy)
    part_zx = op("Mul", "det_zx", zx, minor_zx)
    det = op("Add", "det", op("Sub", "det_part", part_zz, part_zy), part_zx)
    pair_zx = op("Sub", "pair_zx", op("Mul", "zzxx", zz, xx), op("Mul", "zx2", zx, zx))
    pair_zy = op("Sub", "pair_zy", op("Mul", "zzyy", zz, yy), op("Mul", "zy2", zy, zy))
    minors = op("Add", "minors", op("Add", "minors_part", minor_zz, pair_zx), pair_zy)
    trace = op("Add", "trace", op("Add", "trace_part", zz, yy), xx)
    # All eigenvalues are above 0 exactly where these three are; elsewhere the determinant counts as 0.
    least = op("Min", "least", det, minors, trace)
    bump = g.op("Cast", f"{name}_bump", op("Greater", "is_bump", least, g.weight("zero", 0.0)), to=1)
    good = op("Mul", "det_bump", det, bump)
    tiny = g.weight("tiny", TINY)
    mean = op("Div", "mean", good, op("Max", "minors_safe", minors, tiny))
    safe = op("Max", "trace_safe", trace, g.weight("small", 1e-3))
    cube = op("Mul", "cube", op("Mul", "square", safe, safe), safe)
    even = op("Min", "even", op("Div", "evenness", good, cube), g.weight("most_even", 1 / 27))
    return op("Mul", "round", mean, even)


def build() -> bytes:
    """The graph: ``lungs`` [1, 1, *PATCH] to ``score`` of the same shape; the same bytes every time."""
    g = _Graph()
    depth, rows, columns = PATCH
    half = (depth // 2, rows // 2, columns // 2)
    fine = []
    for mm in FINE_MM:
        sigma = _sigma(mm, VOXEL_MM)
        fine.append(_roundness(g, f"ball{mm:g}", _smooth(g, f"smooth{mm:g}", "lungs", sigma, PATCH), sigma))
    halved = g.op("AveragePool", "halved", "lungs", kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    coarse = []
    for mm in COARSE_MM:
        sigma = _sigma(mm, 2 * VOXEL_MM)
        coarse.append(_roundness(g, f"ball{mm:g}", _smooth(g, f"smooth{mm:g}", halved, sigma, half), sigma))
    large = g.op("Max", "large", *coarse)
    sizes = g.weight("sizes", [1, 1, *PATCH], np.int64)
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    enlarged = g.op("Resize", "enlarged", large, "", "", sizes, **how)
    best = g.op("Max", "best", *fine, enlarged)
    g.op("Mul", "score", best, g.weight("scale", 3 * 27 * SCALE))
    shape = (1, 1, *PATCH)
    model = onnx.load_model_from_string(g.model({"lungs": shape}, {"score": shape}))
    model.graph.name, model.producer_name = "chest_ct_nodule", "scanside"
    return bytes(model.SerializeToString(deterministic=True))


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description="Write the graph of chest-ct-nodule")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if the file differs")
    data = build()
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
