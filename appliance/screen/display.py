"""Pixels for screens: made by limited children into a cache in the spool, served from there, gone with the images.

Two children at most. A viewer's wish comes before what is prepared ahead of one, and the newest viewer's first.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from appliance.clock import Clock
from appliance.records import Detail
from appliance.screen.display_work import LIMITS, ROOM_BYTES, Wish, Workshop
from appliance.stage import Beat, Stage, run_stage
from appliance.store import Store
from appliance.store.facts import Kind
from engines.child import run_limited

_CHILDREN = 2
#: A viewer that asked so long ago has probably gone: the rest of its series waits until somebody asks again.
_ATTENTION_S = 60.0
#: No wish waits longer than this behind newer ones.
_PATIENCE_S = 10.0
_POLL_S = 0.5
_WATCHED = (Kind.ALERT_RAISED, Kind.ALERT_UPDATED, Kind.IMAGES_REMOVED)


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
        self._stop = threading.Event()
        self._work = Workshop(store, self.tell, self._stop.is_set, run_child=run_child, room_bytes=room_bytes)
        self.cache = self._work.cache
        self._watch = _Watch(self, store, plan)
        self._changed = threading.Condition()
        self._wishes: list[Wish] = []
        #: Series that a child is at, with the stems that it was given.
        self._busy: dict[int, frozenset[str]] = {}
        self._asked: dict[int, float] = {}
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
        return self._work.fault(study_id, stem)

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
            batch, rest = self._work.batch(wish)
            self._busy[wish.series_id] = frozenset(stem for stem, _ in batch.images)
        try:
            rest += self._work.fulfil(batch) if batch.images else ()
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

    def tell(self) -> None:
        """Wake who waits; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
