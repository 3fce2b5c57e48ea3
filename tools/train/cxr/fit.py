"""Fitting in closed form: projection and units from the pictures alone, read-outs by ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cxr.network import Network, Oriented


@dataclass(frozen=True)
class Recipe:
    """All that was chosen, on the very folds of the card (``run.TRIED``), and frozen before the shipped fit."""

    #: Directions of greatest spread that are kept of the features.
    components: int = 128
    #: Radial units: centres of k-means over the pictures and their mirrored copies.
    units: int = 500
    rounds: int = 15
    #: Nearness is exp(-gamma * squared distance / mean squared length).
    gamma: float = 1.0
    ridge: float = 1e-3
    guard_ridge: float = 1e-4
    seed: int = 0


#: Features of pictures and of their mirrored copies, [N, F] each.
Pair = tuple[Tensor, Tensor]


@torch.no_grad()
def features_of(pictures: Tensor) -> Pair:
    """[N, 128, 128] to features, in pieces."""
    oriented = Oriented()
    plain, mirrored = (
        torch.cat([oriented(piece[:, None]) for piece in shown.split(64)]) for shown in (pictures, pictures.flip(2))
    )
    return plain, mirrored


@torch.no_grad()
def fitted(pair: Pair, targets: Tensor, recipe: Recipe) -> Network:
    """A network for these pictures and targets [N, findings]; neither calibrated nor guarded."""
    both = torch.cat(pair)
    net = Network(recipe.components, recipe.units, targets.shape[1])
    sizes = torch.tensor([n * cells * cells for n, cells in net.oriented.blocks])
    # Every block of features has the same share, whatever its length.
    share = torch.repeat_interleave(1 / torch.sqrt(sizes * len(sizes)), sizes)
    net.mean.copy_(both.mean(0))
    net.scale.copy_(share / (both.std(0) + 1e-3))
    standard = (both - net.mean) * net.scale
    values, vectors = torch.linalg.eigh((standard @ standard.T).double())
    values, vectors = values[-recipe.components :], vectors[:, -recipe.components :]
    net.projection.copy_((standard.T.double() @ vectors / values.sqrt()).float())
    part = standard @ net.projection
    units = _centres(part, recipe)
    net.units.copy_(units)
    net.narrowness.fill_(recipe.gamma / (part * part).sum(1).mean())
    near = embedded(net, both)[:, :-1].double()
    among = torch.exp(-net.narrowness * torch.cdist(units, units) ** 2).double()
    wanted = torch.cat([targets, targets]).double()
    middle = wanted.mean(0)
    # Ridge regression in the space of the units (Nystroem): the weights' own length is measured by ``among``.
    square = near.T @ near + recipe.ridge * len(near) * among + 1e-6 * torch.eye(recipe.units, dtype=torch.float64)
    net.readout.copy_(torch.linalg.solve(square, near.T @ (wanted - middle)))
    # Without ``middle``: how many of the training patients were positive says nothing of a picture, and in
    # cross-validation it says the opposite (a fold rich in positives leaves a training set that is poor in them).
    # With it the pooled area for effusion was seen to be 0.783.
    net.slope.fill_(1)
    return net


def _centres(points: Tensor, recipe: Recipe) -> Tensor:
    """k-means, seeded: [units, components]."""
    g = torch.Generator().manual_seed(recipe.seed)
    centres = points[torch.randperm(len(points), generator=g)[: recipe.units]].clone()
    for _ in range(recipe.rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=recipe.units).clamp(min=1)
        centres = torch.zeros_like(centres).index_add(0, nearest, points) / counts[:, None]
    return centres


@torch.no_grad()
def embedded(net: Network, features: Tensor) -> Tensor:
    """``net.embed`` in pieces: [N, units + 1]."""
    return torch.cat([net.embed(piece) for piece in features.split(128)])


@torch.no_grad()
def raw_scores(net: Network, pair: Pair) -> Tensor:
    """Uncalibrated scores [N, findings]; picture and mirrored copy together, as the graph does."""
    return (net.raw(embedded(net, pair[0])) + net.raw(embedded(net, pair[1]))) / 2


@torch.no_grad()
def out_of_fold(pair: Pair, targets: Tensor, folds: Tensor, recipe: Recipe) -> tuple[Tensor, list[Network]]:
    """Raw scores [N, findings] of each picture by a network that saw no image of its patient, and those networks."""
    scores = torch.zeros_like(targets)
    nets = []
    for fold in range(int(folds.max()) + 1):
        learn, test = folds != fold, folds == fold
        net = fitted((pair[0][learn], pair[1][learn]), targets[learn], recipe)
        scores[test] = raw_scores(net, (pair[0][test], pair[1][test])).to(scores.dtype)
        nets.append(net)
    return scores, nets


@torch.no_grad()
def add_guard(net: Network, chests: Pair, others: Pair, recipe: Recipe) -> None:
    """Give a network its third output, from pictures that are chests and pictures that are none.

    Both kinds weigh the same. The 0.5 of the output lies where 1 % of these chests fall below.
    """
    rows = [embedded(net, part) for part in (*chests, *others)]
    inputs = torch.cat(rows).double()
    wanted = torch.cat([torch.full((len(r), 1), 1.0 if k < len(chests) else 0.0) for k, r in enumerate(rows)]).double()
    weight = torch.where(wanted > 0, 0.5 / wanted.sum(), 0.5 / (1 - wanted).sum())
    middle = (inputs * weight).sum(0)
    centred = inputs - middle
    square = (centred * weight).T @ centred + recipe.guard_ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(square, (centred * weight).T @ (wanted - 0.5))
    values = (inputs - middle) @ weights
    count = len(chests[0])
    seen = (values[:count] + values[count : 2 * count])[:, 0] / 2
    bar = torch.quantile(seen, 0.01)
    net.guard.copy_(GUARD_SLOPE * weights[:, 0])
    net.guard_offset.copy_(-GUARD_SLOPE * (middle @ weights)[0] - GUARD_SLOPE * bar)


#: How fast the guard's output goes from 0 to 1.
GUARD_SLOPE = 10.0
