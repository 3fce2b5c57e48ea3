"""What of the server's repository may be believed: The Update Framework (TUF 1.0.34), by python-tuf's client.

The first root is believed because the release keys of the enrolment have signed it; every later one because the one
before says so. Metadata that have expired, go back, or are signed by others, stop new installs and nothing else: what
runs goes on. Loaded where it is first needed (python-tuf brings its own HTTP library, which is not used).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Timestamp  # type: ignore[attr-defined]  # its __all__ has not all
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # type: ignore[attr-defined]  # the same

from appliance.errors import StoreError, TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.download import Wanted
from appliance.fleet.device.files import Missing, Source, small
from appliance.fleet.device.identity import Identity

log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
_MOST_ROOT, _MOST_TIMESTAMP, _MOST_SNAPSHOT, _MOST_TARGETS = 64 * 1024, 16 * 1024, 512 * 1024, 5_000_000
#: So many roots back from the newest, one that our release keys have signed is looked for.
_MOST_BACK = 64
#: A small file of metadata comes within this, or the line is none.
_WITHIN_S = 120.0
_HISTORY = "root_history"


@dataclass(frozen=True, slots=True)
class Known:
    """A target as verified metadata describe it.

    Attributes:
        wanted: Its file.
        custom: What our server says of it (``custom.scanside``).
        until: When the word of these metadata ends.
    """

    wanted: Wanted
    custom: Mapping[str, Any]
    until: datetime


class TufTrust:
    """The metadata of one box."""

    def __init__(
        self,
        folder: Path,
        identity: Callable[[], Identity],
        floor: Callable[[], int],
        raise_floor: Callable[[int], None],
    ) -> None:
        """Keep them in ``folder``.

        Args:
            folder: Of python-tuf, all of it.
            identity: Whose release keys count for the first root.
            floor: The version of the newest root that was ever trusted here; 0 before the first.
            raise_floor: Keeps it, elsewhere than in ``folder``.
        """
        self._folder = folder
        self._identity = identity
        self._floor = floor
        self._raise_floor = raise_floor

    def look_up(self, source: Source, target: str) -> Known | None:
        """Bring the metadata up to date from ``source`` and look a target up. None: it has none of that name.

        Raises:
            ActRefused: TUF_EXPIRED, TUF_ROLLED_BACK, TUF_FORGED, TUF_DAMAGED.
            TransientError: The source does not answer.
            StoreError: The disk refuses.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return self._look_up(source, target)
            except UnsignedMetadataError:  # keys changed twice meanwhile: the next root says whose signatures these are
                return self._look_up(source, target)
        except DownloadHTTPError as error:
            raise TransientError(f"no TUF repository there: {error}") from error
        except (DownloadError, RepositoryError, ValueError) as error:  # the last: a signature that is no number
            raise _refusal(error) from error
        except OSError as error:
            raise StoreError(f"{self._folder}: {error.strerror}") from error

    def _look_up(self, source: Source, target: str) -> Known | None:
        config = UpdaterConfig(
            root_max_length=_MOST_ROOT,
            timestamp_max_length=_MOST_TIMESTAMP,
            snapshot_max_length=_MOST_SNAPSHOT,
            targets_max_length=_MOST_TARGETS,
        )
        bootstrap = self._kept_root() or self._first_root(source)
        updater = Updater(str(self._folder), "metadata/", fetcher=_Files(source), config=config, bootstrap=bootstrap)
        updater.refresh()
        root = Metadata[Root].from_file(str(self._folder / "root.json")).signed.version
        if root < self._floor():
            raise ActRefused("TUF_ROLLED_BACK", f"root {root} is older than one that was trusted here")
        if root > self._floor():
            self._raise_floor(root)
        found = updater.get_targetinfo(target)
        if found is None:
            return None
        if "sha256" not in found.hashes:
            raise ActRefused("TUF_FORGED", f"{target} has no SHA-256 in its metadata")
        folder, slash, base = target.rpartition("/")
        # As python-tuf names files where snapshots are consistent; ours always are.
        name = f"targets/{folder}{slash}{next(iter(found.hashes.values()))}.{base}"
        custom = found.unrecognized_fields.get("custom")
        scanside = custom.get("scanside") if isinstance(custom, dict) else None
        return Known(
            wanted=Wanted(name, found.length, found.hashes["sha256"]),
            custom=scanside if isinstance(scanside, dict) else {},
            until=Metadata[Timestamp].from_file(str(self._folder / "timestamp.json")).signed.expires,
        )

    # The first root --------------------------------------------------------------------------------------------

    def _kept_root(self) -> bytes | None:
        """The newest root that was trusted here and is whole."""
        history = self._folder / _HISTORY
        names = [path for path in history.glob("*.root.json") if path.name.split(".")[0].isdecimal()]
        for path in sorted(names, key=lambda one: int(one.name.split(".")[0]), reverse=True):
            try:
                data = path.read_bytes()
                root = Metadata[Root].from_bytes(data)
                root.verify_delegate(Root.type, root)
            except (OSError, RepositoryError, ValueError) as error:
                log.warning("fleet: %s is damaged and left out: %s", path.name, type(error).__name__)
                continue
            return data
        if any(self._folder.iterdir()):
            aside = self._folder.with_name(f"{self._folder.name}.damaged")
            log.error("fleet: no root of %s can be read; all of it is set aside as %s", self._folder, aside.name)
            shutil.rmtree(aside, ignore_errors=True)
            self._folder.rename(aside)
            self._folder.mkdir(mode=0o700)
        return None

    def _first_root(self, source: Source) -> bytes:
        """The newest root that the release keys of our enrolment have signed; the rest of the chain hangs on it."""
        data = small(source, "metadata/root.json", _MOST_ROOT)
        newest = Metadata[Root].from_bytes(data).signed.version
        for version in range(newest, max(0, newest - _MOST_BACK), -1):
            if version != newest:
                try:
                    data = small(source, f"metadata/{version}.root.json", _MOST_ROOT)
                except Missing:
                    break
            root = Metadata[Root].from_bytes(data)
            if isinstance(root.signed, Root) and self._is_ours(root):
                return data
        raise ActRefused("TUF_FORGED", "no root of the server's is signed by the release keys of this box's enrolment")

    def _is_ours(self, root: Metadata[Root]) -> bool:
        identity = self._identity()
        online = {key.raw for key in identity.online}
        signatures = [bytes.fromhex(one.signature) for one in root.signatures.values()]
        held = {key.raw for key in identity.release if _has_signed(key.raw, signatures, root.signed_bytes)}
        return len(held - online) >= identity.trust.release_threshold


class _Files(FetcherInterface):
    """python-tuf's window to a source; it counts the bytes itself."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with self._source.open(url, within_s=_WITHIN_S) as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except Missing as error:
            raise DownloadHTTPError(str(error), 404) from error


def _has_signed(raw: bytes, signatures: list[bytes], data: bytes) -> bool:
    key = Ed25519PublicKey.from_public_bytes(raw)
    for signature in signatures:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            continue
        return True
    return False


def _refusal(error: Exception) -> ActRefused:
    code = "TUF_FORGED"
    for kind, its in (
        (ExpiredMetadataError, "TUF_EXPIRED"),
        (BadVersionNumberError, "TUF_ROLLED_BACK"),
        (DownloadLengthMismatchError, "TUF_DAMAGED"),
    ):
        if isinstance(error, kind):
            code = its
    return ActRefused(code, f"the server's TUF metadata are refused: {error}")
