"""The files of the TUF repository: reading the state that holds, and writing one file for good.

metadata/{N}.root.json, root.json (a copy of the newest), {N}.targets.json, {N}.snapshot.json, timestamp.json
targets/<folder>/<sha256>.<name>
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # its __all__ has not all
    Metadata,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from appliance.errors import ConfigError, NotFoundError, TransientError
from appliance.fleet.device.identity import Trust
from appliance.fleet.server import repository_rules as rules
from appliance.fleet.server.repository_rules import LIFE, TRUST
from engines.durable import sync_folder, write_private
from engines.sealed import locked

METADATA, TARGETS = "metadata", "targets"
TIMESTAMP = "timestamp.json"
_LOCK, _ROOT = "repository.lock", "root.json"
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,3}")
#: What may go one day: lists by number, and what a kill left half written.
_REPLACED = re.compile(r"[1-9][0-9]{0,11}\.(?:targets|snapshot)\.json|.*\.part")
#: Below the repository's folder, of ``models.bring_model``.
INCOMING = "incoming-"
_CHUNK = 1024 * 1024
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class State:
    """What holds: the newest root of the chain, and what the timestamp leads to."""

    root: Root
    targets: Targets
    targets_bytes: bytes
    snapshot: Snapshot
    snapshot_bytes: bytes
    timestamp: Timestamp


def versioned(version: int, role: str) -> str:
    """The name of a role's file."""
    return f"{version}.{role}.json"


def missing() -> NotFoundError:
    """There is no repository."""
    return NotFoundError("there is no repository of models yet; make it with 'scanside-fleet model init --key FILE'")


class RepositoryFiles:
    """The folder of one repository."""

    def __init__(self, folder: Path, wait_s: float) -> None:
        """Nothing is opened or made; who else changes it is waited for ``wait_s``."""
        self.folder = folder
        self.metadata = folder / METADATA
        self._wait_s = wait_s

    def make(self) -> None:
        """Make the folders."""
        for part in (self.metadata, self.folder / TARGETS):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)

    def exists(self) -> bool:
        """Whether a first root is there; it is written after all that it needs."""
        return (self.metadata / versioned(1, Root.type)).exists()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one that changes it.

        Raises:
            TransientError: Another one is at it.
        """
        if not self.folder.is_dir():
            raise missing()
        with locked(self.folder / _LOCK, wait_s=self._wait_s) as held:
            if held is None:
                raise TransientError(f"{self.folder}: another command changes it; try again in a minute")
            yield

    # Reading ---------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What holds now.

        Raises:
            NotFoundError: There is no repository.
            ConfigError: A file is missing or damaged.
        """
        if not self.exists():
            raise missing()
        number = 1
        while (self.metadata / versioned(number + 1, Root.type)).exists():
            number += 1
        root, _ = self._load(versioned(number, Root.type), Root)
        timestamp, _ = self._load(TIMESTAMP, Timestamp)
        name = versioned(timestamp.snapshot_meta.version, Snapshot.type)
        snapshot, snapshot_bytes = self._load(name, Snapshot)
        name = versioned(snapshot.meta["targets.json"].version, Targets.type)
        targets, targets_bytes = self._load(name, Targets)
        return State(root, targets, targets_bytes, snapshot, snapshot_bytes, timestamp)

    def _load(self, name: str, kind: type[S]) -> tuple[S, bytes]:
        path = self.metadata / name
        try:
            data = path.read_bytes()
            signed: Signed = Metadata[Any].from_bytes(data).signed
        except (OSError, DeserializationError, RepositoryError) as error:
            raise ConfigError(f"{path} is missing or damaged; put the folder back from a backup") from error
        if not isinstance(signed, kind):
            raise ConfigError(f"{path} is of the role {signed.type}; put the folder back from a backup")
        return signed, data

    def trust(self, state: State) -> Trust:
        """What the target ``trust.json`` says.

        Raises:
            ConfigError: It is missing or damaged.
        """
        path = self.blob(state.targets.targets[TRUST])
        try:
            return Trust.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is missing or damaged; call 'scanside-fleet key publish --key FILE'") from error

    def blob(self, target: TargetFile) -> Path:
        """Where the bytes of a target lie."""
        return self.folder / TARGETS / target.get_prefixed_paths()[0]

    # Writing ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def write(path: Path, data: bytes) -> None:
        """The one step in which something becomes true."""
        write_private(path, data)

    def put_trust(self, trust: Trust) -> TargetFile:
        """Bring ``trust.json`` in; nobody sees it yet."""
        data = trust.model_dump_json(indent=1).encode()
        target = rules.bytes_target(TRUST, data)
        if not self.blob(target).exists():
            self.write(self.blob(target), data)
        return target

    def put(self, source: Path, path: str) -> tuple[str, int]:
        """Bring a file in under the hash of its bytes; its SHA-256 and size.

        Raises:
            ConfigError: It cannot be read or kept, or ``path`` is no path of a target.
        """
        if not _PATH.fullmatch(path):
            raise ConfigError(f"{path!r} is no path of a target: letters, digits and . _ -, at most four levels")
        folder, name = (self.folder / TARGETS / path).parent, path.rpartition("/")[2]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for each in (folder.parent.parent, folder.parent):
                sync_folder(each)
            sha256, size, part = _copy(source, folder)
            try:
                part.replace(folder / f"{sha256}.{name}")
            finally:
                part.unlink(missing_ok=True)
            sync_folder(folder)
        except OSError as error:
            raise ConfigError(f"{source} cannot be kept in {folder}: {error.strerror}; free space there") from error
        return sha256, size

    def copy_root(self, root: Root) -> None:
        """For boxes without metadata. Killed before it, the one before is there, from which the chain leads on."""
        newest, copy = self.metadata / versioned(root.version, Root.type), self.metadata / _ROOT
        data = newest.read_bytes()
        if not copy.exists() or copy.read_bytes() != data:
            self.write(copy, data)

    # What was replaced -----------------------------------------------------------------------------------------------

    def replaced(self, state: State, blobs: Sequence[Path]) -> None:
        """Let the week of what was replaced begin now."""
        names = (versioned(state.targets.version, Targets.type), versioned(state.snapshot.version, Snapshot.type))
        for path in (*(self.metadata / name for name in names), *blobs):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def tidy(self, now: datetime) -> None:
        """Remove what nothing names, a week after it was replaced; roots stay for ever."""
        state = self.state()
        keep = {versioned(state.targets.version, Targets.type), versioned(state.snapshot.version, Snapshot.type)}
        names = {path.name: path for path in self.metadata.iterdir()}
        old = [path for name, path in names.items() if _REPLACED.fullmatch(name) and name not in keep]
        listed = {self.blob(one) for one in state.targets.targets.values()}
        old += [path for path in (self.folder / TARGETS).rglob("*") if path.is_file() and path not in listed]
        before = (now - LIFE[Timestamp.type]).timestamp()
        for path in old:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
        for path in self.folder.glob(f"{INCOMING}*"):
            if path.stat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, folder: Path) -> tuple[str, int, Path]:
    """A copy on disk for good: its SHA-256, its size, and where it is."""
    digest, size = hashlib.sha256(), 0
    handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as target, source.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            target.flush()
            os.fsync(target.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return digest.hexdigest(), size, Path(name)
