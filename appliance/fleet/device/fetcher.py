"""Where the packages of a box come from: a stick first, then the server; described by TUF, kept under their hashes."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from appliance import __version__
from appliance.clock import Clock
from appliance.errors import ConfigError, StoreError, TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.download import Download, Pace, Wanted, disk_free
from appliance.fleet.device.enrolment import Server
from appliance.fleet.device.files import FolderSource, HttpsSource, Missing, Source, small
from appliance.fleet.device.identity import Identity
from appliance.fleet.device.stick_files import STICK, drop_stick
from appliance.fleet.keys import KeyFault
from appliance.store import Store
from engines.durable import write_private

if TYPE_CHECKING:
    from appliance.fleet.device.tuf_trust import Known, TufTrust

log = logging.getLogger(__name__)
T = TypeVar("T")

_METADATA, _DOWNLOADS, _NOTE = "tuf", "downloads", "note.json"
#: Mark: the newest root that was ever trusted here, in the database, where no damaged folder takes it along.
_FLOOR = "tuf.root"
_MOST_SMALL = 64 * 1024
_TIDY_S = 3600.0
#: Its timestamp has ended (a week from its signing at most): it proves nothing new any more.
_STICK_S = 8 * 86_400.0
_AGENT = re.compile(r"(\d{1,8})(?:\.(\d{1,8}))?(?:\.(\d{1,8}))?")


class _Note(BaseModel):
    """What lies in a folder: the file for this target, and until when the word of its metadata holds (seconds)."""

    target: str
    digest: str
    length: int
    until: float


@dataclass
class TufFetcher:
    """``Fetcher`` of an enrolled box; called by the stage of slow jobs alone.

    Attributes:
        store: The box's; keeps the newest root's version.
        clock: Its clock.
        folder: Of its identity.
        identity: Who it is, as its files say now.
        bytes_per_s: How fast it may go, as the desired document says now.
        wanted: Targets that jobs which have not ended name; what was brought for others is removed.
        proxy_url: An HTTP proxy on the way.
        wait: Waits so many seconds; True where the box ends.
        free: How many bytes a disk has left.
        stall_s: Silence that ends a line.
    """

    store: Store
    clock: Clock
    folder: Path
    identity: Callable[[], Identity]
    bytes_per_s: Callable[[], int]
    wanted: Callable[[], Collection[str]]
    proxy_url: str | None = None
    wait: Callable[[float], bool] = field(default_factory=lambda: threading.Event().wait)
    free: Callable[[Path], int] = disk_free
    stall_s: float = 30.0
    _tidy_at: float = field(default=0.0, init=False)

    def fetch(self, target: str, digest: str, told: Callable[[float], None]) -> Path:
        """See ``Fetcher``. What was verified stays so as long as the word of its metadata."""
        try:
            self._tidy()
            here = self._here(target, digest)
            if here is not None:
                return here
            known = self._look_up(target)
            _check_custom(target, known, digest)
            folder = self.folder / _DOWNLOADS / known.wanted.sha256
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            note = _Note(target=target, digest=digest, length=known.wanted.length, until=known.until.timestamp())
            write_private(folder / _NOTE, note.model_dump_json().encode())
        except OSError as error:
            raise StoreError(f"{self.folder / _DOWNLOADS}: {error.strerror}") from error
        download = Download(folder, known.wanted, self.free)
        if download.is_here():
            return download.whole
        return self._first(lambda source: download.bring(source, Pace(self.clock, self.bytes_per_s, self.wait), told))

    def small(self, target: str) -> bytes:
        """See ``Fetcher``. Of the newest metadata: a stick that lies here knows nothing of keys that changed since."""
        known = self._look_up(target, newest=True)
        wanted = known.wanted
        if wanted.length > _MOST_SMALL:
            raise ActRefused("TUF_DAMAGED", f"{target} is larger than {_MOST_SMALL} bytes")

        def ask(source: Source) -> bytes:
            data = small(source, wanted.name, wanted.length)
            if not wanted.is_this(data):
                raise ActRefused("TUF_DAMAGED", f"{target} is another file than its metadata say")
            return data

        return self._first(ask)

    def done(self, target: str) -> None:
        """See ``Fetcher``. The stick that brought it goes when nobody waits for anything more."""
        for folder, note in self._notes():
            if note is not None and note.target == target:
                shutil.rmtree(folder, ignore_errors=True)
        parent, _, base = target.rpartition("/")
        has_served = any((self.folder / STICK / "targets" / parent).glob(f"*.{base}"))  # else it came just now
        if has_served and not set(self.wanted()) - {target}:
            drop_stick(self.folder)

    def tidy(self) -> None:
        """See ``Fetcher``. A job that was taken back leaves its part, and a stick without one stays, until then."""
        now = self.clock.monotonic()
        if now < self._tidy_at:
            return
        self._tidy_at = now + _TIDY_S
        with contextlib.suppress(OSError):
            self._tidy()
            if self.clock.now().timestamp() - (self.folder / STICK).stat().st_mtime > _STICK_S:
                drop_stick(self.folder)

    # Sources ---------------------------------------------------------------------------------------------------

    def _sources(self) -> list[Source]:
        try:
            identity = self.identity()
        except (ConfigError, KeyFault) as error:
            raise TransientError(f"this box does not know its server: {error}") from error
        server = Server(identity.enrolment.server_url, identity.ca_path, self.proxy_url)
        far = HttpsSource(server, self.clock, self.stall_s)
        stick = self.folder / STICK
        return [FolderSource(stick), far] if stick.is_dir() else [far]

    def _first(self, ask: Callable[[Source], T], *, newest: bool = False) -> T:
        """The first answer that holds: a stick's before the server's, unless it has to be the newest.

        A stick's refusal counts where the server does not answer.
        """
        *near, last = self._sources()
        refused: ActRefused | None = None
        if newest and near:
            try:
                return ask(last)
            except TransientError as error:
                log.info("fleet: %s; what a stick brought counts", error)
        for source in near:
            try:
                return ask(source)
            except TransientError as error:  # it lacks something, or was taken away meanwhile
                log.info("fleet: %s", error)
            except ActRefused as error:
                log.warning("fleet: what the stick brought is refused: %s", error)
                refused = error
        try:
            return ask(last)
        except TransientError:
            if refused is not None:
                raise refused from None
            raise

    def _look_up(self, target: str, *, newest: bool = False) -> Known:
        trust = self._trust()

        def ask(source: Source) -> Known:
            known = trust.look_up(source, target)
            if known is None and not source.is_far:
                raise Missing(f"the stick does not know {target}")
            if known is None:
                raise ActRefused("TUF_UNKNOWN_TARGET", f"the server's repository has no {target}")
            return known

        return self._first(ask, newest=newest)

    def _trust(self) -> TufTrust:
        from appliance.fleet.device.tuf_trust import TufTrust

        rows = self.store.fleet
        return TufTrust(
            self.folder / _METADATA,
            self.identity,
            lambda: int(rows.state(_FLOOR, "0")),
            lambda version: rows.set_state(_FLOOR, str(version)),
        )

    # What is here ----------------------------------------------------------------------------------------------

    def _here(self, target: str, digest: str) -> Path | None:
        for folder, note in self._notes():
            if note is None or (note.target, note.digest) != (target, digest):
                continue
            found = Download(folder, Wanted("", note.length, folder.name))
            if self.clock.now().timestamp() < note.until and found.is_here():
                return found.whole
        return None

    def _tidy(self) -> None:
        """Remove what no open job names."""
        wanted = set(self.wanted())
        for folder, note in self._notes():
            if note is None or note.target not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _notes(self) -> list[tuple[Path, _Note | None]]:
        """Each folder of a download, with what was noted of it; None where that cannot be read."""
        top = self.folder / _DOWNLOADS
        return [(folder, _note(folder)) for folder in sorted(top.iterdir())] if top.is_dir() else []


def _note(folder: Path) -> _Note | None:
    try:
        return _Note.model_validate_json((folder / _NOTE).read_bytes())
    except (OSError, ValidationError):
        return None


def _check_custom(target: str, known: Known, digest: str) -> None:
    """Refuse what the job does not mean, and what this software is too old for."""
    told = known.custom
    if told.get("digest") != digest:
        raise ActRefused("DIGEST", f"{target} holds another package than the job names")
    least = str(told.get("min_agent", "") or "0")
    found = _AGENT.match(least)
    if found is None or _numbers(found) > _numbers(_AGENT.match(__version__)):
        raise ActRefused("AGENT_TOO_OLD", f"{target} needs version {least[:32]!r} of this software")


def _numbers(found: re.Match[str] | None) -> tuple[int, ...]:
    return tuple(int(one or 0) for one in found.groups()) if found else ()
