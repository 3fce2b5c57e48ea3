"""A package as one file: a plain zip archive. Unpacking foreign ones has hard limits and leaves all or nothing.

Members are stored, not deflated (weights hardly shrink), with sorted names and one date, so that the same package
makes the same bytes. Deflated archives of others are read too, within the limits below.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from engines.contents import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    name_faults,
    read_file,
    walk,
)
from engines.durable import sync_folder
from engines.errors import PackageError

#: An honest package shrinks to a tenth at best; beyond this it is a bomb. Small ones may be all zeros.
MAX_RATIO = 100
_SMALL_BYTES = 1024 * 1024
_MAX_DIRECTORY_BYTES = 256 * 1024
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1024 * 1024
_END = struct.Struct("<4sHHHHIIH")
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_PLAIN_FLAGS = 0x0006 | 0x0008 | 0x0800  # deflate's effort, sizes behind the data, UTF-8 names


def pack(folder: Path, target: Path) -> Path:
    """Write a package's folder, its signature with it, as one archive; the same bytes every time.

    Raises:
        PackageError: The folder holds what no package may hold, or the target cannot be written.
    """
    names = walk(folder)
    if MANIFEST_NAME not in names:
        raise PackageError(f"{folder}: {MANIFEST_NAME} is missing; this is no package")
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with fresh.open("xb") as plain:
            with zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as archive:
                for name in names:
                    member = zipfile.ZipInfo(name, _DATE)
                    member.external_attr = (stat.S_IFREG | 0o644) << 16
                    archive.writestr(member, read_file(folder / name))
            plain.flush()
            os.fsync(plain.fileno())
        fresh.replace(target)
    except OSError as error:
        raise PackageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return target


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a package's archive into a folder that does not exist yet: whole and on disk for good, or not at all.

    Args:
        archive: Foreign bytes.
        into: Is made; its parent exists.

    Raises:
        PackageError: It is no zip archive, holds what no package may hold, or is over a limit; ``into`` is not there.
    """
    if into.exists():
        raise PackageError(f"{into} exists already; nothing is unpacked over it")
    try:
        with archive.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            check_end(source, size)
            with zipfile.ZipFile(source) as opened:
                members = _members(opened, size)
                _unpack_beside(opened, members, into)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, struct.error, ValueError) as error:
        raise PackageError(
            "\n".join(f"{archive}: {line}" for line in str(error).splitlines() or ["damaged"])
        ) from error
    except OSError as error:
        raise PackageError(f"{archive} cannot be unpacked into {into}: {error.strerror}") from error
    return into


def _unpack_beside(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], into: Path) -> None:
    fresh = Path(tempfile.mkdtemp(dir=into.parent, prefix=".unpacking-"))
    try:
        for member in members:
            _extract(opened, member, fresh / member.filename)
        _sync_folders(fresh)
        fresh.chmod(0o755)
        fresh.rename(into)
        sync_folder(into.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_end(
    source: IO[bytes],
    size: int,
    *,
    most_files: int = MAX_FILES,
    most_directory_bytes: int = _MAX_DIRECTORY_BYTES,
) -> None:
    """Look at the end record before the library reads as many names as it claims (APPNOTE 4.3.16).

    Raises:
        ValueError: It is not the plain end of a plain archive.
    """
    if size < _END.size:
        raise ValueError("it is too short")
    source.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
    tail = source.read()
    mark, disk, first_disk, here, count, length, offset, comment = _END.unpack(tail[-_END.size :])
    if mark != _END_SIGNATURE or comment:
        raise ValueError("its end record is not at its end; zip it without a comment")
    if tail.startswith(_ZIP64_LOCATOR) or disk or first_disk or here != count:
        raise ValueError("it is of the kind for huge or split archives; no package needs that")
    if count > 2 * most_files or length > most_directory_bytes:
        raise ValueError(f"{count} entries, at most {most_files} files are read")
    if offset + length + _END.size != size:
        raise ValueError("something lies before or between its parts")


def _members(opened: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The files of an archive of ``size`` bytes, after every check that needs no unpacking.

    Raises:
        ValueError: One line per fault.
    """
    members = [m for m in opened.infolist() if not (m.filename.endswith("/") and m.file_size == 0)]
    names = [m.orig_filename for m in members]
    faults = name_faults(names)
    if len(members) > MAX_FILES:
        faults.append(f"{len(members)} files, at most {MAX_FILES}")
    if MANIFEST_NAME not in names:
        hint = (
            "; zip what is in the folder, not the folder" if any(n.endswith(f"/{MANIFEST_NAME}") for n in names) else ""
        )
        faults.append(f"{MANIFEST_NAME} is missing{hint}")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in {0, stat.S_IFREG}:
            faults.append(f"{member.filename!r}: is a link or a special file; a package has none")
        if member.flag_bits & ~_PLAIN_FLAGS or member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            faults.append(f"{member.filename!r}: is encrypted or packed in a rare way; store or deflate it")
        if member.file_size > MAX_FILE_BYTES:
            faults.append(f"{member.filename!r}: {member.file_size} bytes, at most {MAX_FILE_BYTES}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        faults.append(f"{total} bytes in all, at most {MAX_TOTAL_BYTES}")
    if total > max(_SMALL_BYTES, MAX_RATIO * size):
        faults.append(f"{size} bytes would become {total}; more than {MAX_RATIO} times is a bomb")
    if faults:
        raise ValueError("\n".join(faults))
    return members


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as packed, target.open("xb") as plain:
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            if written > member.file_size:
                raise ValueError(f"{member.filename!r} is larger than it says")
            plain.write(chunk)
        plain.flush()
        os.fsync(plain.fileno())
    if written != member.file_size:
        raise ValueError(f"{member.filename!r} is cut off")


def _sync_folders(top: Path) -> None:
    for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
        sync_folder(folder)
