"""Files that another process may have tampered with: read once, without following links, and checked by a MAC.

The key never leaves the box. Whoever can write the files but not read the key cannot make them pass.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines.durable import sync_folder
from engines.errors import BuildError

KEY_BYTES = 32
_POLL_S = 0.05
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the system says of a link, a folder that is none, or a socket; every other error speaks of the system itself.
_NO_PLAIN_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


def canonical(document: Any) -> bytes:
    """The one way to write a document as JSON.

    Raises:
        ValueError: It holds NaN or infinity.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def mac(key: bytes, purpose: str, content: bytes) -> str:
    """HMAC-SHA256 in hex; ``purpose`` keeps a MAC made for one place from passing in another."""
    made = hmac.new(key, purpose.encode() + b"\n", hashlib.sha256)
    made.update(content)
    return made.hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two MACs without telling how far they agree."""
    return hmac.compare_digest(one.encode(), other.encode())


def read_plain(folder: Path, name: str, limit: int) -> bytes:
    """The bytes of a plain file directly in ``folder``; neither may be a link.

    Raises:
        FileNotFoundError: There is no such file.
        BuildError: Kind ``integrity``: it is no plain file, or larger than ``limit``. Kind ``unreadable``: the system
            cannot read it now.
    """
    path = folder / name
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Not blocking, so that a named pipe in the place of the file does not hold us.
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
        finally:
            os.close(inside)
        with os.fdopen(opened, "rb") as held:
            found = os.fstat(held.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BuildError(f"{path} is no plain file", "integrity")
            if found.st_size > limit:
                raise BuildError(f"{path} has {found.st_size} bytes, expected at most {limit}", "integrity")
            # Not the limit: so much would be set aside at once, and a worker's memory is limited.
            return held.read(found.st_size + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NO_PLAIN_FILE:
            raise BuildError(f"{path} is a link or no plain file: {error.strerror}", "integrity") from error
        raise BuildError(
            f"{path} cannot be read now: {error.strerror}; look after the disk and after what else runs here",
            "unreadable",
        ) from error


def write_durable(path: Path, content: bytes) -> None:
    """Write a new file, readable by us alone, that survives a power cut (its name does once the folder is synced)."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "wb") as held:
        held.write(content)
        held.flush()
        os.fsync(held.fileno())


def replace_durable(path: Path, content: bytes) -> None:
    """Replace a file: after any crash there is the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_durable(beside, content)
    beside.replace(path)
    sync_folder(path.parent)


def own_folder(folder: Path) -> None:
    """Make a folder that is ours alone, or make one so that is ours.

    Raises:
        BuildError: Kind ``integrity``: it is a link, no folder, or another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise BuildError(f"{folder} is a link or another user's; give it to this service's user", "integrity")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def key_of(path: Path) -> bytes:
    """The box's own key; made where there is none.

    Raises:
        BuildError: Kind ``integrity``: the file is no plain file of ours alone.
    """
    if not path.exists() and not path.is_symlink():
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        write_durable(beside, secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another process was faster: its key counts
            os.link(beside, path)
        beside.unlink()
        sync_folder(path.parent)
    key = read_plain(path.parent, path.name, KEY_BYTES)
    found = path.lstat()
    if len(key) != KEY_BYTES or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise BuildError(
            f"{path} is damaged, another user's, or others may read it; remove it, and every engine is built anew",
            "integrity",
        )
    return key


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float | None = None) -> Iterator[int | None]:
    """Hold a lock that the kernel gives back when the process ends, however it ends.

    Args:
        path: The lock's file; never removed, since a second one would be a second lock.
        wait_s: How long to wait; ``None`` waits for ever.

    Yields:
        The open file, or ``None`` where another held the lock for the whole time.
    """
    opened = os.open(path, _LOCK_FILE, 0o600)
    try:
        yield opened if _lock(opened, wait_s) else None
    finally:
        os.close(opened)


def _lock(opened: int, wait_s: float | None) -> bool:
    if wait_s is None:
        fcntl.flock(opened, fcntl.LOCK_EX)
        return True
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)


def is_locked(path: Path) -> bool:
    """Whether another holds the lock now."""
    opened = os.open(path, _LOCK_FILE, 0o600)
    try:
        # Shared, so that two who ask at once do not see each other.
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(opened)
