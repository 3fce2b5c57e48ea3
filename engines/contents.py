"""What may lie in a package's folder, and the exact list of it that a signature covers.

A folder holds plain files with plain ASCII names and known endings, a few levels deep; no links, nothing hidden,
nothing that a computer would run. So two names can never be one file elsewhere, and a listed name never leads out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import PackageError
from engines.signing import parse_strict

MANIFEST_NAME = "model.yaml"
SIGNATURE_NAME = "SIGNATURE.json"
PAYLOAD_TYPE = "application/vnd.scanside.package.v1+json"
SUFFIXES = frozenset({".yaml", ".onnx", ".npz", ".json", ".md", ".txt"})
MAX_FILES = 256
MAX_DEPTH = 3
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
#: Of one file that is read as text.
MAX_TEXT_BYTES = 1024 * 1024
_CHUNK = 1024 * 1024
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """SHA-256 (hex) and size in bytes of one file."""

    sha256: str
    size: int


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Statement(BaseModel):
    """What a package's signature says: this name and version is exactly these files."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
    schema_: int = Field(alias="schema", ge=1, le=1)
    name: str
    version: str
    files: dict[str, _File]


def name_faults(names: Iterable[str]) -> list[str]:
    """What is wrong with the relative names of a package's files, one line each; empty where they will do."""
    names = list(names)
    faults = [f"{name!r}: stands twice" for name, count in Counter(names).items() if count > 1]
    spelled: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            faults.append(f"{name!r}: names are made of letters, digits, '.', '_' and '-', and do not begin with '.'")
            continue
        if len(parts) > MAX_DEPTH:
            faults.append(f"{name}: lies more than {MAX_DEPTH} levels deep")
        if PurePosixPath(name).suffix not in SUFFIXES:
            faults.append(f"{name}: a package holds only {', '.join(sorted(SUFFIXES))} files; take it out")
        if name.lower() == SIGNATURE_NAME.lower() and name != SIGNATURE_NAME:
            faults.append(f"{name}: only the signature is called so, spelled {SIGNATURE_NAME}")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            kind = "file" if depth == len(parts) else "folder"
            other = spelled.setdefault(prefix.lower(), prefix)
            if other != prefix:
                faults.append(f"{name}: differs from {other} only in capitals; rename one")
            elif kinds.setdefault(prefix, kind) != kind:
                faults.append(f"{name}: {prefix} is a file and a folder")
    return faults


def walk(folder: Path) -> tuple[str, ...]:
    """The relative names of all files of a package, the signature too, sorted.

    Raises:
        PackageError: One line for each link, special file, unfit name, and for too many or too large files.
    """
    found: list[str] = []
    faults: list[str] = []
    total = 0
    pending = [(folder, "")]
    try:
        while pending and len(found) <= MAX_FILES:
            where, before = pending.pop()
            with os.scandir(where) as entries:
                for entry in entries:
                    name = before + entry.name
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode) and name.count("/") < MAX_DEPTH:
                        pending.append((Path(entry.path), f"{name}/"))
                    elif not stat.S_ISREG(facts.st_mode):
                        faults.append(f"{name!r}: is no plain file; a package has no links, devices or deep folders")
                    else:
                        found.append(name)
                        total += facts.st_size
                        if facts.st_size > MAX_FILE_BYTES:
                            faults.append(f"{name!r}: {facts.st_size} bytes, at most {MAX_FILE_BYTES}")
                    if len(found) + len(faults) > MAX_FILES:
                        break
    except OSError as error:
        raise PackageError(f"{folder} is no folder that can be read: {error.strerror}") from error
    if len(found) > MAX_FILES:
        raise PackageError(f"{folder}: more than {MAX_FILES} files; this is no package")
    if total > MAX_TOTAL_BYTES:
        faults.append(f"{total} bytes in all, at most {MAX_TOTAL_BYTES}")
    faults += name_faults(found)
    if faults:
        raise PackageError("\n".join(f"{folder}: {line}" for line in faults))
    return tuple(sorted(found))


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of one plain file, never through a link at its end.

    Raises:
        PackageError: It is missing, no plain file, or larger than ``limit`` bytes.
    """
    chunks = []
    with _opened(path, limit) as source:
        while chunk := source.read(_CHUNK):
            chunks.append(chunk)
            limit -= len(chunk)
            if limit < 0:
                raise PackageError(f"{path} grew while it was read")
    return b"".join(chunks)


def file_facts(path: Path, limit: int = MAX_FILE_BYTES) -> FileFacts:
    """Digest one plain file, piece by piece.

    Raises:
        PackageError: As ``read_file``.
    """
    digest, size = hashlib.sha256(), 0
    with _opened(path, limit) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > limit:
                raise PackageError(f"{path} grew while it was read")
    return FileFacts(digest.hexdigest(), size)


def statement(name: str, version: str, files: Mapping[str, FileFacts]) -> bytes:
    """The canonical bytes that a package's signature is over (sorted keys, no spaces, ASCII)."""
    document = {"schema": 1, "name": name, "version": version, "files": {k: asdict(v) for k, v in files.items()}}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_statement(payload: bytes) -> Statement:
    """Read what ``statement`` wrote; any other spelling of the same is refused.

    Raises:
        PackageError: It is not of this form.
    """
    try:
        parsed = Statement.model_validate(parse_strict(payload))
    except (ValueError, ValidationError) as error:
        raise PackageError(f"{SIGNATURE_NAME}: what was signed is no list of files: {error}") from error
    files = {name: FileFacts(one.sha256, one.size) for name, one in parsed.files.items()}
    if statement(parsed.name, parsed.version, files) != payload:
        raise PackageError(f"{SIGNATURE_NAME}: what was signed is not in its one canonical form; sign again")
    return parsed


def coverage_faults(signed: Statement, found: Mapping[str, FileFacts]) -> list[str]:
    """How the files of a folder differ from what was signed, one line each; ``found`` is without the signature."""
    faults = [f"{name}: is missing; it was signed" for name in sorted(signed.files.keys() - found.keys())]
    faults += [
        f"{name}: was not signed; take it out, or sign the package again" for name in found if name not in signed.files
    ]
    for name, facts in found.items():
        listed = signed.files.get(name)
        if listed is not None and (listed.sha256, listed.size) != (facts.sha256, facts.size):
            faults.append(f"{name}: was altered after it was signed; take the maker's own file")
    return faults


@contextlib.contextmanager
def _opened(path: Path, limit: int) -> Iterator[IO[bytes]]:
    """A plain file, opened without following a link and without waiting for the other end of a pipe."""
    try:
        source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise PackageError(f"{path} is missing or is no plain file ({error.strerror})") from error
    with source:
        facts = os.fstat(source.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise PackageError(f"{path} is missing or is no plain file")
        if facts.st_size > limit:
            raise PackageError(f"{path} has {facts.st_size} bytes; at most {limit} are read")
        yield source
