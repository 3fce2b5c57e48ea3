"""Whether a destination answers, and takes what it is to get: what ``scanside dest test`` asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.clock import Clock
from appliance.config import Destination, DicomDestination, Hl7Destination, StowDestination
from appliance.deliver.build import EXPLICIT_VR_LITTLE_ENDIAN, SOP_CLASSES
from appliance.deliver.dicom import peer_of
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.mllp import MllpChannel
from appliance.deliver.retry import AssociationLost, ContextRefused, NoAssociation, Verdict
from appliance.deliver.stow import StowChannel
from appliance.deliver.webhook import WebhookChannel
from appliance.deliver.wire import Context
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

#: Of an answer to a request without an object: the server understood that there is none.
_NO_OBJECT = range(400, 500)
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """What ``dest test`` tells."""

    ok: bool
    ms: float
    words: str


def probe(destination: Destination, box_ae_title: str, clock: Clock) -> EchoResult:
    """Ask a destination whether it would take what it is to get; sends no result. Never raises.

    DICOM: C-ECHO, and the contexts of the objects in ``send``. STOW: a request without an object. HL7: a message that
    asks for nothing. Webhook: a signed body of type ``scanside.test``.
    """
    if isinstance(destination, DicomDestination):
        wanted = [(SOP_CLASSES[kind], EXPLICIT_VR_LITTLE_ENDIAN) for kind in destination.send if kind in SOP_CLASSES]
        return echo(peer_of(destination, box_ae_title), wanted)
    if isinstance(destination, StowDestination):
        return _timed(lambda: _stow(destination))
    if isinstance(destination, Hl7Destination):
        return _timed(lambda: _hl7(destination, clock))
    return _timed(lambda: _webhook(WebhookChannel(destination, clock)))


def echo(peer: Peer, wanted: Sequence[Context] = ()) -> EchoResult:
    """Associate with a storage SCP, verify it, and see whether it takes ``wanted``; never raises."""

    def ask() -> tuple[bool, str]:
        association = Association(peer, [(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN), *wanted])
        try:
            status = association.echo()
        finally:
            association.release()
        if status != 0:
            return False, f"{peer} answers C-ECHO with status 0x{status:04X}"
        for context in wanted:
            if context not in association.accepted:
                return False, str(association.refusal(context))
        return True, f"{peer} answers"

    return _timed(ask)


def _timed(ask: Callable[[], tuple[bool, str]]) -> EchoResult:
    begin = time.monotonic()
    try:
        ok, words = ask()
    except (NoAssociation, AssociationLost, ContextRefused) as error:
        ok, words = False, str(error)
    return EchoResult(ok=ok, ms=(time.monotonic() - begin) * 1000, words=words)


def _stow(destination: StowDestination) -> tuple[bool, str]:
    channel = StowChannel(destination)
    try:
        status = channel.probe().status
    finally:
        channel.release()
    if 200 <= status < 300 or (status in _NO_OBJECT and status not in _BUSY):
        return True, f"it answers; to a request without an object with HTTP {status}, as it should"
    return False, f"HTTP {status}: it answers, but would not take an object now; look at its log"


def _hl7(destination: Hl7Destination, clock: Clock) -> tuple[bool, str]:
    channel = MllpChannel(destination, clock)
    try:
        judgement = channel.probe()
    finally:
        channel.release()
    if judgement.verdict is Verdict.STORED:
        return True, "it acknowledges a message that asks for nothing"
    return True, f"it speaks HL7; of a message that asks for nothing it says {judgement.words.partition(';')[0]}"


def _webhook(channel: WebhookChannel) -> tuple[bool, str]:
    try:
        judgement = channel.probe()
    finally:
        channel.release()
    if judgement.verdict is Verdict.STORED:
        return True, f"it took a test (HTTP {judgement.status})"
    return False, judgement.words
