"""Fitting: gradient descent on pictures that were made beforehand, the same numbers from the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cxr_quality.faults import FAULTS, Made
from cxr_quality.network import Network


@dataclass(frozen=True)
class Recipe:
    """All that was chosen; frozen before the shipped fit."""

    epochs: int = 6
    batch: int = 64
    rate: float = 3e-3
    decay: float = 1e-2
    no_chests_each: int = 150
    blanks: int = 400
    phantoms: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Bank:
    """Pictures [N, 128, 128] uint8, what is wrong with each [N, faults], and which of that counts [N, faults]."""

    pictures: Tensor
    wanted: Tensor
    counts: Tensor

    def some(self, which: Tensor) -> Bank:
        """A part of it."""
        return Bank(self.pictures[which], self.wanted[which], self.counts[which])


def bank_of(pieces: list[Made]) -> Bank:
    """All pictures as tensors."""
    wanted = [[float(fault in piece.faults) for fault in FAULTS] for piece in pieces]
    counts = [[float(fault not in piece.open) for fault in FAULTS] for piece in pieces]
    return Bank(
        torch.from_numpy(np.stack([piece.picture for piece in pieces])), torch.tensor(wanted), torch.tensor(counts)
    )


def fitted(bank: Bank, recipe: Recipe) -> Network:
    """A network for these pictures."""
    torch.manual_seed(recipe.seed)
    net = Network(len(FAULTS)).train().to(memory_format=torch.channels_last)  # faster on a CPU
    steps = -(-len(bank.pictures) // recipe.batch) * recipe.epochs
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps, pct_start=0.15)
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(bank.pictures)).split(recipe.batch):
            part = bank.some(chosen)
            pictures = (part.pictures[:, None].float() / 255).contiguous(memory_format=torch.channels_last)
            # Left and right exchanged is no fault that is looked for.
            mirrored = torch.rand(len(chosen)) < 0.5
            pictures[mirrored] = pictures[mirrored].flip(3)
            losses = functional.binary_cross_entropy_with_logits(net.logits(pictures), part.wanted, reduction="none")
            loss = (losses * part.counts).sum() / len(chosen)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def scores_of(net: Network, pictures: Tensor) -> Tensor:
    """Scores [N, faults] of pictures [N, 128, 128] uint8."""
    return torch.cat([net(piece[:, None].float() / 255) for piece in pictures.split(256)])
