"""From a durable file to a durable row: what the SCP calls before it answers 0x0000.

The receiver (``scp.py``) knows nothing of versions and deliveries; the store knows nothing of files' pixels. Here the
rule of issue "From the scanner to the alert" §3 for a UID that comes again is applied, by the association's own thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from appliance.clock import Clock
from appliance.config import Config
from appliance.dicom.headers import pixel_sha256
from appliance.errors import StoreError
from appliance.records import Header, Received, SourceRef
from appliance.store import Store
from appliance.store.forwarding import originals_for
from appliance.store.studies import Change, Version, current_of

log = logging.getLogger(__name__)
#: A UID may gain a version in another association between our look and our write; more often than this it cannot.
_TRIES = 20
#: Refusals of one source and status that are written one by one in a minute; the rest of that minute is counted.
_MAX_REFUSALS, _REFUSALS_WINDOW_S = 200, 60.0
#: Sources that are nobody's are addresses, and there can be many.
_MAX_KINDS = 10_000


def change_of(current: Version, header: Header, *, same_pixel_bytes: bool) -> Change:
    """How a data set under a known UID differs from the current version; pure.

    Args:
        current: What is analysed and shown now.
        header: Of the data set that came.
        same_pixel_bytes: Whether the pixel elements are equal byte for byte.
    """
    if current.meaning_digest != header.meaning_digest:
        return Change.PIXELS  # whatever a decoder would say of the values, they mean something else
    if not same_pixel_bytes:
        is_other_syntax = current.transfer_syntax_uid != header.transfer_syntax_uid
        can_compare = header.has_pixels and current.removed_pixels is None
        return Change.COMPARING if is_other_syntax and can_compare else Change.PIXELS
    if current.identity != header.identity:
        return Change.IDENTITY
    return Change.ATTRIBUTES if current.transfer_syntax_uid == header.transfer_syntax_uid else Change.SYNTAX


class Refusals:
    """How many refusals of one kind are written: a flood is counted, so that it cannot fill the journal."""

    def __init__(self, clock: Clock) -> None:
        """Count from now."""
        self._clock = clock
        self._lock = threading.Lock()
        #: (source, status): begin of its minute, written in it, counted since.
        self._seen: dict[tuple[str, int], tuple[float, int, int]] = {}

    def times(self, source: str, status: int) -> int:
        """For how many refusals a row is to be written now; 0 for none."""
        now = self._clock.monotonic()
        with self._lock:
            if len(self._seen) > _MAX_KINDS:
                self._seen.clear()
            since, written, counted = self._seen.get((source, status), (now, 0, 0))
            if now - since >= _REFUSALS_WINDOW_S:
                since, written = now, 0
            if written >= _MAX_REFUSALS:
                self._seen[source, status] = (since, written, counted + 1)
                return 0
            self._seen[source, status] = (since, written + 1, 0)
            return counted + 1


class StoreSink:
    """The receiver's sink: one transaction per image, wakes completeness and forwarding after the commit."""

    def __init__(self, store: Store, config: Config, clock: Clock, *, wake: Callable[[], None]) -> None:
        """Record into ``store``; ``wake`` is called after each act, from the association's thread."""
        self._store = store
        self._refusals = Refusals(clock)
        self._originals = {source.name: originals_for(config, source.name) for source in config.sources}
        self._wake = wake

    def association_opened(
        self, *, calling_ae: str, called_ae: str, address: str, source: SourceRef, can_store: bool
    ) -> int:
        """Note an accepted association; returns its id."""
        return self._store.studies.open_association(
            source=source.name, calling_ae=calling_ae, called_ae=called_ae, address=address, can_store=can_store
        )

    def association_closed(self, association_id: int, *, how: str, images: int) -> None:
        """Note the end of an association: evidence of completeness."""
        self._store.studies.close_association(association_id, how=how, images=images)
        self._wake()

    def refused(self, *, association_id: int | None, source: str, status: int, message: str) -> None:
        """Note what was not taken; of a flood of one kind, how much."""
        times = self._refusals.times(source, status)
        if times:
            self._store.studies.refused(
                association_id=association_id, source=source, status=status, message=message, times=times
            )

    def store(self, received: Received) -> None:
        """Record an image; when this returns it may be acknowledged.

        Raises:
            StoreError: It could not be recorded; the file is removed again and 0xA700 is due.
        """
        originals = self._originals.get(received.source, ())
        studies = self._store.studies
        for _ in range(_TRIES):
            known = studies.versions(received.header.sop_instance_uid)
            if not known:
                if studies.add_new(received, originals) is not None:
                    break
                continue
            repeated = next((one for one in known if one.data_sha256 == received.data_sha256), None)
            if repeated is not None:
                if not studies.add_repeat(received, repeated.id):
                    self._store.spool.remove(received.path)
                break
            current = current_of(known)
            before = self._pixels(current.path) if current.removed_pixels is None else current.removed_pixels
            change = change_of(current, received.header, same_pixel_bytes=before == self._pixels(received.path))
            if studies.add_version(received, known, change, originals) is not None:
                break
        else:
            msg = "versions of one SOP Instance UID keep arriving by several associations; send them one after another"
            raise StoreError(msg)
        self._wake()

    def _pixels(self, relative: str) -> str:
        path: Path = self._store.spool.path(relative)
        return pixel_sha256(path)
