"""Where the network looked, for the card alone: never part of the package or of any result."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr.data import TARGETS, Row
from cxr.figures import wilson
from cxr.network import GRID, Network

SOURCE = 512  # pixels of the images that the boxes lie on


def attention(net: Network, features: Tensor, finding: int) -> Tensor:
    """Share of each cell in the raw score of one picture's features [F]: gradient times deviation, [16, 16]."""
    held = features[None].clone().requires_grad_()
    net.raw(net.embed(held))[0, finding].backward()
    assert held.grad is not None  # noqa: S101 - backward() made it
    share = (held.grad * (features - net.mean))[0]
    total = torch.zeros(GRID, GRID)
    start = 0
    for channels, cells in net.oriented.blocks:
        block = share[start : start + channels * cells * cells].reshape(channels, cells, cells).sum(0)
        factor = GRID // cells
        total += block.repeat_interleave(factor, 0).repeat_interleave(factor, 1) / factor**2
        start += channels * cells * cells
    smooth = torch.nn.functional.avg_pool2d(total[None, None], 3, 1, 1, count_include_pad=False)
    return smooth[0, 0]


def pointing(nets: list[Network], features: Tensor, rows: list[Row], folds: np.ndarray, finding: str) -> dict[str, Any]:
    """How often the cell of greatest attention lies in a box of the finding, by networks that did not see the patient.

    ``chance`` is how often a cell drawn evenly from the picture would.
    """
    hits, chances = [], []
    for number, row in enumerate(rows):
        boxes = [box for label, *box in row.boxes if label in TARGETS[finding]]
        if not boxes:
            continue
        seen = attention(nets[int(folds[number])], features[number], list(TARGETS).index(finding))
        top, left = divmod(int(seen.argmax()), GRID)
        cell = SOURCE / GRID
        middles = [((k % GRID + 0.5) * cell, (k // GRID + 0.5) * cell) for k in range(GRID * GRID)]
        hits.append(_inside(boxes, (left + 0.5) * cell, (top + 0.5) * cell))
        chances.append(np.mean([_inside(boxes, x, y) for x, y in middles]))
    return {
        "images": len(hits),
        "hits": int(sum(hits)),
        "rate": round(float(np.mean(hits)), 3),
        "interval": wilson(int(sum(hits)), len(hits)),
        "chance": round(float(np.mean(chances)), 3),
    }


def _inside(boxes: list[list[float]], x: float, y: float) -> bool:
    return any(left <= x <= left + w and top <= y <= top + h for left, top, w, h in boxes)
