"""What can go wrong in the world, as opposed to in our code.

Two families only: an ``ApplianceError`` is expected and has a rule (refuse, record, retry); anything else is a bug, is
caught once in ``stage.run_stage`` and is loud. A message says what happened, to which file or UID, and how to mend it.
It never holds patient data.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.records import Detail, Reason, in_english


class ApplianceError(Exception):
    """The root of everything that the appliance expects to go wrong."""


class ConfigError(ApplianceError):
    """The configuration or the machine does not allow a start. The process ends with exit status 78 (EX_CONFIG)."""


class RejectedInstance(ApplianceError):  # noqa: N818 - the design's word; it is an answer to a peer, not a fault of ours
    """A received object is refused; ``status`` is the C-STORE response status (PS3.4 Table B.2-1, PS3.7 Annex C)."""

    def __init__(self, status: int, message: str) -> None:
        """Refuse with a DIMSE status.

        Args:
            status: 0xA700 out of resources, 0xA900 data set does not match SOP Class, 0xC000 cannot understand.
            message: What is wrong, without patient data.
        """
        super().__init__(message)
        self.status = status


class NotAnalysable(ApplianceError):  # noqa: N818 - an outcome, not a fault
    """An input that a package must not score; becomes the outcome NOT_ANALYSED with this reason."""

    def __init__(self, reason: Reason, text: str | Sequence[Detail], /, **values: str | float) -> None:
        """End an analysis without a score.

        Args:
            reason: The coded reason that screens and objects show.
            text: What was found, in English with named ``{placeholders}``, without patient data; shown to a person
                beside the reason, in their language. Or several such sentences.
            values: What stands in the placeholders of one.
        """
        self.details = (Detail(text, values),) if isinstance(text, str) else tuple(text)
        super().__init__(in_english(self.details))
        self.reason = reason


class TransientError(ApplianceError):
    """A neighbour (PACS, worker, disk) did not answer; the step is tried again later and becomes an issue when old."""


class StoreError(ApplianceError):
    """The database or the spool does not answer as it must; nothing is acknowledged until it does again."""


class NotFoundError(ApplianceError):
    """An act named something that is not there. The CLI ends with exit status 4, a page with 404."""


class ConflictError(ApplianceError):
    """An act does not fit the present state. The CLI ends with exit status 6, a page with 409."""
