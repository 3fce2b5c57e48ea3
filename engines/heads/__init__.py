"""How a graph's outputs become scores, measurements, key slices: a plain dict by the name that ``model.yaml`` uses."""

from __future__ import annotations

from engines.heads.base import Head
from engines.heads.classify import Classify
from engines.heads.detect import Detect
from engines.heads.hyperdensity import Hyperdensity
from engines.heads.measure import Measure
from engines.heads.nodule import Nodule
from engines.heads.segment import Segment

HEADS: dict[str, type[Head]] = {
    "classify": Classify,
    "detect": Detect,
    "hyperdensity": Hyperdensity,
    "measure": Measure,
    "nodule": Nodule,
    "segment": Segment,
}

__all__ = ["HEADS", "Head"]
