"""The server's line to the broker: paho behind a thin adapter, with a reconnect loop of its own.

Callbacks run in paho's thread and do one thing: put on a queue. A message is answered (PUBACK) only when whoever took
it says so; so the broker never has more on the way than ``RECEIVE_MAX``, and what a slow database has not taken stays
with the broker or the box.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance.fleet.server.acks import Downlink
from appliance.fleet.server.admit import Uplink
from appliance.fleet.server.unix_client import UnixClient
from appliance.fleet.wire import EXPIRY_S, MAX_PACKED_BYTES, WireError

log = logging.getLogger(__name__)

#: Messages that we may have without having answered for them.
RECEIVE_MAX = 1000
#: Of what we publish, the same; a broker that takes fewer says so.
_SEND_MAX = 1000
_KEEPALIVE_S = 30
#: Heartbeats are QoS 0: beyond so many waiting messages they are left out, as the next one says it all.
_MOST_WAITING = 5 * RECEIVE_MAX
_SLOWEST_S = 30.0
_STABLE_S = 60.0


@dataclass(frozen=True, slots=True)
class BrokerAt:
    """Where the broker is, and as whom we come.

    Attributes:
        client_id: Of this process; another one with the same would take its place.
        tls: With the server's certificate; None is a broker on this machine without any, for figures.
    """

    host: str
    port: int
    client_id: str
    tls: ssl.SSLContext | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that waits for its answer; ``line`` and ``mid`` say which, and mean nothing after a reconnect."""

    uplink: Uplink
    line: int
    mid: int
    qos: int


class BrokerLine:
    """One process's connection, kept up for as long as ``start`` .. ``stop``."""

    def __init__(
        self, at: BrokerAt, topics: Sequence[str], arrived: SimpleQueue[Taken | None], rng: random.Random
    ) -> None:
        """Prepare.

        Args:
            at: Where.
            topics: Filters to listen to.
            arrived: Where messages go.
            rng: For the back-off.
        """
        self._at = at
        self._topics = topics
        self._arrived = arrived
        self._rng = rng
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-broker", daemon=True)
        self._guard = threading.Lock()
        self._client: Client | None = None
        self._line = 0
        self._send_max = _SEND_MAX
        #: Set while the broker listens to us and we to it.
        self.stands = threading.Event()
        self.left_out = 0
        self.connects = 0

    def start(self) -> None:
        """Connect, and again whenever it is lost."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect for good."""
        self._stop.set()
        self._ended.set()
        self._thread.join(30)

    def answer(self, taken: Sequence[Taken]) -> None:
        """Tell the broker that these are ours now; those of an earlier line it has handed out anew."""
        with self._guard:
            client, line = self._client, self._line
        if client is None:
            return
        for one in taken:
            if one.line == line and one.qos:
                client.ack(one.mid, one.qos)

    def publish(self, messages: Sequence[Downlink]) -> int:
        """Send; returns how many the line took. What it did not take is asked for again by whom it was for."""
        with self._guard:
            client = self._client
        if client is None or not self.stands.is_set():
            return 0
        taken = 0
        for one in messages:
            told = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            told.MessageExpiryInterval = EXPIRY_S[one.name]
            told.ContentType = "application/json"
            try:
                topic = one.address.topic(one.name)
            except WireError:
                continue
            info = client.publish(topic, one.payload, qos=1, retain=False, properties=told)
            taken += info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        return taken

    def renew(self) -> None:
        """Give this line up for a new one."""
        self._ended.set()

    def _run(self) -> None:
        tries = 0
        while not self._stop.is_set():
            self._ended.clear()
            client = self._dial()
            if client is not None and self._stay(client):
                tries = 0
            tries += 1
            self._stop.wait(self._rng.uniform(0, min(_SLOWEST_S, 2.0 ** (tries - 2))))

    def _stay(self, client: Client) -> bool:
        """Until it ends; whether it was a stable one."""
        lasted = not self._ended.wait(_STABLE_S)
        if lasted:
            self._ended.wait()
        self.stands.clear()
        with self._guard:
            self._client = None
        client.disconnect()
        client.loop_stop()
        return lasted

    def _dial(self) -> Client | None:
        client = self._client_of(self._at.client_id)
        if self._at.tls is not None:
            client.tls_set_context(self._at.tls)
        client.max_inflight_messages_set(self._send_max)
        line = self._line + 1
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self._ended.set()
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _c, _u, message: self._on_message(line, message)
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.ReceiveMaximum = RECEIVE_MAX
        asked.MaximumPacketSize = MAX_PACKED_BYTES + 4096
        # No session: what was on the way to us when we went is sent again by its box, and other processes get the rest.
        try:
            client.connect(self._at.host, self._at.port, _KEEPALIVE_S, clean_start=True, properties=asked)
        except (OSError, ValueError) as error:
            log.warning("fleet: no broker at %s:%d: %s", self._at.host, self._at.port, type(error).__name__)
            return None
        with self._guard:
            self._client, self._line = client, line
        client.loop_start()
        return client

    def _client_of(self, client_id: str) -> Client:
        if self._at.host.startswith("/"):  # the socket of a broker of our own, which nobody on the network reaches
            return UnixClient(client_id, manual_ack=True)
        return Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )

    def _on_connect(self, client: Client, _: Any, _flags: Any, reason: ReasonCode, given: Properties | None) -> None:
        if reason.is_failure:
            log.warning("fleet: the broker refuses the server: %s", reason)
            self._ended.set()
            return
        most = getattr(given, "ReceiveMaximum", 65_535)
        if most < self._send_max:
            # It cannot be changed on a line that stands.
            self._send_max = most
            self._ended.set()
            return
        self.connects += 1
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, _client: Client, _: Any, _mid: int, reasons: list[ReasonCode], _given: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            log.warning("fleet: the broker does not let the server listen; see the ACL of its user")
            self._ended.set()
            return
        self.stands.set()

    def _on_message(self, line: int, message: MQTTMessage) -> None:
        if message.qos == 0 and self._arrived.qsize() > _MOST_WAITING:
            self.left_out += 1
            return
        pairs = getattr(message.properties, "UserProperty", ())
        with contextlib.suppress(UnicodeDecodeError):
            topic = message.topic
            uplink = Uplink(topic, bytes(message.payload), dict(pairs), retained=message.retain)
            self._arrived.put(Taken(uplink, line, message.mid, message.qos))
