"""How a graph's outputs become scores, measurements, key slices: a plain dict by the name that ``model.yaml`` uses."""

from __future__ import annotations

from engines.heads.base import Head
from engines.heads.classify import Classify
from engines.heads.hyperdensity import Hyperdensity

HEADS: dict[str, type[Head]] = {"classify": Classify, "hyperdensity": Hyperdensity}

__all__ = ["HEADS", "Head"]
