"""One statement, as the child writes it."""

from __future__ import annotations

import copy

import pytest
from statement_kit import STATEMENT


@pytest.fixture
def statement():
    """What an analysis with one flagged finding said; a copy that a test may change."""
    return copy.deepcopy(STATEMENT)


@pytest.fixture
def not_analysed(statement):
    """The same study, not analysed."""
    return statement | {
        "outcome": "NOT_ANALYSED",
        "summary": "Not analysed.",
        "reason": "incomplete",
        "reason_text": "The series is incomplete. slices 12 to 19 are missing",
        "findings": [],
    }
