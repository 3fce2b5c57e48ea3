"""HL7 over MLLP (HL7's Minimal Lower Layer Protocol, release 1): a frame there, an acknowledgement back."""

from __future__ import annotations

import json
import secrets
import select
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from appliance.clock import Clock
from appliance.config import Hl7Destination
from appliance.deliver import hl7
from appliance.deliver.connect import connect, cut, ended_after, tls_fault
from appliance.deliver.language import Language
from appliance.deliver.retry import AssociationLost, Judgement, NoAssociation
from appliance.store.deliveries import Delivery
from appliance.store.said import Said

_BEGIN, _END = b"\x0b", b"\x1c\r"
_MAX_ANSWER = 64 * 1024
#: Writes the message that tells a statement.
Write = Callable[[dict[str, Any], Delivery], bytes]


class Hl7Sender:
    """A HIS or RIS."""

    def __init__(
        self, destination: Hl7Destination, clock: Clock, locale: str, said: Callable[[int], Said | None]
    ) -> None:
        """Speak to ``destination``.

        Args:
            destination: Whom.
            clock: Dates the messages.
            locale: Of the words in them, where the destination names none.
            said: What the analysis said that a delivery tells of (``Deliveries.said``).

        Raises:
            ConfigError: The catalogue of the language is damaged.
        """
        self._destination = destination
        self._clock = clock
        self._said = said
        locale = destination.language or locale
        self._language = Language(locale) if locale != "en" else None

    def batch(self, owed: list[Delivery]) -> list[Delivery]:
        """Everything."""
        return owed

    def open(self, batch: list[Delivery]) -> MllpChannel:  # noqa: ARG002 - one channel takes them all
        """Connect; raises ``NoAssociation``."""
        return MllpChannel(self._destination, self._clock, self._message)

    def _message(self, statement: dict[str, Any], delivery: Delivery) -> bytes:
        now = self._clock.now()
        if self._language is None:
            return hl7.oru(statement, self._destination, now)
        told = self._language.tell(statement, self._said(delivery.id))
        return hl7.oru(told, self._destination, now, self._language.gettext)


class MllpChannel:
    """A connection; one message at a time is on its way."""

    def __init__(self, destination: Hl7Destination, clock: Clock, write: Write | None = None) -> None:
        """Connect; raises ``NoAssociation``. ``write`` makes the message of a statement; without it only ``probe``."""
        self._destination = destination
        self._clock = clock
        self._write = write
        self._who = f"{destination.host}:{destination.port}"
        self._socket = connect(self._who, destination.host, destination.port, destination.timeout_s, destination.tls)

    def takes(self, batch: list[Delivery]) -> bool:  # noqa: ARG002 - any
        """Whether it stands, and nothing lies on it that nobody asked for."""
        with suppress(OSError, ValueError):
            return not select.select([self._socket], [], [], 0)[0]
        return False

    def send(self, delivery: Delivery, stream: IO[bytes], size: int) -> Judgement:
        """Write the message out of the statement, send it, and judge its acknowledgement."""
        assert self._write is not None  # noqa: S101 - for the type checker
        message = self._write(json.loads(stream.read(size)), delivery)
        return self._exchange(message, hl7.control_id(delivery.sop_instance_uid))

    def probe(self) -> Judgement:
        """Ask what whoever knows HL7 acknowledges, gladly or not; raises as ``send``."""
        control = "SCS" + secrets.token_hex(8).upper()
        return self._exchange(hl7.question(self._destination, control, self._clock.now()), control)

    def release(self) -> None:
        """Close it."""
        self._socket.close()

    def interrupt(self) -> None:
        """Cut it."""
        cut(self._socket)

    def _exchange(self, message: bytes, control: str) -> Judgement:
        try:
            with ended_after(2 * self._destination.timeout_s, self._socket):
                self._socket.settimeout(self._destination.timeout_s)
                self._socket.sendall(_BEGIN + message + _END)
                answer = self._receive()
            return hl7.judge_ack(answer, control)
        except TimeoutError as error:
            self._socket.close()
            raise AssociationLost(
                f"{self._who} gave no acknowledgement within {self._destination.timeout_s:g} s"
            ) from error
        except OSError as error:
            self._socket.close()
            if isinstance(error, ssl.SSLError) and self._destination.tls is not None:
                raise NoAssociation(f"{self._who}: {tls_fault(error, self._destination.tls)}") from error
            raise AssociationLost(f"{self._who} closed the connection without an acknowledgement") from error
        except AssociationLost as error:
            # What comes next on this connection may answer what we sent before.
            self._socket.close()
            raise AssociationLost(f"{self._who}: {error}") from error

    def _receive(self) -> bytes:
        data = bytearray()
        while not data.endswith(_END):
            chunk = self._socket.recv(4096)
            if not chunk:
                raise AssociationLost("the connection was closed without an acknowledgement")
            data += chunk
            if not data.startswith(_BEGIN):
                raise AssociationLost("what answers is no HL7 over MLLP; check host and port")
            if len(data) > _MAX_ANSWER:
                raise AssociationLost("it sends an acknowledgement without an end")
        return bytes(data[1 : -len(_END)])
