"""How pictures become tensors: a plain dict by the name that a package's ``model.yaml`` uses.

A preprocessor is a pydantic model of its parameters with two methods: ``prepare`` makes one picture small while the
others still arrive; ``assemble`` turns the stack of small pictures into the tensors of one run.
"""

from __future__ import annotations

from engines.preprocess.base import Assembled, Preprocessor
from engines.preprocess.ct_lungs import CtLungs
from engines.preprocess.ct_slabs import CtSlabs
from engines.preprocess.ct_volume import CtVolume
from engines.preprocess.xray import Xray

PREPROCESSORS: dict[str, type[Preprocessor]] = {
    "ct-lungs": CtLungs,
    "ct-slabs": CtSlabs,
    "ct-volume": CtVolume,
    "xray": Xray,
}

__all__ = ["PREPROCESSORS", "Assembled", "Preprocessor"]
