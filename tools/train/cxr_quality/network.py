"""The network: four convolutions that shrink the picture, and a small read-out that keeps where things are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 128
CHANNELS = (24, 32, 64, 64)
HIDDEN = 64


class Network(nn.Module):
    """Picture [N, 1, 128, 128] in 0..1 to ``logits`` [N, faults]; in the graph, ``scores`` in 0..1."""

    def __init__(self, faults: int) -> None:
        """Make it with random weights."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for number, channels in enumerate(CHANNELS):
            # The first one is coarse and wide: most of the time goes where most pixels are.
            size, step, rim = (8, 4, 2) if number == 0 else (3, 2, 1)
            layers += [nn.Conv2d(before, channels, size, step, rim, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        self.seen = nn.Sequential(*layers)
        cells = (SIZE >> (len(CHANNELS) + 1)) ** 2
        self.told = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(before * cells, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, faults)
        )

    def logits(self, picture: Tensor) -> Tensor:
        """Before the logistic curve."""
        found: Tensor = self.told(self.seen(picture - 0.5))
        return found

    def forward(self, picture: Tensor) -> Tensor:
        """See the class."""
        return torch.sigmoid(self.logits(picture))
