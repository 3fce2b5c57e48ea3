"""Cells of files that somebody opens in a spreadsheet."""

from __future__ import annotations

#: A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV injection"); full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe(cell: str) -> str:
    """A cell that no spreadsheet runs: what begins as a formula gets an apostrophe, and control codes are gone."""
    text = "".join(sign for sign in cell if sign in "\t\n" or sign >= " ")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
