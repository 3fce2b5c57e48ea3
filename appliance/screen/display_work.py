"""How images become pixels for screens: limited children, one after another, within the room that the disk has.

A child that dies costs the image that it had begun, which is then told in words; the others go on in a new child.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import StoreError
from appliance.records import Detail
from appliance.screen.display_cache import Cache
from appliance.store import Store
from engines.child import Limits, run_limited
from engines.errors import ChildError

log = logging.getLogger(__name__)

_CHILD = "appliance.screen.display_child"
LIMITS = Limits(wall_s=180.0, cpu_s=120.0, memory_mb=2048)
#: What the cache may hold at most; a smaller disk gets a smaller cache.
ROOM_BYTES = 2 * 10**9
_ROOM_SHARE = 0.05
_FULL_SHARE = 0.75
#: Beyond the reserve that is the scanners'.
_SPARE_BYTES = 256 * 10**6
#: One child prepares so many images, then others have their turn.
BATCH = 200
#: A child that has been at one image for so long is taken for stuck.
STUCK_S = 30.0
#: How long a fault that may have been the machine's is told before it is tried again.
_AGAIN_S = 600.0
_SOON_S = 30.0
_MOST_FAULTS = 5000
_NICE, _NICE_AHEAD = 5, 15

_DIED = Detail("This image ended the program that reads images; it was not shown")
_STUCK = Detail("This image could not be read within {seconds} s", {"seconds": int(STUCK_S)})
_NO_ROOM = Detail("The box has no room on its disk to prepare images")
_NOT_NOW = Detail("The box cannot prepare images now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Images to prepare, in the order of need.

    Attributes:
        study_id: Their study.
        series_id: Their series; one child works on a series at a time.
        images: Stem and path relative to the spool of each.
        masks: Name and path of each file of masks to make lines of.
        preview: ``stem.frame`` of a picture that is wanted as PNG.
        ahead: Nobody looks yet.
        since_mono: When it was first asked for.
    """

    study_id: int
    series_id: int
    images: tuple[tuple[str, str], ...]
    masks: tuple[tuple[str, str], ...] = ()
    preview: str = ""
    ahead: bool = False
    since_mono: float = 0.0


class Workshop:
    """Fulfils wishes, and remembers what could not be made."""

    def __init__(
        self,
        store: Store,
        tell: Callable[[], None],
        is_stopping: Callable[[], bool],
        *,
        run_child: Callable[..., dict[str, Any]] = run_limited,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        """Work on images of ``store``.

        Args:
            store: Whose spool holds the images and the cache.
            tell: Called from any thread when an image is there, or known not to come.
            is_stopping: Whether children must end.
            run_child: ``engines.child.run_limited``; tests give another.
            room_bytes: What the cache may hold.
        """
        self._store, self._tell, self._is_stopping = store, tell, is_stopping
        self._run_child, self._room_bytes = run_child, room_bytes
        self.cache = Cache(store.spool.root / "display")
        self._faults: dict[tuple[int, str], tuple[Detail, float]] = {}

    def fault(self, study_id: int, stem: str) -> Detail | None:
        """Why an image is not prepared, where that is known."""
        told = self._faults.get((study_id, stem))
        return told[0] if told is not None and time.monotonic() < told[1] else None

    def batch(self, wish: Wish) -> tuple[Wish, tuple[tuple[str, str], ...]]:
        """What of a wish a child gets now, and what remains."""
        shown = wish.preview.rpartition(".")[0]
        drawn = not wish.preview or self.cache.has(wish.study_id, f"{wish.preview}.png")
        missing = [
            image
            for image in wish.images
            if (not self.cache.has(wish.study_id, f"{image[0]}.json") or (image[0] == shown and not drawn))
            and self.fault(wish.study_id, image[0]) is None
        ]
        masks = tuple(one for one in wish.masks if not self.cache.has(wish.study_id, f"{one[0]}.json"))
        if masks and not missing:
            missing = list(wish.images[:1])  # lines are made beside an image
        return replace(wish, images=tuple(missing[:BATCH]), masks=masks), tuple(missing[BATCH:])

    def fulfil(self, wish: Wish) -> tuple[tuple[str, str], ...]:
        """Run children until every image has pixels or a fault; what no child got to, for want of room."""
        left = list(wish.images)
        masks = wish.masks
        while left and not self._is_stopping():
            room = self._room()
            if room is None:
                self._give_up(wish.study_id, left, _NO_ROOM)
                return ()
            run = _Run(self._tell, self._is_stopping)
            try:
                self._run_child(_CHILD, self._request(wish, left, masks, room), LIMITS, run.told, run.is_over)
            except ChildError as error:
                if self._is_stopping():
                    return ()
                log.warning("a child that prepares images ended: %s", error.fault)
                if run.begun is None:
                    self._give_up(wish.study_id, left, _NOT_NOW)
                    return ()
                is_disk = error.fault == "error" and self._room() is None
                text = _NO_ROOM if is_disk else _STUCK if run.is_stuck else _DIED
                # It had ended the image: then it was at the masks.
                guilty = [name for name, _ in masks] if run.begun in run.done else [run.begun]
                for name in guilty:
                    self._blame(wish.study_id, name, text, _SOON_S if is_disk else _AGAIN_S)
                masks = ()
            except OSError as error:
                log.warning("no child that prepares images could be started: %s", error.strerror)
                self._give_up(wish.study_id, left, _NOT_NOW)
                return ()
            else:
                self.cache.shrink(room)
                if self.cache.size() > room * _FULL_SHARE:
                    return ()  # more of it would push out what it began with; what is asked for by name still comes
                return tuple(image for image in left if image[0] not in run.done)
            left = [i for i in left if i[0] not in run.done and self.fault(wish.study_id, i[0]) is None]
        return ()

    def _request(
        self, wish: Wish, images: Iterable[tuple[str, str]], masks: Iterable[tuple[str, str]], room: int
    ) -> dict[str, Any]:
        path = self._store.spool.path
        return {
            "folder": str(self.cache.folder(wish.study_id)),
            "images": [{"stem": stem, "path": str(path(relative))} for stem, relative in images],
            "masks": [{"name": name, "path": str(path(relative))} for name, relative in masks],
            "preview": wish.preview,
            "limit_bytes": room // 2,
            "nice": _NICE_AHEAD if wish.ahead else _NICE,
        }

    def _room(self) -> int | None:
        """What the cache may hold now; None where the disk has nothing to spare. Images come first."""
        spool = self._store.spool
        try:
            free = spool.free_bytes()
        except StoreError:
            return None
        if free < spool.reserve_bytes + _SPARE_BYTES:
            self.cache.shrink(0)
            free = spool.free_bytes()
        if free < spool.reserve_bytes + _SPARE_BYTES:
            return None
        return min(self._room_bytes, int(_ROOM_SHARE * (free + self.cache.size())))

    def _give_up(self, study_id: int, images: Iterable[tuple[str, str]], text: Detail) -> None:
        for stem, _ in images:
            self._blame(study_id, stem, text, _SOON_S)

    def _blame(self, study_id: int, stem: str, text: Detail, for_s: float) -> None:
        if len(self._faults) >= _MOST_FAULTS:
            self._faults.clear()
        self._faults[study_id, stem] = text, time.monotonic() + for_s
        self._tell()


class _Run:
    """What one child has told so far."""

    def __init__(self, tell: Callable[[], None], is_stopping: Callable[[], bool]) -> None:
        self._tell, self._is_stopping = tell, is_stopping
        self.begun: str | None = None
        self.done: set[str] = set()
        self.is_stuck = False
        self._at = time.monotonic()

    def told(self, progress: dict[str, Any]) -> None:
        self._at = time.monotonic()
        if "begin" in progress:
            self.begun = str(progress["begin"])
        if "done" in progress:
            self.done.add(str(progress["done"]))
            self._tell()

    def is_over(self) -> bool:
        self.is_stuck = time.monotonic() - self._at > STUCK_S
        return self.is_stuck or self._is_stopping()
