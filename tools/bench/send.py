"""Scanners: a bare socket each, so that what is measured is the box and not the sender's library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.simulate.rawscu import RawScu
from bench.images import Image

_EXPLICIT_LE = "1.2.840.10008.1.2.1"
_CALLED = "SCANSIDE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One acknowledged image, monotonic times."""

    last_byte_mono: float
    response_mono: float


#: Called with the number of the image that was sent, from 1.
Pause = Callable[[int], None]


def no_pause(_: int) -> None:
    """Send as fast as the box takes it."""


class Sender:
    """One association for one SOP class."""

    def __init__(self, scu: RawScu, context_id: int) -> None:
        """Use ``association``."""
        self._scu, self._context_id = scu, context_id

    def store(self, image: Image) -> Sent:
        """One C-STORE.

        Raises:
            SystemExit: It was not acknowledged.
        """
        pdus = self._scu.store_pdus(self._context_id, image.sop_class_uid, image.sop_instance_uid, image.data)
        self._scu.send(b"".join(pdus))
        last_byte = time.monotonic()
        status = self._scu.answer()
        if status:
            raise SystemExit(f"the box answered 0x{status:04X} to an image of the bench")
        return Sent(last_byte_mono=last_byte, response_mono=time.monotonic())


@contextmanager
def association(port: int, ae_title: str, sop_class_uid: str) -> Iterator[Sender]:
    """An association that is released at the end."""
    with RawScu("127.0.0.1", port, calling=ae_title, called=_CALLED) as scu:
        (context_id,) = scu.associate([(sop_class_uid, [_EXPLICIT_LE])])
        yield Sender(scu, context_id)
        scu.release()


def send_in_one(port: int, ae_title: str, images: Iterable[Image], pause: Pause = no_pause) -> Sent:
    """All images in one association; the last one's times."""
    held = list(images)
    with association(port, ae_title, held[0].sop_class_uid) as sender:
        for number, image in enumerate(held, 1):
            sent = sender.store(image)
            if number < len(held):
                pause(number)
    return sent


def send_each(port: int, ae_title: str, images: Iterable[Image], pause: Pause = no_pause) -> Sent:
    """One association per image."""
    for number, image in enumerate(images, 1):
        with association(port, ae_title, image.sop_class_uid) as sender:
            sent = sender.store(image)
        pause(number)
    return sent
