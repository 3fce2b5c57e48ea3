"""The files of the cache of pixels for screens: derived from images, bounded, and never longer here than they are.

``display/<study id>/`` in the spool, named by the random names of the image files, which are never used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.records import Detail

UNREADABLE = Detail("the image file cannot be read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What is sent of one frame."""

    meta: dict[str, Any]
    #: Columns and rows of ``data``.
    size: tuple[int, int]
    data: bytes


class Cache:
    """A folder for each study; in it ``<stem>.json`` beside ``<stem>.<frame>.px``, ``.full`` and ``.png``."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; made with the first image."""
        self.root = root

    def folder(self, study_id: int) -> Path:
        """Where everything of a study lies."""
        return self.root / str(study_id)

    def has(self, study_id: int, name: str) -> bool:
        """Whether ``<stem>.json`` or another file is there, whole."""
        return (self.folder(study_id) / name).exists()

    def document(self, study_id: int, stem: str) -> dict[str, Any] | None:
        """What was said of an image, or of masks; None where it is not (or no longer) prepared."""
        path = self.folder(study_id) / f"{stem}.json"
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            document = None
        if not isinstance(document, dict):
            path.unlink(missing_ok=True)
            return None
        return document

    def pixels(self, study_id: int, stem: str, frame: int, *, whole: bool) -> Pixels | Detail | None:
        """A frame; why it cannot be shown; or None where it must be prepared (again)."""
        document = self.document(study_id, stem)
        if document is None:
            return None
        if "fault" in document:
            faults = [Detail(str(one["text"]), one["values"]) for one in document["fault"]]
            return faults[0] if faults else UNREADABLE
        frames = document["frames"]
        if not 1 <= frame <= len(frames):
            return Detail("The object has no frame {number}", {"number": frame})
        meta = frames[frame - 1]
        original = [meta["cols"], meta["rows"]]
        whole = whole and meta["size"] != original
        columns, rows = original if whole else meta["size"]
        path = self.folder(study_id) / f"{stem}.{frame}.{'full' if whole else 'px'}"
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            data = b""
        if len(data) != columns * rows * (3 if meta["type"] == "rgb" else 2):
            # After a power cut a file may be shorter than its document says.
            (self.folder(study_id) / f"{stem}.json").unlink(missing_ok=True)
            return None
        return Pixels(meta=meta, size=(columns, rows), data=data)

    def remove(self, study_id: int) -> None:
        """Nothing of a study stays."""
        shutil.rmtree(self.folder(study_id), ignore_errors=True)

    def studies(self) -> list[int]:
        """The studies of which something is here."""
        try:
            return [int(entry.name) for entry in os.scandir(self.root) if entry.name.isdigit()]
        except FileNotFoundError:
            return []

    def tidy(self) -> None:
        """Remove what a killed child had half written."""
        for part in self.root.glob("*/*.part"):
            part.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes of everything."""
        return sum(size for _, size, _ in self._groups())

    def shrink(self, room: int) -> None:
        """Remove the images that were used longest ago until the rest has room."""
        groups = sorted(self._groups(), key=lambda group: group[0])
        total = sum(size for _, size, _ in groups)
        for _, size, paths in groups:
            if total <= room:
                break
            # The document first: without it nobody looks for the rest.
            for path in sorted(paths, key=lambda path: path.suffix != ".json"):
                path.unlink(missing_ok=True)
            total -= size

    def _groups(self) -> list[tuple[float, int, list[Path]]]:
        """(last use, bytes, files) of each image."""
        groups: dict[tuple[int, str], tuple[float, int, list[Path]]] = {}
        for study_id in self.studies():
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(self.folder(study_id)):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat()
                        key = study_id, entry.name.partition(".")[0]
                        used, size, paths = groups.get(key, (0.0, 0, []))
                        groups[key] = max(used, stat.st_mtime), size + stat.st_size, [*paths, Path(entry.path)]
        return list(groups.values())
