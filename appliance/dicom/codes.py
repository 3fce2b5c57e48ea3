"""The table of coded concepts (``codes.yaml``) as typed values: ``codes.get("intracranial_hemorrhage")``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Code(BaseModel):
    """One coded concept (PS3.3 §8); fields as explained at the top of ``codes.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    code: str = Field(min_length=1, max_length=16)
    scheme: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)
    zh: str = Field(min_length=1, max_length=64)
    source: str = Field(min_length=1)
    #: False until a person has looked the code up.
    reviewed: bool


def get(name: str) -> Code:
    """The code of a concept.

    Raises:
        KeyError: the table has no such concept; add it there.
    """
    return table()[name]


@lru_cache(maxsize=1)
def table() -> Mapping[str, Code]:
    """All concepts by name, in the order of the file; read once, never changed."""
    text = resources.files(__package__).joinpath("codes.yaml").read_text("utf-8")
    return MappingProxyType({name: Code(**fields) for name, fields in yaml.safe_load(text).items()})
