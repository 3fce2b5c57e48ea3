"""An enum whose members are their text: the vocabulary of the other records."""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """An enum whose members are their text (``enum.StrEnum`` came with Python 3.11; JetPack 6 has 3.10)."""

    def __str__(self) -> str:
        """The bare value, as it stands in the journal and in JSON."""
        return str(self.value)
