"""What leaves the box when its time is over (DESIGN §5): the store decides, here files are removed."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

from appliance.clock import Clock
from appliance.config import Config
from appliance.dicom.headers import pixel_sha256
from appliance.errors import RejectedInstance
from appliance.store import Store
from appliance.store.destinations import gone_committing, tell_gone
from appliance.store.spool import PICTURES, RESULTS

#: After the start scanners and the AI have other work for the disk.
_FIRST_S = 600.0
_EVERY_S = 600.0
_SWEEP_EVERY_S = 24 * 3600.0
#: A file is young while what names it may still be on its way into the database.
_YOUNG = timedelta(days=1)
#: Pictures are looked at in so many sweeps, by the analyses of these days.
_PICTURE_DAYS = timedelta(days=8)
#: Instead of the digest of a file that can no longer be read: equal to none.
_UNREADABLE = "unreadable"
_FOLDERS = [f"{number:02x}" for number in range(256)]


class RetentionStage:
    """Removes the images of one study, or the results of some analyses, in each step; once a day what nothing names."""

    name = "retention"
    #: The pixels of a study are read once more before they go.
    max_step_s = 900.0

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        """Look after ``store``."""
        self._store = store
        self._settings = config.retention
        self._configured = [one.name for one in config.destinations]
        self._committing = (
            *(one.name for one in config.commitment_destinations),
            *gone_committing(store.db, self._configured),
        )
        self._clock = clock
        self._next_look = clock.monotonic() + _FIRST_S
        self._next_sweep = clock.monotonic() + 6 * _FIRST_S

    def step(self) -> bool:
        """Do one piece of what is due."""
        now = self._clock.monotonic()
        if now < self._next_look:
            return False
        if self._remove_images() or self._remove_results():
            return True
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EVERY_S
            self._sweep()
        # A correction of what one got that is gone since is owed to it, and keeps the images here.
        tell_gone(self._store.db, self._configured)
        self._next_look = now + _EVERY_S
        return False

    def _remove_images(self) -> bool:
        retention, spool = self._store.retention, self._store.spool
        before = retention.before(timedelta(hours=self._settings.images_h))
        for study_id in retention.studies_due(before, self._committing):
            files = retention.image_files(study_id)
            digests = {one.version_id: _pixels(spool.path(one.path)) for one in files}
            # The row goes first: a file without a row would be taken for a new image, a row without a file for a loss.
            for path in retention.remove_images(study_id, before, self._committing, digests):
                spool.remove(path)
            return True
        return False

    def _remove_results(self) -> bool:
        retention, spool = self._store.retention, self._store.spool
        before = retention.before(timedelta(days=self._settings.results_days))
        due = retention.results_due(before, self._committing)
        for analysis_id in due:
            # The file goes first: nothing is owed of it, and a row without a file is not missed.
            files = retention.result_files(analysis_id)
            for path in files:
                spool.remove(path)
            retention.results_removed(analysis_id, len(files))
        return bool(due)

    def _sweep(self) -> None:
        """Remove what no row names: a report built anew leaves its old file, a killed analysis its pictures."""
        retention = self._store.retention
        made_at = self._store.db.made_at
        youngest, oldest = retention.before(_YOUNG), self._clock.now() - _PICTURE_DAYS
        pictures = retention.named_pictures(oldest - _YOUNG)
        count = size = 0
        for folder in _FOLDERS:
            results = retention.named_results(f"{RESULTS}/{folder}")
            for kind, named, since in ((RESULTS, results, made_at), (PICTURES, pictures, max(made_at, oldest))):
                for relative, at, taken in _files(self._store.spool.root, f"{kind}/{folder}"):
                    # What is older than the database was named by the one before it, which may be of use to a person.
                    if relative not in named and since <= at < youngest:
                        self._store.spool.remove(relative)
                        count += 1
                        size += taken
        if count:
            retention.leftovers_removed(count, size)


def _files(root: Path, folder: str) -> list[tuple[str, datetime, int]]:
    """Path relative to the spool, last change and size of each file of a folder."""
    found = []
    for path in (root / folder).iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            changed_at = datetime.fromtimestamp(stat.st_mtime, tz=timezone.utc)
            found.append((f"{folder}/{path.name}", changed_at, stat.st_size))
    return found


def _pixels(path: Path) -> str:
    try:
        return pixel_sha256(path)
    except (OSError, RejectedInstance):
        return _UNREADABLE
