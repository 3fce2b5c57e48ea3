"""A scanner: real associations by pynetdicom, in the ways that scanners send.

One association for all, one per image, one held open; series interleaved; pauses where the caller makes them. What
happens between two images is the caller's: nothing here waits by itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

#: What can be sent: a Part 10 file, byte for byte, or a data set, which pydicom encodes anew.
Item = Path | Dataset

_MAX_CONTEXTS = 128  # PS3.8 §9.3.2.2: odd ids up to 255


class NotAccepted(ConnectionError):  # noqa: N818 - the standard's word for a peer's answer
    """The peer refused or aborted the association, or did not answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to one C-STORE; ``status`` is ``None`` when there was none."""

    sop_instance_uid: str
    status: int | None
    #: ``time.monotonic()`` when the response was there.
    at_mono: float


class Scanner:
    """A storage SCU with its AE title, and the SCP it sends to."""

    def __init__(
        self,
        ae_title: str,
        called: str,
        host: str,
        port: int,
        *,
        max_pdu: int = 131072,
        timeout_s: float = 30.0,
    ) -> None:
        """Describe both ends; nothing is sent yet."""
        self.ae_title, self.called = ae_title, called
        self._peer = (host, port)
        self._max_pdu, self._timeout_s = max_pdu, timeout_s

    def echo(self) -> int | None:
        """C-ECHO in an association of its own; the status, ``None`` without an answer.

        Raises:
            NotAccepted: No association.
        """
        with self._association([build_context(Verification)]) as assoc:
            status = assoc.send_c_echo()
            return int(status.Status) if "Status" in status else None

    @contextmanager
    def open(self, items: Iterable[Item]) -> Iterator[OpenAssociation]:
        """An association that can carry ``items``, released at the end of the block if it still stands.

        Raises:
            NotAccepted: The peer refused it.
        """
        with self._association(contexts_for(items)) as assoc:
            yield OpenAssociation(assoc)

    def send(self, items: Sequence[Item], *, high: bool = False) -> list[Sent]:
        """All items in one association, in this order.

        Raises:
            NotAccepted: The peer refused it.
        """
        with self.open(items) as assoc:
            return [assoc.send(item, high=high) for item in items]

    def send_each(self, items: Iterable[Item], *, high: bool = False) -> Iterator[Sent]:
        """One association per item; lazily, so that the caller may pause between two.

        Raises:
            NotAccepted: The peer refused one.
        """
        for item in items:
            yield from self.send([item], high=high)

    @contextmanager
    def _association(self, contexts: list[PresentationContext]) -> Iterator[Any]:
        ae = _ScannerAe(ae_title=self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._timeout_s
        ae.connection_timeout = self._timeout_s
        assoc = ae.associate(*self._peer, contexts=contexts, ae_title=self.called, max_pdu=self._max_pdu)
        try:
            if not assoc.is_established:
                raise NotAccepted(f"{self.called} at {self._peer[0]}:{self._peer[1]} did not accept {self.ae_title}")
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()
            ae.close()


class OpenAssociation:
    """An established association: send, wait as long as you like, send again, release or abort."""

    def __init__(self, assoc: Any) -> None:
        """Wrap pynetdicom's association."""
        self._assoc = assoc
        self._message_id = 0
        give_answers_back(assoc)

    def send(self, item: Item, *, high: bool = False) -> Sent:
        """One C-STORE; ``high`` sets DIMSE priority HIGH. A file goes as it is, by chunks.

        Raises:
            NotAccepted: The association does not stand any more.
            ValueError: The peer did not accept the item's SOP class in its transfer syntax.
        """
        if not self._assoc.is_established:
            raise NotAccepted("the association was ended by the peer")
        # Library-wide, and what every sender by path wants: without it pynetdicom decodes and re-encodes the file.
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._message_id = self._message_id % 0xFFFF + 1
        status = self._assoc.send_c_store(item, msg_id=self._message_id, priority=1 if high else 0)
        answered = time.monotonic()
        return Sent(kinds(item)[1], int(status.Status) if "Status" in status else None, answered)

    def abort(self) -> None:
        """A-ABORT, as when the operator stops the transfer."""
        self._assoc.abort()

    @property
    def stands(self) -> bool:
        """Whether the peer still has the association."""
        return bool(self._assoc.is_established)


def give_answers_back(assoc: Any) -> None:
    """Let no answer fall between pynetdicom's two threads.

    ``send_c_store`` stops the library's own loop before it waits for the answer, but one that has just passed its
    checkpoint runs on: an answer that comes within that moment is taken for a request, dropped, and missed for 30 s.
    """
    serve = assoc._serve_request  # noqa: SLF001 - there is no public way; a test fails when the library changes

    def serve_requests_only(message: Any, context_id: int) -> None:
        if message.is_valid_response:
            assoc.dimse.msg_queue.put((context_id, message))
        else:
            serve(message, context_id)

    assoc._serve_request = serve_requests_only  # noqa: SLF001


def interleave(*series: Sequence[Item]) -> list[Item]:
    """The images of several series in turn, as scanners send that reconstruct them at the same time."""
    return [item for row in zip_longest(*series) for item in row if item is not None]


def kinds(item: Item) -> tuple[str, str, str]:
    """SOP class, SOP instance and transfer syntax UID of an item.

    Raises:
        ValueError: A file without the file meta information that sending needs; use ``rawscu`` for it.
    """
    meta = read_file_meta_info(item) if isinstance(item, Path) else item.file_meta
    values = [
        str(meta.get(keyword, ""))
        for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    ]
    if not all(values):
        where = item.name if isinstance(item, Path) else "a data set"
        raise ValueError(f"{where} has no complete file meta information; send it with appliance.simulate.rawscu")
    return values[0], values[1], values[2]


def contexts_for(items: Iterable[Item]) -> list[PresentationContext]:
    """One presentation context per SOP class and transfer syntax, so that each file goes in its own syntax.

    Raises:
        ValueError: More than 128 are needed.
    """
    pairs = dict.fromkeys((sop_class, syntax) for sop_class, _, syntax in map(kinds, items))
    if len(pairs) > _MAX_CONTEXTS:
        raise ValueError(f"{len(pairs)} kinds of objects need more than {_MAX_CONTEXTS} contexts: send them in parts")
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


class _ScannerAe(AE):
    """pynetdicom's AE with its client socket in our hands: without Nagle's algorithm, and closed for certain.

    With Nagle the last, short segment of each image waits 40 ms for the peer's delayed acknowledgement. The library
    leaves the socket of a refused connection open: its close() follows a shutdown() that raises.
    """

    _raw: socket.socket | None = None

    def _create_socket(self, *args: Any, **kwargs: Any) -> Any:
        made: Any = super()._create_socket(*args, **kwargs)
        self._raw = made.socket
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def close(self) -> None:
        """Close the socket if the library has not."""
        if self._raw is not None:
            self._raw.close()
