"""Training: the read-out in closed form with NumPy alone, and on request all weights with PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bone_age.network import FEATURES, LAYERS, MIDDLE, POOL, SPAN, Weights, graph

Pictures = NDArray[np.float32]
#: On standardised features, per picture.
RIDGE = 100.0


def opened(data: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """The graph in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def read_out(weights: Weights, pictures: Pictures, months: NDArray[np.float64]) -> Weights:
    """The same weights with a read-out that fits these pictures [N, 256, 256], by ridge regression."""
    session = opened(graph(weights, features=True))
    features = np.concatenate([session.run(None, {"image": one[None, None]})[0] for one in pictures]).astype(np.float64)
    wanted = (months - MIDDLE) / SPAN
    mean, spread = features.mean(0), features.std(0) + 1e-3
    standard = (features - mean) / spread
    # As many unknowns as pictures, not as features: there are fewer of them.
    square = standard @ standard.T / FEATURES + RIDGE / FEATURES * np.eye(len(standard))
    weight = standard.T @ np.linalg.solve(square, wanted - wanted.mean()) / FEATURES / spread
    bias = wanted.mean() - mean @ weight
    return {**weights, "readout": weight[None].astype(np.float32), "bias": np.array([bias], np.float32)}


def trained(
    weights: Weights,
    pictures: Pictures,
    months: NDArray[np.float64],
    epochs: int,
    seed: int,
    say: Callable[[str], None],
) -> Weights:
    """All weights, trained for so many rounds from those given; each picture also mirrored and moved a little.

    Raises:
        SystemExit: PyTorch is not installed.
    """
    try:
        import torch
        from torch.nn import functional
    except ImportError:
        raise SystemExit("--epochs needs PyTorch: pip install -r requirements/train.txt") from None
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    held = {name: torch.tensor(values, requires_grad=True) for name, values in weights.items()}
    shown, wanted = torch.from_numpy(pictures)[:, None], torch.from_numpy((months - MIDDLE) / SPAN).float()
    optimiser = torch.optim.AdamW(held.values(), lr=1e-3, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        total = 0.0
        for part in torch.randperm(len(shown)).split(16):
            batch = shown[part]
            if torch.rand(()) < 0.5:
                batch = batch.flip(3)
            down, along = torch.randint(-6, 7, (2,)).tolist()
            value = batch.roll((down, along), (2, 3))
            for number, (size, _, _) in enumerate(LAYERS):
                kernel, offset = held[f"kernel{number}"], held[f"offset{number}"]
                value = functional.relu(functional.conv2d(value, kernel, offset, stride=2, padding=size // 2))
            said = functional.linear(functional.avg_pool2d(value, POOL).flatten(1), held["readout"], held["bias"])
            loss = functional.smooth_l1_loss(said[:, 0], wanted[part], beta=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(part)
        rate.step()
        say(f"epoch {epoch + 1} of {epochs}: loss {total / len(shown):.4f}")
    return {name: values.detach().numpy() for name, values in held.items()}


def said_by(data: bytes, pictures: Pictures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a graph says of pictures [N, 256, 256]: months [N], and how much each is a hand [N]."""
    session = opened(data)
    found = [session.run(["ripeness", "hand"], {"image": one[None, None]}) for one in pictures]
    months = np.array([float(ripeness[0, 0]) for ripeness, _ in found]) * SPAN + MIDDLE
    return months, np.array([float(hand[0, 0]) for _, hand in found])
