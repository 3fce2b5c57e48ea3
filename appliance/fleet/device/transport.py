"""MQTT 5 to one broker: paho behind a thin adapter, and the only file of the box that knows it.

One object is one connection; it is never used again. Nothing here waits: a thread of paho's own dials, talks and ends,
and what happens stands in ``events``, in order, ``Disconnected`` last and always. Callbacks run under paho's locks, so
they do nothing but put an event there and ring the bell.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance.errors import TransientError
from appliance.fleet.device.identity import Broker, Identity
from appliance.fleet.wire import MAX_PACKED_BYTES, Up

log = logging.getLogger(__name__)

#: Somebody else connected as us.
TAKEN_OVER = 0x8E
KEEPALIVE_S = 60
SESSION_S = 86_400
WILL_DELAY_S = 45
#: Publications without PUBACK, either way; a broker may want fewer.
RECEIVE_MAX = 20
#: Of each step of dialling: TCP, proxy, TLS, WebSocket.
_STEP_S = 10.0
#: What came and nobody has looked at yet; more is left out, as what matters is sent again.
_MOST_WAITING = 64
_MOST_PROXY_BYTES = 16 * 1024
#: MQTT's own bytes around a payload of ``MAX_PACKED_BYTES``.
_AROUND = 4096


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has taken us.

    Attributes:
        session_present: It still has our session.
        receive_max: How many publications may be without PUBACK.
    """

    session_present: bool = False
    receive_max: int = RECEIVE_MAX


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The end of this connection, also of one that never stood.

    Attributes:
        why: dns, unreachable, proxy, tls, refused, lost, closed or bug.
        code: MQTT's reason code, where the broker gave one.
    """

    why: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message came."""

    topic: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has answered for a publication; ``failed`` is its reason code where it refused."""

    token: int
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class Deaf:
    """The broker refuses the first of what we listen to, with this reason code."""

    code: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Messages came faster than anybody looked at them: one or more are gone."""


Event = Connected | Disconnected | Arrived | Published | Deaf | LeftOut


class Transport(Protocol):
    """One connection."""

    events: SimpleQueue[Event]

    def connect(self, will: bytes, listen: Sequence[str]) -> None:
        """Begin; ``events`` says how it goes.

        Args:
            will: The retained status that the broker publishes where we vanish.
            listen: Topic filters; without the first the connection is worth nothing.
        """
        ...

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> int:
        """Send with QoS 1; never waits. Returns a token that ``Published`` names."""
        ...

    def close(self, *, politely: bool = True) -> None:
        """End it, without the last will where ``politely``; never waits. Harmless twice."""
        ...

    def join(self, timeout_s: float) -> None:
        """Wait for the end, so long at most."""
        ...


#: Opens a connection to a broker: transport for (identity, broker), with a bell to ring after each event.
Opener = Callable[[Identity, Broker, Callable[[], None]], Transport]


class ProxyError(TransientError):
    """The HTTP proxy does not let us through."""


def context_of(identity: Identity, broker: Broker) -> ssl.SSLContext:
    """TLS 1.2 or newer with the device's certificate, as it is on disk now; the server's name is checked.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file holds no such thing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(identity.ca_path)
    context.load_cert_chain(identity.certificate_path, identity.key_path)
    if broker.kind == "alpn":
        context.set_alpn_protocols(["mqtt"])
    elif broker.kind == "wss":
        context.set_alpn_protocols(["http/1.1"])
    return context


def through_proxy(line: socket.socket, host: str, port: int, credentials: str | None = None) -> None:
    """Ask an HTTP proxy, on a line that is open to it, for a tunnel (RFC 9110, CONNECT).

    Raises:
        ProxyError: It says no, or what it says is no HTTP.
        OSError: The line fails.
    """
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    ask = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
    if credentials:
        ask.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    line.sendall("\r\n".join([*ask, "", ""]).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) > _MOST_PROXY_BYTES:
            raise ProxyError("the proxy answers without an end")
        more = line.recv(4096)
        if not more:
            raise ProxyError("the proxy has hung up")
        answer += more
    head, _, rest = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ProxyError("the proxy does not speak HTTP")
    if not 200 <= int(words[1]) < 300:
        raise ProxyError(f"the proxy answers {int(words[1])}")
    if rest:  # the server speaks after our first word of TLS
        raise ProxyError("the proxy speaks before the server")


class _Client(Client):
    """paho's, with a line of our own making, a bound on what comes, and an end that is always told."""

    def __init__(self, device: str, proxy_url: str | None, *, web: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=device,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="websockets" if web else "tcp",
            reconnect_on_failure=False,  # its own loop has no chance in it: everybody would come back at once
        )
        self.proxy_url = proxy_url
        self.connect_timeout = _STEP_S
        self.dial: Callable[[], None] = lambda: None
        self.ended: Callable[[str], None] = lambda _: None
        self.is_closed: Callable[[], bool] = lambda: False
        #: A second handle of the line, so that it can be cut while paho's thread waits on it.
        self.line: socket.socket | None = None
        self.context: ssl.SSLContext | None = None
        self._wrapped: ssl.SSLSocket | None = None

    def _create_socket_connection(self) -> socket.socket:
        address = (self.host, self.port)
        proxy = urlsplit(self.proxy_url) if self.proxy_url else None
        if proxy is not None:
            address = (proxy.hostname or "", proxy.port or 80)
        line = socket.create_connection(address, timeout=_STEP_S)
        self.line = line.dup()
        if self.is_closed():
            line.close()
            raise ConnectionAbortedError("closed meanwhile")
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if proxy is not None:
            user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else None
            try:
                through_proxy(line, self.host, self.port, user)
            except BaseException:
                line.close()
                raise
        return line

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        if self.context is None:
            tcp_sock.close()
            raise ValueError("no connection without TLS")
        name = self.host
        wrapped = self._wrapped = self.context.wrap_socket(
            tcp_sock, server_hostname=name, do_handshake_on_connect=False
        )
        wrapped.settimeout(_STEP_S)
        wrapped.do_handshake()  # the context checks the name
        return wrapped

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_PACKED_BYTES + _AROUND:  # paho would gather whatever a broker announces
            raise ConnectionAbortedError("a packet larger than we said we take")
        return super()._sock_recv(bufsize)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:  # noqa: ARG002, FBT001, FBT002 - paho's signature
        """All of the thread: dial, talk until the end, tell of it."""
        why = "lost"
        try:
            self.dial()
            return super().loop_forever(timeout)
        except ProxyError as error:
            log.info("fleet: %s", error)
            why = "proxy"
        except socket.gaierror:
            why = "dns"
        except ssl.SSLError as error:
            log.info("fleet: TLS: %s", error.reason or type(error).__name__)
            why = "tls"
        except (OSError, ValueError) as error:
            # ValueError: a name or an address that this machine's library does not take; WebSocket's own errors.
            log.info("fleet: no connection: %s", type(error).__name__)
            why = "unreachable"
        except Exception:  # the last frame of paho's thread: loud, and the link goes on with another connection
            log.exception("fleet: a bug in the MQTT library or in our use of it; another connection is made")
            why = "bug"
        finally:
            if self._wrapped is not None:  # paho leaves one open whose handshake failed
                self._wrapped.close()
            self.ended(why)
        return MQTTErrorCode.MQTT_ERR_CONN_LOST


class PahoTransport:
    """One connection by paho."""

    def __init__(
        self, identity: Identity, broker: Broker, ring: Callable[[], None], *, proxy_url: str | None = None
    ) -> None:
        """Prepare; ``connect`` begins.

        Args:
            identity: Who we are; its files are read anew.
            broker: Where to.
            ring: Called after each event, from paho's thread.
            proxy_url: An HTTP proxy on the way, as http://proxy:3128.
        """
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._identity = identity
        self._broker = broker
        self._ring = ring
        self._guard = threading.Lock()
        self._closed = False
        self._stands = False
        self._reason: int | None = None
        self._refused = False
        self._was_full = False
        device = identity.enrolment.device
        client = self._client = _Client(device, proxy_url, web=broker.kind == "wss")
        client.username = device
        client.max_inflight_messages_set(RECEIVE_MAX)
        client.dial, client.ended, client.is_closed = self._dial, self._ended, lambda: self._closed
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._listen: list[tuple[str, int]] = []
        self._thread: threading.Thread | None = None

    def connect(self, will: bytes, listen: Sequence[str]) -> None:
        """Begin; ``events`` says how it goes."""
        self._listen = [(topic, 1) for topic in listen]
        topic = self._identity.address.topic(Up.STATUS)
        told = _properties(PacketTypes.WILLMESSAGE, {"schema": "status/1"}, None)
        told.WillDelayInterval = WILL_DELAY_S
        self._client.will_set(topic, will, qos=1, retain=True, properties=told)
        self._client.loop_start()
        self._thread = self._client._thread  # noqa: SLF001 - the one to wait for; paho forgets it at its end

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> int:
        """Send with QoS 1; never waits."""
        told = _properties(PacketTypes.PUBLISH, properties or {}, expiry_s)
        return self._client.publish(topic, payload, qos=1, retain=retain, properties=told).mid

    def close(self, *, politely: bool = True) -> None:
        """End it; without the last will where ``politely``."""
        with self._guard:
            self._closed = True
            stands, line = self._stands, self._client.line
        if politely and stands:
            self._client.disconnect()
        elif line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of paho's thread, so long at most."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _dial(self) -> None:
        """In paho's thread: everything that may take its time."""
        broker = self._broker
        client = self._client
        client.context = context_of(self._identity, broker)
        client.tls_set_context(client.context)
        if broker.kind == "wss":
            client.ws_set_options(path=broker.path)
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.SessionExpiryInterval = SESSION_S
        asked.ReceiveMaximum = RECEIVE_MAX
        asked.MaximumPacketSize = MAX_PACKED_BYTES
        client.connect(broker.host, broker.port, KEEPALIVE_S, clean_start=False, properties=asked)
        with self._guard:
            self._stands = True
            if self._closed:
                raise ConnectionAbortedError("closed meanwhile")

    def _ended(self, why: str) -> None:
        with self._guard:
            self._stands = False
            line, self._client.line = self._client.line, None
            closed = self._closed
        if line is not None:
            line.close()
        client = self._client
        # paho's object and ours hold each other; what is let go need not wait for the collector.
        client.on_connect = client.on_disconnect = client.on_publish = client.on_subscribe = client.on_message = None
        if self._refused:
            why = "refused"
        elif closed and self._reason is None:
            why = "closed"
        self._tell(Disconnected(why, self._reason))

    def _tell(self, event: Event) -> None:
        self.events.put(event)
        self._ring()

    def _on_connect(
        self, client: Client, _: Any, flags: ConnectFlags, reason: ReasonCode, given: Properties | None
    ) -> None:
        if reason.is_failure:
            self._reason, self._refused = reason.value, True
            return  # the connection ends by itself
        client.subscribe(self._listen)
        most = getattr(given, "ReceiveMaximum", RECEIVE_MAX)
        self._tell(Connected(session_present=flags.session_present, receive_max=min(most, RECEIVE_MAX)))

    def _on_disconnect(
        self, _client: Client, _: Any, flags: DisconnectFlags, reason: ReasonCode, _given: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._reason = reason.value

    def _on_publish(self, _client: Client, _: Any, mid: int, reason: ReasonCode, _given: Properties) -> None:
        self._tell(Published(mid, reason.value if reason.is_failure else None))

    def _on_subscribe(
        self, _client: Client, _: Any, _mid: int, reasons: list[ReasonCode], _given: Properties | None
    ) -> None:
        if reasons and reasons[0].is_failure:
            self._tell(Deaf(reasons[0].value))

    def _on_message(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        is_full = self.events.qsize() >= _MOST_WAITING
        if is_full and not self._was_full:
            self._tell(LeftOut())
        self._was_full = is_full
        if not is_full:
            pairs = getattr(message.properties, "UserProperty", None) or []
            self._tell(Arrived(_topic(message), bytes(message.payload), dict(pairs), retained=message.retain))


def _topic(message: MQTTMessage) -> str:
    try:
        return message.topic
    except UnicodeDecodeError:
        return ""  # none of ours


def _properties(packet: int, user: Mapping[str, str], expiry_s: int | None) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    if user:
        properties.UserProperty = list(user.items())
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    return properties


def opener(proxy_url: str | None = None) -> Opener:
    """Connections by paho, through a proxy where the site has one."""

    def open_(identity: Identity, broker: Broker, ring: Callable[[], None]) -> Transport:
        return PahoTransport(identity, broker, ring, proxy_url=proxy_url)

    return open_
