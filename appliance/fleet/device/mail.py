"""What comes down: acknowledgements are taken here, jobs and desired documents go to the inbox, the rest is counted.

The broker is not trusted: what the server's keys have not signed for this very box does nothing but raise a count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from appliance.clock import Clock
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.outbox import Outbox
from appliance.fleet.device.talk import BORN, Inbox, Talk
from appliance.fleet.device.transport import Arrived
from appliance.fleet.wire import ACK_TYPE, Ack, Down, Status, Up, WireError, inflate, parse_topic
from appliance.records import Severity
from appliance.store import Store
from engines.errors import SignatureError
from engines.signing import verify

log = logging.getLogger(__name__)

FOREIGN = "FLEET_FOREIGN"
#: So long without another one, and the issue is over.
_QUIET_S = 86_400.0
#: The count is written so often at most: a flood must not cost the box its disk.
_COUNT_S = 60.0
#: The server gathers acknowledgements for up to a second; less than that is no news.
_SKEW_STEP_MS = 1000


class Mail:
    """One link's."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        outbox: Outbox,
        talk: Talk,
        clock: Clock,
        *,
        on_another: Callable[[], None] = lambda: None,
    ) -> None:
        """Count on from what was counted. ``on_another``: called where another box was born under our name."""
        self._store = store
        self._inbox = inbox
        self._outbox = outbox
        self._talk = talk
        self._clock = clock
        self._on_another = on_another
        self._foreign = int(store.fleet.state("foreign", "0"))
        self._counted = self._foreign
        self._counted_at = float("-inf")
        self._foreign_at = clock.monotonic()

    def arrived(self, event: Arrived, identity: Identity) -> None:
        """Take one message."""
        try:
            self._take(event, identity)
        except (WireError, SignatureError) as error:
            self._strange(error)

    def look(self) -> None:
        """Write down what was counted; end the issue where all has been quiet."""
        now = self._clock.monotonic()
        if self._foreign != self._counted and now - self._counted_at >= _COUNT_S:
            self._counted, self._counted_at = self._foreign, now
            self._store.fleet.set_state("foreign", str(self._foreign))
        if now - self._foreign_at >= _QUIET_S:
            self._foreign_at = now
            self._store.issues.clear(FOREIGN, "")

    def _take(self, event: Arrived, identity: Identity) -> None:
        address, name = parse_topic(event.topic)
        if address == identity.address and name is Up.STATUS:
            self._birth(Status.unpack(event.payload))
            return
        if address != identity.address or not isinstance(name, Down):
            raise WireError("it is for another topic")
        if event.retained:
            raise WireError("it was retained, which nothing that comes down ever is")
        payload = inflate(event.payload) if event.properties.get("ce") == "gzip" else event.payload
        if name is Down.JOB:
            self._inbox.take_job(payload)
        elif name is Down.TWIN:
            self._inbox.take_twin(payload)
        else:
            self._acknowledged(Ack.unpack(verify(payload, ACK_TYPE, identity.online).payload), identity)

    def _birth(self, status: Status) -> None:
        """Our own, as the broker keeps it; or that of a box with a copy of our disk."""
        if status.online and status.nonce and status.nonce not in json.loads(self._store.fleet.state(BORN, "[]")):
            self._on_another()

    def _acknowledged(self, ack: Ack, identity: Identity) -> None:
        if ack.aud != identity.enrolment.device:
            raise WireError("it is for another device")
        if ack.stream != self._store.db.stream:
            return  # of the database before this one
        settled = self._outbox.acknowledged(ack.b) if ack.b else 0
        if ack.hold_ms:
            self._talk.hold(ack.hold_ms / 1000)
        if settled:
            self._skew(ack.st)
        # By the server's own clock: one that the broker kept and plays again asks for nothing.
        if ack.resend_after is not None and ack.st > int(self._store.fleet.state("resent_st", "0")):
            self._store.fleet.set_state("resent_st", str(ack.st))
            after = self._store.fleet.rewind(ack.resend_after)
            log.info("fleet: the server asks again for what comes after row %d", after)

    def _skew(self, server_ms: int) -> None:
        """How far our wall clock is before the server's."""
        here = int(self._clock.now().timestamp() * 1000 - self._talk.line_s * 500)
        known = self._store.fleet.state("skew_ms")
        if not known or abs(int(known) - (here - server_ms)) >= _SKEW_STEP_MS:
            self._store.fleet.set_state("skew_ms", str(here - server_ms))

    def _strange(self, error: Exception) -> None:
        self._foreign += 1
        self._foreign_at = self._clock.monotonic()
        if self._foreign - self._counted == 1:
            log.warning("fleet: a message that is none of the server's is left out: %s", type(error).__name__)
        self._store.issues.raise_(FOREIGN, "", Severity.WARNING, {"count": self._foreign})
        self.look()
