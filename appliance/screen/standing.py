"""What every page in the shell says of the box: alerts that nobody answers, and what keeps images from being taken."""

from __future__ import annotations

from collections.abc import Callable

from appliance.records import Issue
from appliance.screen import words
from appliance.screen.feed import Feed
from appliance.screen.model import Scope
from appliance.web.access import ADMINISTRATORS, WATCHING, Caller
from appliance.web.pages import Standing

#: Issues under which no image is taken: a list that grows no longer must not look like a quiet day.
TAKES_NOTHING = ("DISK_RESERVE", "DISK_FAULT")
#: Who says yes or no to what the service team wants to change.
DECIDING = ADMINISTRATORS


def refusing(issues: tuple[Issue, ...]) -> tuple[str, ...]:
    """Message ids of the open issues under which no image is taken."""
    return tuple(words.ISSUES[code] for code in TAKES_NOTHING if any(issue.code == code for issue in issues))


def standing_of(feed: Feed) -> Callable[[Caller | None], Standing]:
    """What ``feed`` knows, as far as a caller may know it. Nothing is read for it, so any page may ask."""

    def standing(caller: Caller | None) -> Standing:
        if caller is None:
            return Standing()
        board = feed.snapshot.board
        return Standing(
            ai="" if board.ai == "ready" else board.ai,
            overdue=feed.overdue(Scope(sources=caller.sources)) if caller.role in WATCHING else None,
            fault=refusing(board.faults),
            approvals=board.approvals if caller.role in DECIDING else None,
        )

    return standing
