"""Pixels for screens: made by limited children into a cache in the spool, served from there, gone with the images.

Two children at most. A viewer's wish comes before what is prepared ahead of one, and the newest viewer's first. A child
that dies costs the image that it had begun, which is then told in words; the others go on in a new child.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.records import Detail
from appliance.screen.display_cache import Cache
from appliance.stage import Beat, Stage, run_stage
from appliance.store import Store
from appliance.store.facts import Kind
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
_CHILDREN = 2
#: One child prepares so many images, then others have their turn.
BATCH = 200
#: A child that has been at one image for so long is taken for stuck.
STUCK_S = 30.0
#: A viewer that asked so long ago has probably gone: the rest of its series waits until somebody asks again.
_ATTENTION_S = 60.0
#: No wish waits longer than this behind newer ones.
_PATIENCE_S = 10.0
#: How long a fault that may have been the machine's is told before it is tried again.
_AGAIN_S = 600.0
_SOON_S = 30.0
_MOST_FAULTS = 5000
_NICE, _NICE_AHEAD = 5, 15
_POLL_S = 0.5
_WATCHED = (Kind.ALERT_RAISED, Kind.ALERT_UPDATED, Kind.IMAGES_REMOVED)

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


class _Slot:
    """One child at a time."""

    max_step_s = LIMITS.wall_s + 30.0

    def __init__(self, display: Display, number: int) -> None:
        self.name = f"pictures {number}"
        self._display = display
        self._takes_ahead = number == 0

    def step(self) -> bool:
        self._display.work(takes_ahead=self._takes_ahead)
        return True


class _Watch:
    """The journal's reader: prepares what an alert points at, and removes what retention took."""

    name = "pictures"
    max_step_s = 30.0

    def __init__(self, display: Display, store: Store, plan: Callable[[int], Iterable[Wish]]) -> None:
        self._display, self._store, self._plan = display, store, plan
        self._seq = store.journal.last_seq()
        self._commits = 0
        self._is_new = True

    def step(self) -> bool:
        if self._is_new:
            cache = self._display.cache
            cache.tidy()
            studies = cache.studies()
            for study_id in set(studies) - self._store.images.kept(studies):
                cache.remove(study_id)
            self._is_new = False
        self._commits = self._store.db.wait_commit(self._commits, _POLL_S)
        for fact in self._store.journal.after(self._seq, 100, _WATCHED):
            self._seq = fact.seq
            if fact.study_id is None:
                continue
            if fact.kind == Kind.IMAGES_REMOVED:
                self._display.forget(fact.study_id)
            else:
                for wish in self._plan(fact.study_id):
                    self._display.want(replace(wish, ahead=True))
        return True


class Display:
    """The queue of wishes, and who waits for them."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        plan: Callable[[int], Iterable[Wish]],
        *,
        run_child: Callable[..., dict[str, Any]] = run_limited,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        """Prepare images of ``store``.

        Args:
            store: Whose spool holds the images and the cache.
            clock: For the threads' beats.
            plan: What to prepare of a study for which an alert was raised.
            run_child: ``engines.child.run_limited``; tests give another.
            room_bytes: What the cache may hold.
        """
        self._store = store
        self._clock = clock
        self._run_child = run_child
        self._room_bytes = room_bytes
        self.cache = Cache(store.spool.root / "display")
        self._watch = _Watch(self, store, plan)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._wishes: list[Wish] = []
        #: Series that a child is at, with the stems that it was given.
        self._busy: dict[int, frozenset[str]] = {}
        self._asked: dict[int, float] = {}
        self._faults: dict[tuple[int, str], tuple[Detail, float]] = {}
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    # Its life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; called in the event loop that will wait."""
        self._loop = asyncio.get_running_loop()
        stages: list[Stage] = [*(_Slot(self, number) for number in range(_CHILDREN)), self._watch]
        for stage in stages:
            arguments = (stage, Beat(stage, self._clock), self._stop, threading.Event())
            thread = threading.Thread(target=run_stage, args=arguments, name=stage.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the children and wake who waits; called in the event loop."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._wake()

    def join(self) -> None:
        """Wait for the threads: after this nothing reads the store any more."""
        for thread in self._threads:
            thread.join(5.0)

    # Asking ----------------------------------------------------------------------------------------------------

    def want(self, wish: Wish) -> None:
        """Have images prepared. A later wish for the same series goes before, and replaces what it also names."""
        if not wish.images:
            return
        now = time.monotonic()
        with self._changed:
            if not wish.ahead:
                self._asked[wish.series_id] = now
            named = {stem for stem, _ in wish.images}
            kept = []
            for one in self._wishes:
                is_same = one.series_id == wish.series_id and one.ahead == wish.ahead and one.preview == wish.preview
                rest = tuple(image for image in one.images if image[0] not in named) if is_same else one.images
                if rest:
                    kept.append(replace(one, images=rest))
            self._wishes = [*kept, replace(wish, since_mono=now)]
            self._changed.notify_all()

    def is_coming(self, series_id: int, stem: str) -> bool:
        """Whether a child has been given this image, or a viewer's wish names it first."""
        with self._changed:
            self._asked[series_id] = time.monotonic()
            if stem in self._busy.get(series_id, ()):
                return True
            return any(w.series_id == series_id and not w.ahead and w.images[0][0] == stem for w in self._wishes)

    def fault(self, study_id: int, stem: str) -> Detail | None:
        """Why an image is not prepared, where that is known."""
        told = self._faults.get((study_id, stem))
        return told[0] if told is not None and time.monotonic() < told[1] else None

    async def until(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is true that images or faults make true."""
        deadline = time.monotonic() + timeout_s
        while not is_true():
            left = deadline - time.monotonic()
            if left <= 0 or self._stop.is_set():
                return False
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                # Looked at once more now and then: the file may have come between the look and the waiting.
                await asyncio.wait_for(waiter, min(left, _POLL_S))
            except asyncio.TimeoutError:
                pass
            finally:
                self._waiters.discard(waiter)
        return True

    def forget(self, study_id: int) -> None:
        """The images of a study are gone: so is everything that was made of them."""
        with self._changed:
            self._wishes = [wish for wish in self._wishes if wish.study_id != study_id]
        self.cache.remove(study_id)

    # Working ---------------------------------------------------------------------------------------------------

    def work(self, *, takes_ahead: bool) -> None:
        """Take the next wish, if one comes soon, and have a child fulfil it."""
        with self._changed:
            wish = self._next(takes_ahead=takes_ahead)
            if wish is None:
                self._changed.wait(_POLL_S)
                wish = self._next(takes_ahead=takes_ahead)
            if wish is None or self._stop.is_set():
                return
            self._wishes.remove(wish)
            batch, rest = self._batch(wish)
            self._busy[wish.series_id] = frozenset(stem for stem, _ in batch.images)
        try:
            rest += self._fulfil(batch) if batch.images else ()
        finally:
            with self._changed:
                del self._busy[wish.series_id]
                looked = time.monotonic() - self._asked.get(wish.series_id, 0.0) < _ATTENTION_S
                if rest and looked and not self._stop.is_set():
                    self._wishes.insert(0, replace(wish, images=rest, preview="", masks=()))
                self._changed.notify_all()
        if not self._store.images.kept([wish.study_id]):
            self.forget(wish.study_id)
        self.tell()

    def _next(self, *, takes_ahead: bool) -> Wish | None:
        free = [wish for wish in self._wishes if wish.series_id not in self._busy]
        looked = [wish for wish in free if not wish.ahead]
        if looked:
            oldest = min(looked, key=lambda wish: wish.since_mono)
            return oldest if time.monotonic() - oldest.since_mono > _PATIENCE_S else looked[-1]
        return free[0] if free and takes_ahead else None

    def _batch(self, wish: Wish) -> tuple[Wish, tuple[tuple[str, str], ...]]:
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

    def _fulfil(self, wish: Wish) -> tuple[tuple[str, str], ...]:
        """Run children until every image has pixels or a fault; what no child got to, for want of room."""
        left = list(wish.images)
        masks = wish.masks
        while left and not self._stop.is_set():
            room = self._room()
            if room is None:
                self._give_up(wish.study_id, left, _NO_ROOM)
                return ()
            run = _Run(self, wish.study_id)
            try:
                self._run_child(_CHILD, self._request(wish, left, masks, room), LIMITS, run.told, run.is_over)
            except ChildError as error:
                if self._stop.is_set():
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
        self.tell()

    @property
    def is_stopping(self) -> bool:
        """Whether children must end."""
        return self._stop.is_set()

    def tell(self) -> None:
        """Wake who waits; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Run:
    """What one child has told so far."""

    def __init__(self, display: Display, study_id: int) -> None:
        self._display = display
        self._study_id = study_id
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
            self._display.tell()

    def is_over(self) -> bool:
        self.is_stuck = time.monotonic() - self._at > STUCK_S
        return self.is_stuck or self._display.is_stopping
