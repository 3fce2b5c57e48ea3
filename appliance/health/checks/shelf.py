"""Issues whose time on the shelf is over."""

from __future__ import annotations

from appliance.store import Store


class ShelfCheck:
    """Tells anew what still stands."""

    def __init__(self, store: Store) -> None:
        """Look at the issues of ``store``."""
        self._store = store

    def run(self) -> None:
        """Look once."""
        self._store.issues.tell_anew()
