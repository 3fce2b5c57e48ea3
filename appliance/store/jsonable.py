"""Records to JSON text and back, for the columns that hold them."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


def dump(record: Any) -> str:
    """The JSON of a frozen record."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, separators=(",", ":"))


def load(kind: type[T], text: str) -> T:
    """The record of ``dump``; a damaged text raises ``pydantic.ValidationError``."""
    adapter = _adapter(kind)  # type: ignore[arg-type]
    record: T = adapter.validate_json(text)
    return record


@functools.lru_cache(maxsize=32)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Building an adapter costs milliseconds, using it microseconds."""
    return TypeAdapter(kind)
