"""STOW-RS (PS3.18 §10.5): one object a request, streamed from its file, and what the answer says of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import IO, Any

from appliance.config import StowDestination
from appliance.deliver.connect import read_secret
from appliance.deliver.http import HttpConnection, Reply, Server
from appliance.deliver.retry import AssociationLost, Fault, Judgement, NoAssociation, Verdict, judge
from appliance.errors import ConfigError
from appliance.store.deliveries import Delivery

#: Stands in no object but by intent, and then the object merely looks cut to the server.
_BOUNDARY = "scanside-6f2c1d0b9e8a47f3b5d4c3a2918f7e6d"
_HEAD = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()
_CHUNK = 128 * 1024
#: Attributes of the response, as DICOM JSON names them: Failed SOP, Referenced SOP, Failure Reason, Referenced SOP
#: Instance UID.
_FAILED, _REFERENCED, _REASON, _UID = "00081198", "00081199", "00081197", "00081155"


class StowSender:
    """A DICOMweb server."""

    def __init__(self, destination: StowDestination) -> None:
        """Speak to ``destination``; raises ``ConfigError`` where its password or token cannot be read."""
        self._destination = destination
        authorisation(destination)

    def batch(self, owed: list[Delivery]) -> list[Delivery]:
        """Everything."""
        return owed

    def open(self, batch: list[Delivery]) -> StowChannel:  # noqa: ARG002 - one channel takes them all
        """Connect; raises ``NoAssociation``."""
        return StowChannel(self._destination)


class StowChannel:
    """A connection."""

    def __init__(self, destination: StowDestination) -> None:
        """Connect; raises ``NoAssociation``."""
        try:
            self._who = authorisation(destination)
        except ConfigError as error:
            raise NoAssociation(str(error)) from error
        server = Server(url=destination.url, timeout_s=destination.timeout_s, tls=destination.tls)
        self._http = HttpConnection(server)

    def takes(self, batch: list[Delivery]) -> bool:  # noqa: ARG002 - any
        """Whether it stands."""
        return self._http.is_alive()

    def send(self, delivery: Delivery, stream: IO[bytes], size: int) -> Judgement:
        """Store one object; the file's head goes with it."""
        begin = stream.tell()
        stream.seek(0)
        total = begin + size
        reply = self._post(_parts(stream, total), len(_HEAD) + total + len(_TAIL))
        return judge_stow(reply, delivery.sop_instance_uid, version_n=delivery.version_n)

    def probe(self) -> Reply:
        """Ask with a request that holds no object; raises as ``send``."""
        return self._post(iter([_TAIL]), len(_TAIL))

    def _post(self, body: Iterator[bytes], size: int) -> Reply:
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
            "Accept": "application/dicom+json",
            **self._who,
        }
        return self._http.post(headers, body, size, target="/studies")

    def release(self) -> None:
        """Close it."""
        self._http.close()

    def interrupt(self) -> None:
        """Cut it."""
        self._http.cut()


def authorisation(destination: StowDestination) -> dict[str, str]:
    """The header that says who we are; empty where nothing is configured.

    Raises:
        ConfigError: Password or token cannot be read, or everybody may read it.
    """
    if destination.token_path is not None:
        return {"Authorization": f"Bearer {_ascii('token_path', read_secret('token_path', destination.token_path))}"}
    if destination.password_path is None:
        return {}
    both = f"{destination.user}:{read_secret('password_path', destination.password_path)}"
    return {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}


def _ascii(key: str, text: str) -> str:
    if not text.isascii():
        raise ConfigError(f"{key}: the token holds letters that no HTTP header can bear")
    return text


def _parts(stream: IO[bytes], size: int) -> Iterator[bytes]:
    yield _HEAD
    while size:
        try:
            chunk = stream.read(min(_CHUNK, size))
        except OSError as error:
            raise AssociationLost(f"the file in the spool cannot be read: {error.strerror}") from error
        if not chunk:
            raise AssociationLost("the file in the spool ended while it was being sent")
        size -= len(chunk)
        yield chunk
    yield _TAIL


def judge_stow(reply: Reply, sop_instance_uid: str, *, version_n: int = 1) -> Judgement:
    """What an answer to STOW-RS means for the one object that was sent (PS3.18 Tables 10.5.3-1 and I.2-2).

    Args:
        reply: As it came.
        sop_instance_uid: Of the object.
        version_n: Above 1 the object is a later data set under a SOP Instance UID that was sent before.
    """
    if reply.status in {200, 202, 409}:
        return _judge_told(reply, sop_instance_uid, version_n)
    if reply.status in {204, 201}:
        return Judgement(verdict=Verdict.STORED, status=reply.status)
    verdict = Verdict.PARK if reply.status in _FOR_GOOD else Verdict.RETRY
    words = _FOR_GOOD.get(reply.status) or _FOR_NOW.get(reply.status) or "it answered with a failure"
    return Judgement(
        verdict=verdict, words=f"HTTP {reply.status}: {words}", status=reply.status, fault=fault_of(reply.status)
    )


def _judge_told(reply: Reply, uid: str, version_n: int) -> Judgement:
    told = _told(reply.body)
    if uid in told.failed:
        reason = told.failed[uid]
        if reason is None:
            words = f"HTTP {reply.status}: it did not store the object and says no reason"
            return Judgement(verdict=Verdict.RETRY, words=words, status=reply.status, fault=Fault.OBJECT)
        return _of_reason(reason, version_n)
    # A proxy's page to sign in comes with 200 too; what stored the object names it. Some answer in XML, or not at all.
    if uid in told.stored or (reply.status == 200 and (not reply.body or uid.encode() in reply.body)):
        return Judgement(verdict=Verdict.STORED, status=reply.status)
    words = f"HTTP {reply.status}: it does not say what became of the object"
    return Judgement(verdict=Verdict.RETRY, words=words, status=reply.status, fault=fault_of(reply.status))


def fault_of(status: int) -> Fault:
    """Whose fault an HTTP status is that says nothing of the object.

    A request holds one object: 409 is about it (PS3.18 Table 10.5.3-1). A server fails by itself, or over the object.
    """
    if status == 409:
        return Fault.OBJECT
    return Fault.DESTINATION if status in {408, 425, 429} else Fault.EITHER


def _of_reason(reason: int, version_n: int) -> Judgement:
    """A Failure Reason is a C-STORE status or one of PS3.18's own; named as failed, nothing counts as stored."""
    judgement = judge(reason, version_n=version_n)
    if reason in _REASONS:
        words = f"failure reason 0x{reason:04X}: {_REASONS[reason]}"
        return Judgement(verdict=Verdict.PARK, words=words, status=reason)
    if judgement.verdict is Verdict.STORED and reason != _DUPLICATE:
        words = f"failure reason 0x{reason:04X}: it did not store the object"
        return Judgement(verdict=Verdict.RETRY, words=words, status=reason, fault=Fault.OBJECT)
    return judgement


class _Told:
    """What a response says of objects: failed with their reasons, and stored."""

    def __init__(self) -> None:
        self.failed: dict[str, int | None] = {}
        self.stored: set[str] = set()


def _told(body: bytes) -> _Told:
    told = _Told()
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return told
    # PS3.18 shows the object, some servers put it into a list.
    for ds in answer if isinstance(answer, list) else [answer]:
        for item in _items(ds, _FAILED):
            reason = _value(item, _REASON)
            told.failed[str(_value(item, _UID))] = reason if isinstance(reason, int) else None
        told.stored |= {str(_value(item, _UID)) for item in _items(ds, _REFERENCED)}
    return told


def _items(ds: Any, tag: str) -> list[Any]:
    found = ds.get(tag) if isinstance(ds, dict) else None
    items = found.get("Value") if isinstance(found, dict) else None
    return items if isinstance(items, list) else []


def _value(ds: Any, tag: str) -> Any:
    values = _items(ds, tag)
    return values[0] if values else None


_DUPLICATE = 0x0111
#: PS3.18 Table I.2-2, as far as C-STORE does not have them.
_REASONS = {
    0xC122: "it does not take this Transfer Syntax; let the server accept it, then retry",
    0x0122: "it does not take this SOP Class; let the server accept it, then retry",
}
_FOR_GOOD = {
    400: "it cannot understand the object",
    410: "this address is gone for good; correct url, then retry",
    413: "the object is too large for it; let the server (or the proxy before it) take larger ones, then retry",
    415: "it does not take DICOM objects in this form; let the server accept them, then retry",
    422: "it cannot process the object",
}
_FOR_NOW = {
    408: "it waited too long for us",
    429: "we send too much for it; it is tried again",
    500: "it failed; look at the server's log",
    502: "the server behind its proxy does not answer",
    503: "it is busy or down; it is tried again",
    504: "the server behind its proxy does not answer in time",
    507: "it is out of room; look at its disk",
}
