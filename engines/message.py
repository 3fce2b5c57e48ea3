"""Sentences for a person, kept apart from their numbers so that whoever shows them can translate them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Message:
    """One sentence.

    Attributes:
        text: English with named ``{placeholders}``, a literal in the code; translators know it by this text.
        values: What stands in the placeholders: numbers and names, no words of a language.
    """

    text: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        """In English."""
        return _PLACE.sub(lambda place: _shown(self.values.get(place[1], place[0])), self.text)


def _shown(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
