"""How the conformance statement writes tables, UIDs, statuses and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType

from pydicom._uid_dict import UID_dictionary

#: pynetdicom adds these to pydicom's dictionary when it is imported: the statement must not hang on whether it was.
_ADDED = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
_STATUS = re.compile(r"^([A-Z_]+) = (0x[0-9A-F]{4})$", flags=re.MULTILINE)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [list(head), ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def listed(texts: Iterable[str]) -> str:
    """A list of Markdown."""
    return "\n".join(f"- {text}" for text in texts)


def uid_name(uid: str) -> str:
    """The name of a UID in pydicom's dictionary, or of one that is newer."""
    if uid in _ADDED:
        return _ADDED[uid]
    known = UID_dictionary.get(uid)
    return known[0] or known[4] if known else "too new for the dictionary used"


def by_number(uid: str) -> list[int]:
    """The order of UIDs."""
    return [int(part) for part in uid.split(".")]


def in_hex(status: int) -> str:
    """A status as the standard writes it."""
    return f"0x{status:04X}"


def status_names(*modules: ModuleType) -> dict[int, str]:
    """The names of the statuses that modules define, as words."""
    found = [one for module in modules for one in _STATUS.findall(Path(str(module.__file__)).read_text("utf-8"))]
    return {int(value, 16): name.replace("_", " ").capitalize() for name, value in found}


def value_of(value: object) -> str:
    """A constant, or the default of a setting, for a reader."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(value_of(one) for one in value) or "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value not in {"", None} else "none"
