"""The desired document on the box: checked as a whole, applied as a whole, and what became of it for the server."""

from __future__ import annotations

import logging

from appliance.fleet.wire import Desired, Reported, Twin, WireError
from appliance.store import Store
from appliance.store.fleet_twin import TwinRules, TwinState, Wish, apply_twin, twin_state

log = logging.getLogger(__name__)

#: No server counts on by so much; one message with the highest number would keep all others out for ever.
MOST_AHEAD = 1_000_000


class TwinDesk:
    """One box's."""

    def __init__(self, store: Store, rules: TwinRules) -> None:
        """Apply to ``store`` what ``rules`` allow; ``rules.held`` is the document's own to say."""
        self._store = store
        self._rules = rules
        self._read: tuple[str, Desired] = ("", Desired())

    @property
    def state(self) -> TwinState:
        """Where the document stands."""
        return twin_state(self._store.db)

    def desired(self) -> Desired:
        """The document that holds; before the first, what a box does by itself."""
        return self._parsed(self.state.document)

    def reported(self) -> Reported | None:
        """What the server is to hear; None before the first document."""
        state = self.state
        if not state.rv:
            return None
        return Reported(
            rv=state.rv,
            applied_dv=state.applied,
            refused_dv=state.refused or None,
            errors=state.errors,
            desired=self._parsed(state.document) if state.applied else None,
        )

    def take(self, payload: bytes, device: str) -> None:
        """A signed document came.

        Args:
            payload: What was signed.
            device: Who we are.

        Raises:
            WireError: It is no desired document, for another device, or older than what was answered, or far newer.
        """
        twin = Twin.unpack(payload)
        if twin.aud != device:
            raise WireError("the desired document is for another device")
        known = self.state.dv
        if twin.dv == known:
            return  # it came twice
        if twin.dv > known + MOST_AHEAD:
            raise WireError("the version of the desired document is far above the last one")
        desired = twin.desired
        rules = TwinRules(
            clinical=self._rules.clinical,
            asks_site=self._rules.asks_site,
            held=desired.held,
            owed=self._rules.owed,
        )
        wishes = [Wish(name=one.name, role=one.role, points=one.operating_points) for one in desired.packages]
        state = apply_twin(self._store.db, twin.dv, desired.model_dump_json(), wishes, rules)
        if state is None:
            raise WireError("the desired document is older than the one that was answered")
        if state.refused == twin.dv:
            log.warning("fleet: desired document %d is refused: %s", twin.dv, ", ".join(state.errors))
        else:
            log.info("fleet: desired document %d holds", twin.dv)

    def _parsed(self, document: str) -> Desired:
        text, desired = self._read
        if document != text:
            desired = Desired.unpack(document.encode()) if document else Desired()
            self._read = (document, desired)
        return desired
