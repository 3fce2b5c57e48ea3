"""The network: a convolution with fixed oriented filters, a learned projection, and learned radial units.

701 images are too few to learn filters from (a convolutional network trained end to end on the same folds came to a
pooled area of 0.71 for effusion), so the filters are derivatives of Gaussians, as in HOG and SIFT, and all that is
learned after them has a closed form: a projection, the centres of radial units, one weight per unit and finding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 128
DIRECTIONS = 8
#: (sigma of the Gaussian in pixels, cells per side)
SCALES = ((1.0, 16), (2.0, 16), (4.0, 8))
GRID = 16
_PAD = 12  # three of the largest sigma


class Oriented(nn.Module):
    """Picture [N, 1, 128, 128] to what its cells hold: brightness, edges by direction and scale, [N, F]."""

    def __init__(self) -> None:
        """Make the filters."""
        super().__init__()
        for number, (sigma, _) in enumerate(SCALES):
            reach = math.ceil(3 * sigma)
            along = torch.arange(-reach, reach + 1, dtype=torch.float64)
            bell = torch.exp(-0.5 * (along / sigma) ** 2)
            bell = bell / bell.sum()
            across = torch.outer(bell, along / sigma * bell)
            self.register_buffer(f"derivative{number}", torch.stack([across, across.T])[:, None].float())
        angles = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
        self.register_buffer("turn", torch.stack([torch.cos(angles), torch.sin(angles)], 1)[:, :, None, None].float())
        # The border is repeated outwards; an operator Pad would be exported with operators that the gate refuses.
        self.register_buffer("edge", torch.arange(-_PAD, SIZE + _PAD).clamp(0, SIZE - 1))
        #: (channels, cells per side) of each block of the features, in their order.
        self.blocks = [(1, GRID)] + [(n, cells) for _, cells in SCALES for n in (DIRECTIONS, 1)]

    def forward(self, picture: Tensor) -> Tensor:
        """See the class."""
        found = [functional.avg_pool2d(picture, SIZE // GRID).flatten(1)]
        wide = picture.index_select(2, self.edge).index_select(3, self.edge)
        for number, (sigma, cells) in enumerate(SCALES):
            spare = _PAD - math.ceil(3 * sigma)
            held = wide[:, :, spare : SIZE + 2 * _PAD - spare, spare : SIZE + 2 * _PAD - spare]
            gradient = functional.conv2d(held, getattr(self, f"derivative{number}"))
            strength = torch.sqrt((gradient * gradient).sum(1, keepdim=True) + 1e-8)
            facing = functional.relu(functional.conv2d(gradient, self.turn))
            energy = functional.avg_pool2d(facing * facing / strength, SIZE // cells)
            total = energy.sum(1, keepdim=True)
            # The root of shares (Hellinger) for the shape, the logarithm of the sum for how much there is of it.
            found += [torch.sqrt(energy / (total + 0.001) + 1e-6).flatten(1), torch.log(total + 0.0005).flatten(1)]
        return torch.cat(found, 1)


class Network(nn.Module):
    """Picture [1, 1, 128, 128] and its mirrored copy to ``scores`` [1, findings] and ``chest`` [1, 1], all 0..1."""

    def __init__(self, components: int, units: int, findings: int) -> None:
        """Make it empty; ``fit`` fills it."""
        super().__init__()
        self.oriented = Oriented()
        features = sum(n * cells * cells for n, cells in self.oriented.blocks)
        for name, shape in {
            "mean": (features,),
            "scale": (features,),
            "projection": (features, components),
            "units": (units, components),
            "narrowness": (1,),
            "readout": (units, findings),
            "slope": (findings,),
            "shift": (findings,),
            "guard": (units + 1,),
            "guard_offset": (1,),
        }.items():
            self.register_buffer(name, torch.zeros(shape))

    def embed(self, features: Tensor) -> Tensor:
        """Features [N, F] to how near each unit is, 0..1, and last the logarithm of their energy: [N, units + 1]."""
        standard = (features - self.mean) * self.scale
        # No product of matrices after this one: up to here halves (FP16) are exact enough, after it they are not.
        away = (standard @ self.projection)[:, None] - self.units
        near = torch.exp(-self.narrowness * (away * away).sum(2))
        return torch.cat([near, torch.log((standard * standard).sum(1, keepdim=True) + 1e-3)], 1)

    def raw(self, embedded: Tensor) -> Tensor:
        """What ``embed`` gives to uncalibrated scores [N, findings]."""
        return (embedded[:, :-1, None] * self.readout).sum(1)

    def chest(self, embedded: Tensor) -> Tensor:
        """What ``embed`` gives for a picture and its mirrored copy to how much it is a chest, upright: [1, 1], 0..1."""
        return torch.sigmoid((embedded * self.guard).sum(1, keepdim=True).mean(0, keepdim=True) + self.guard_offset)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        embedded = self.embed(self.oriented(torch.cat([picture, torch.flip(picture, [3])], 0)))
        raw = self.raw(embedded).mean(0, keepdim=True)
        return torch.sigmoid(raw * self.slope + self.shift), self.chest(embedded)
