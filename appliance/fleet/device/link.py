"""The fleet link: one stage that keeps a connection to the server's broker.

Nothing of the box waits for it. A step looks at what happened, says what is due, and ends; the network is paho's
thread's. Where the server is away, the journal keeps what it is to be told.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable
from queue import Empty

from appliance.clock import Clock
from appliance.config import Fleet
from appliance.errors import ConfigError
from appliance.fleet.device.identity import Broker, Identity
from appliance.fleet.device.mail import Mail
from appliance.fleet.device.outbox import LINGER_S, Contents, Outbox
from appliance.fleet.device.pace import FIRST_S, Backoff
from appliance.fleet.device.talk import REFUSED, Inbox, Line, Talk
from appliance.fleet.device.transport import (
    RECEIVE_MAX,
    TAKEN_OVER,
    Arrived,
    Connected,
    Deaf,
    Disconnected,
    Event,
    LeftOut,
    Opener,
    Published,
    Transport,
)
from appliance.fleet.keys import KeyFault
from appliance.fleet.wire import ROOT, Down, Status, Up
from appliance.records import Severity
from appliance.store import Store
from appliance.store.facts.fleet import FleetLink

log = logging.getLogger(__name__)

UNREACHABLE = "FLEET_UNREACHABLE"
IDENTITY_TWICE = "FLEET_IDENTITY_TWICE"
IDENTITY_BROKEN = "FLEET_IDENTITY_BROKEN"
#: A site's line may be away for a while before anybody need know.
_UNREACHABLE_S = 900.0
#: Longer than every step of dialling together; the thread of one that hangs on is let go.
_DIAL_S = 60.0
_LOOK_AT_FILES_S = 5.0
_MOST_EVENTS = 100
#: Of a certificate that no broker has taken yet: refused so often, the one before it comes back.
_TRIALS = 3
_STOP_S = 2.0


class LinkStage:
    """The link, step by step."""

    name = "fleet"
    #: Reading a window of batches and writing marks; nothing in it waits for the network.
    max_step_s = 30.0

    def __init__(
        self,
        store: Store,
        config: Fleet,
        clock: Clock,
        identity: Identity,
        open_transport: Opener,
        contents: Contents,
        inbox: Inbox,
        *,
        ring: Callable[[], None] = lambda: None,
        first_within_s: float = FIRST_S,
        linger_s: float = LINGER_S,
        rng: random.Random | None = None,
    ) -> None:
        """Connect at the first step after a wait by chance.

        Args:
            store: The journal, and where the link stands in it.
            config: The section ``fleet``.
            clock: Monotonic for everything but what people read.
            identity: Who the box is; its files are looked at again and again.
            open_transport: Makes connections.
            contents: What may leave the box.
            inbox: Takes what comes.
            ring: Rings this stage's bell.
            first_within_s: The first connection comes within so long of the start.
            linger_s: Rows that come within so long of one another share a batch.
            rng: Chance for every wait.
        """
        self._store = store
        self._clock = clock
        self._identity = identity
        self._open = open_transport
        self._ring = ring
        self._rng = rng or random.SystemRandom()
        outbox = Outbox(store, contents, clock, backlog_rows=config.backlog_rows, linger_s=linger_s)
        self._talk = Talk(store, contents, inbox, outbox, clock, self._rng)
        self._mail = Mail(store, inbox, outbox, self._talk, clock, on_another=self._met_another)
        self._backoff = Backoff(self._rng)
        self._transport: Transport | None = None
        self._sess, self._nonce = 0, ""
        self._is_first = True
        now = self._looked_at = self._dialled_at = clock.monotonic()
        self._next_at = now + self._backoff.first(first_within_s)
        #: Since when the broker has us; since when it has not.
        self._since: float | None = None
        self._away_since: float | None = now
        #: Ways to the broker that this round has not tried, the one of now, and the last that led there.
        self._round: list[Broker] = []
        self._broker: Broker | None = None
        self._good: Broker | None = None
        self._trials = 0

    @property
    def is_connected(self) -> bool:
        """Whether the broker has taken us."""
        return self._since is not None

    def step(self) -> bool:
        """Hear what happened, keep the connection, say what is due."""
        more = self._hear()
        now = self._clock.monotonic()
        self._look_at_files(now)
        if self._transport is None:
            if now >= self._next_at:
                self._dial(now)
        elif self._since is None:
            if now - self._dialled_at > _DIAL_S:
                self._transport.close(politely=False)
                self._disconnected(Disconnected("unreachable"))
        elif self._talk.is_stuck():
            self._transport.close(politely=False)
        else:
            more |= self._talk.go_on()
        self._mail.look()
        self._look_at_issues(now)
        return more

    def close(self) -> None:
        """A graceful stop, after the last step: say so, and go without the last will. Bounded."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        token = self._talk.farewell()
        if token is not None:
            _await(transport, token)
        transport.close()
        transport.join(_STOP_S)
        transport.close(politely=False)
        self._talk.end()
        if self._since is not None:
            self._since = None
            self._store.fleet.stands(connected=False)

    def _hear(self) -> bool:
        """Take what happened, so much at most. Returns whether there may be more."""
        for _ in range(_MOST_EVENTS):
            transport = self._transport
            if transport is None:
                return False
            try:
                event = transport.events.get_nowait()
            except Empty:
                return False
            self._happened(event, transport)
        return True

    def _happened(self, event: Event, transport: Transport) -> None:
        if isinstance(event, Arrived):
            self._mail.arrived(event, self._identity)
        elif isinstance(event, Published):
            self._talk.answered(event)
        elif isinstance(event, Connected):
            self._connected(event, transport)
        elif isinstance(event, Disconnected):
            self._disconnected(event)
        elif isinstance(event, LeftOut):
            self._talk.ask_soon()
        else:
            self._deaf(event)

    def _dial(self, now: float) -> None:
        if not self._round:
            self._round = sorted(self._identity.enrolment.brokers, key=lambda one: one != self._good)
        self._broker = self._round.pop(0)
        self._nonce = secrets.token_hex(16)
        self._sess = self._store.fleet.new_session(self._nonce)
        self._dialled_at = now
        self._transport = self._open(self._identity, self._broker, self._ring)
        will = Status(online=False, sess=self._sess, why="lwt", stream=self._store.db.stream)
        address = self._identity.address
        down = f"{ROOT}/{address.tenant}/{address.device}/{Down.ACK.partition('/')[0]}/+"
        # Not every broker says that it gave our name to another (mosquitto 2.0 does not); the retained birth does.
        self._transport.connect(will.pack()[0], (down, address.topic(Up.STATUS)))

    def _connected(self, event: Connected, transport: Transport) -> None:
        self._since, self._away_since = self._clock.monotonic(), None
        self._good, self._round, self._trials = self._broker, [], 0
        if self._identity.is_on_trial:
            self._identity.prove()
        self._store.issues.clear(UNREACHABLE, "")
        self._store.issues.clear(REFUSED, "dn")
        self._store.fleet.stands(connected=True)
        line = Line(transport, self._identity, self._sess, max(1, min(event.receive_max, RECEIVE_MAX)))
        self._talk.begin(line, event, nonce=self._nonce, is_first=self._is_first)
        self._is_first = False
        log.info("fleet: connected, session %d", self._sess)

    def _disconnected(self, event: Disconnected) -> None:
        now = self._clock.monotonic()
        stood = None if self._since is None else now - self._since
        self._transport = self._since = None
        self._talk.end()
        if stood is not None:
            self._store.fleet.stands(connected=False)
        self._away_since = now if self._away_since is None else self._away_since
        log.info("fleet: no connection: %s, reason %s", event.why, event.code)
        if event.why == "closed":  # by ourselves, because of new files
            self._round, self._next_at = [], now
            return
        if stood is None:
            self._mind_trial(event)
            if self._round:
                self._next_at = now + self._rng.uniform(0, 1)  # the same broker by another way
                return
        self._round = []
        if event.code == TAKEN_OVER:
            self._met_another()
        self._next_at = now + self._backoff.after(stood or 0.0)

    def _met_another(self) -> None:
        """Somebody connected in our name; more than twice, and it is a copied disk."""
        self._backoff.met_another()
        if self._backoff.is_doubled:
            self._store.issues.raise_(IDENTITY_TWICE, "", Severity.FAULT)

    def _deaf(self, event: Deaf) -> None:
        """The broker lets us say what we want and hear nothing: no acknowledgement would ever come."""
        self._store.issues.raise_(REFUSED, "dn", Severity.FAULT, {"code": event.code})

    def _mind_trial(self, event: Disconnected) -> None:
        """A new certificate that no broker takes must not cost the box its link."""
        if not self._identity.is_on_trial or event.why not in {"tls", "refused", "lost"}:
            return
        self._trials += 1
        if self._trials >= _TRIALS and self._identity.fall_back():
            self._trials = 0
            with self._store.db.write() as tx:
                tx.journal(FleetLink(state="fell_back", code=event.why.upper()))
            self._reload()

    def _look_at_files(self, now: float) -> None:
        """A renewed certificate, new keys or another broker hold at once: the next connection has them."""
        if now - self._looked_at < _LOOK_AT_FILES_S:
            return
        self._looked_at = now
        if self._identity.is_stale() and self._reload() and self._transport is not None:
            self._transport.close(politely=self._since is not None)

    def _reload(self) -> bool:
        try:
            self._identity = Identity.load(self._identity.folder)
        except (ConfigError, KeyFault) as error:
            if not self._store.issues.is_open(IDENTITY_BROKEN, ""):
                log.error("fleet: %s", error)  # noqa: TRY400 - the text says how to mend it
            self._store.issues.raise_(IDENTITY_BROKEN, "", Severity.FAULT)
            return False
        self._store.issues.clear(IDENTITY_BROKEN, "")
        return True

    def _look_at_issues(self, now: float) -> None:
        if self._away_since is not None and now - self._away_since >= _UNREACHABLE_S:
            self._store.issues.raise_(UNREACHABLE, "", Severity.WARNING)
        if self._since is not None and self._backoff.is_alone(now - self._since):
            self._store.issues.clear(IDENTITY_TWICE, "")


def _await(transport: Transport, token: int) -> None:
    """Wait for the broker's answer to a publication, or for the end, or not much longer."""
    try:
        for _ in range(_MOST_EVENTS):
            event = transport.events.get(timeout=_STOP_S)
            if isinstance(event, Disconnected) or (isinstance(event, Published) and event.token == token):
                return
    except Empty:
        return
