"""The journal's hash chain, some rows at every look, over and over."""

from __future__ import annotations

import logging

from appliance.records import Severity
from appliance.store import Store

log = logging.getLogger(__name__)
_ROWS = 2000
BROKEN = "JOURNAL_BROKEN"


class ChainCheck:
    """JOURNAL_BROKEN: a row is not what it was, or is gone. The issue stays until a person has looked."""

    def __init__(self, store: Store) -> None:
        """Check the journal of ``store``."""
        self._store = store
        self._told = 0

    def run(self) -> None:
        """Look at the next rows."""
        chain = self._store.chain
        chain.advance(_ROWS)
        state = chain.state
        if state.broken_at:
            self._store.issues.raise_(BROKEN, "journal", Severity.FAULT, {"row": state.broken_at})
        elif state.is_whole and state.begun_at is not None and state.begun_at.toordinal() != self._told:
            # A witness outside the database, once a day and start: whoever writes the chain anew must find this too.
            self._told = state.begun_at.toordinal()
            log.info("the journal is whole up to row %d, whose hash is %s", state.through, state.hash)
