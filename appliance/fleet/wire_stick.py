"""Files on a stick, for a box without any network: what it would have published, and what it would have been sent.

An export holds the very messages of the link, each as it would stand in its topic, in one envelope that the device's
key has signed. An import holds envelopes of the server as they would come by MQTT; one envelope alone is one too. A zip
file brings, besides its envelopes, files of the server's TUF repository: ``envelopes.json``, ``tuf/metadata/...`` and
``tuf/targets/...``. Nothing is checked less than on the wire.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from appliance.fleet.keys import DeviceKey, holds
from appliance.fleet.wire import MAX_PACKED_BYTES, Id, Message, Ulid, WireError
from appliance.fleet.wire_records import Clk
from engines.archive import check_end
from engines.durable import sync_file
from engines.signing import parse_strict

EXPORT_TYPE = "application/vnd.scanside.stick.v1+json"
IMPORT_FORMAT = "scanside-fleet-import/1"
MOST_EXPORT_BYTES = 64 * 1024 * 1024
MOST_IMPORT_BYTES = 64 * 1024 * 1024
#: Of a zip file, and of all that is in it: nothing in one is compressed.
MOST_STICK_BYTES = 4_000_000_000
_MOST_ENVELOPES = 10_000
_MOST_FILES = 1000
_MOST_DIRECTORY_BYTES = 1024 * 1024
_MOST_METADATA_BYTES = 8 * 1024 * 1024
_ENVELOPES, _TUF = "envelopes.json", "tuf"
#: Files of a TUF repository; no part begins with a dot, so none leads out of its folder.
_FILE = re.compile(r"(metadata|targets)(/[A-Za-z0-9_-][A-Za-z0-9._+-]{0,199}){1,8}")
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1024 * 1024
#: What ``pack_stick`` writes and no others: sizes behind the data, UTF-8 names.
_FLAGS = 0x0008 | 0x0800


class Letter(Message):
    """One message of the link. ``payload``: base64 of its bytes; its signature stands in ``properties``, as on MQTT."""

    topic: str = Field(max_length=200)
    properties: dict[str, str] = Field(default_factory=dict)
    payload: str = Field(max_length=MAX_PACKED_BYTES * 4 // 3 + 8)

    @property
    def data(self) -> bytes:
        """The bytes.

        Raises:
            WireError: They are no base64.
        """
        try:
            return base64.b64decode(self.payload, validate=True)
        except (binascii.Error, ValueError):
            raise WireError("a letter of the file is damaged") from None


class Export(Message):
    """What a box brings.

    Attributes:
        ts: The box's wall clock, UTC milliseconds; never used to order or to expire.
        nonce: A job for this box must name it where ``clk`` is none.
        letters: In the order in which they would have gone.
        more: The file was full; another export goes on from here.
    """

    tenant: Id
    device: Id
    stream: Ulid
    ts: int
    clk: Clk
    nonce: str = Field(pattern=r"^[0-9a-f]{0,32}$")
    letters: tuple[Letter, ...] = Field(max_length=100_000)
    more: bool = False


def seal(export: Export, key: DeviceKey) -> bytes:
    """The file, signed by the device's key."""
    payload = export.model_dump_json().encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": EXPORT_TYPE,
        "signatures": [{"keyid": export.device, "sig": key.sign(EXPORT_TYPE, payload)}],
    }
    return json.dumps(envelope).encode() + b"\n"


def claimed_sender(data: bytes) -> str:
    """Whose file it says to be, so that the key can be looked up; proves nothing.

    Raises:
        WireError: It is no export.
    """
    return _sealed(data)[1]


def unseal(data: bytes, public: ec.EllipticCurvePublicKey) -> Export:
    """Read an export that the key of ``public`` signed.

    Raises:
        WireError: It is none, damaged, or somebody else's.
    """
    payload, keyid, signature = _sealed(data)
    if not holds(public, EXPORT_TYPE, payload, signature):
        raise WireError("the file is not signed by this device")
    try:
        export = Export.model_validate(parse_strict(payload), extra="ignore")
    except ValueError:  # pydantic's too
        raise WireError("the file is of another version") from None
    if export.device != keyid:
        raise WireError("the file is not signed by this device")
    return export


def bundle(envelopes: Sequence[bytes]) -> bytes:
    """A file of several envelopes, for ``scanside fleet import``."""
    told = {"format": IMPORT_FORMAT, "envelopes": [base64.b64encode(one).decode() for one in envelopes]}
    return json.dumps(told, indent=1).encode() + b"\n"


def split(data: bytes) -> list[tuple[str, bytes]]:
    """The envelopes of a file for import, each with the type that it claims; or the one envelope that the file is.

    Raises:
        WireError: It is neither, or too large.
    """
    document = _parsed(data, MOST_IMPORT_BYTES)
    if document.get("format") != IMPORT_FORMAT:
        return [(_type_of(document), data)]
    envelopes = document.get("envelopes")
    if not isinstance(envelopes, list) or len(envelopes) > _MOST_ENVELOPES:
        raise WireError(f"a file for import holds at most {_MOST_ENVELOPES} envelopes")
    found = []
    for one in envelopes:
        try:
            envelope = base64.b64decode(str(one), validate=True)
        except (binascii.Error, ValueError):
            raise WireError("an envelope of the file is damaged") from None
        found.append((_type_of(_parsed(envelope, MAX_PACKED_BYTES)), envelope))
    return found


# With files of the TUF repository ------------------------------------------------------------------------------------


def is_stick(path: Path) -> bool:
    """Whether a file says to be a zip file; proves nothing.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def pack_stick(path: Path, envelopes: Sequence[bytes], files: Mapping[str, Path]) -> None:
    """Write a zip file for ``scanside fleet import``, on disk for good; the same bytes for the same contents.

    Args:
        path: The file; one that is there is replaced when the new one is whole.
        envelopes: As for ``bundle``; may be none.
        files: By their names in the repository, as ``metadata/timestamp.json`` and ``targets/models/...``.

    Raises:
        WireError: A name is none of a repository, or all of it is too large for one file.
        OSError: A file cannot be read, or the new one not written.
    """
    for name in files:
        if not _FILE.fullmatch(name):
            raise WireError(f"{name}: no file of a TUF repository")
    told = bundle(envelopes)
    # Names twice and some for the frame: the limits of the format are the reader's too.
    total = len(told) + sum(source.stat().st_size + 2 * len(name) + 256 for name, source in files.items())
    if len(files) >= _MOST_FILES or total > MOST_STICK_BYTES:
        raise WireError(
            f"{len(files)} files, {total} bytes; a stick holds {_MOST_FILES} and {MOST_STICK_BYTES} at most"
        )
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(fresh, "x", zipfile.ZIP_STORED, allowZip64=False) as made:
            made.writestr(_member(_ENVELOPES, len(told)), told)
            for name in sorted(files):
                with files[name].open("rb") as source, made.open(_member(f"{_TUF}/{name}"), "w") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
        sync_file(fresh)
        fresh.replace(path)
    except zipfile.LargeZipFile:
        raise WireError("a file of more than 2 GiB; no stick takes it") from None
    finally:
        fresh.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Stick:
    """A zip file whose shape has been checked; what it holds has not.

    Attributes:
        files: Sizes by their names in the repository, as ``pack_stick`` takes them.
    """

    files: Mapping[str, int]
    _opened: zipfile.ZipFile

    @property
    def size(self) -> int:
        """Of all files together, in bytes."""
        return sum(self.files.values())

    def envelopes(self) -> bytes:
        """What ``split`` takes.

        Raises:
            WireError: It is damaged.
        """
        with _guarded():
            return self._opened.read(_ENVELOPES)

    def copy(self, name: str, into: IO[bytes]) -> None:
        """Write one of ``files``, as long as it says to be.

        Raises:
            WireError: It is damaged.
            OSError: It cannot be written.
        """
        with _guarded():
            packed = self._opened.open(f"{_TUF}/{name}")
        with packed:
            while True:
                with _guarded():  # not what is raised by the disk that we write to
                    chunk = packed.read(_CHUNK)
                if not chunk:
                    return
                into.write(chunk)


@contextmanager
def open_stick(path: Path) -> Iterator[Stick]:
    """Open what ``pack_stick`` wrote, or a stranger. No name leads anywhere, nothing unpacks to more than it is.

    Raises:
        WireError: It is no such file.
        OSError: It cannot be read.
    """
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        if size > MOST_STICK_BYTES:
            raise WireError(f"larger than {MOST_STICK_BYTES} bytes")
        with _guarded():
            check_end(source, size, most_files=_MOST_FILES, most_directory_bytes=_MOST_DIRECTORY_BYTES)
            opened = zipfile.ZipFile(source)
        with opened:
            yield Stick(_files(opened.infolist(), size), opened)


@contextmanager
def _guarded() -> Iterator[None]:
    """What the library raises over foreign bytes."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error, ValueError, KeyError, RuntimeError):
        raise WireError("the file is no zip file of this software's, or damaged") from None


def _files(members: Sequence[zipfile.ZipInfo], size: int) -> dict[str, int]:
    names = [one.orig_filename for one in members]
    if len(set(names)) != len(names) or _ENVELOPES not in names or len(names) > _MOST_FILES:
        raise WireError(f"the zip file lacks {_ENVELOPES}, holds a name twice, or more than {_MOST_FILES} files")
    found = {}
    for one in members:
        name = one.orig_filename.removeprefix(f"{_TUF}/")
        is_file = stat.S_IFMT(one.external_attr >> 16) in {0, stat.S_IFREG}
        is_plain = one.compress_type == zipfile.ZIP_STORED and not one.flag_bits & ~_FLAGS
        if not is_file or not is_plain or one.file_size != one.compress_size:
            raise WireError("the zip file holds something packed, hidden or linked; take it as the server wrote it")
        if one.orig_filename == _ENVELOPES:
            if one.file_size > MOST_IMPORT_BYTES:
                raise WireError(f"its envelopes are larger than {MOST_IMPORT_BYTES} bytes")
            continue
        if name == one.orig_filename or not _FILE.fullmatch(name):
            raise WireError(f"the zip file holds something else than {_ENVELOPES} and a TUF repository")
        if name.startswith("metadata/") and one.file_size > _MOST_METADATA_BYTES:
            raise WireError(f"TUF metadata of more than {_MOST_METADATA_BYTES} bytes")
        found[name] = one.file_size
    if sum(one.file_size for one in members) > size:  # parts that share their bytes
        raise WireError("the zip file says to hold more than it is")
    return found


def _member(name: str, size: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _DATE)
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    member.file_size = size
    return member


def _parsed(data: bytes, most: int) -> dict[str, Any]:
    if len(data) > most:
        raise WireError(f"larger than {most} bytes")
    try:
        document = parse_strict(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise WireError("the file is none of this software's, or damaged")
    return document


def _type_of(document: dict[str, Any]) -> str:
    found = document.get("payloadType")
    if not isinstance(found, str):
        raise WireError("the file is none of this software's, or damaged")
    return found


def _sealed(data: bytes) -> tuple[bytes, str, str]:
    document = _parsed(data, 2 * MOST_EXPORT_BYTES)
    try:
        (signature,) = document["signatures"]
        payload = base64.b64decode(document["payload"], validate=True)
        keyid, sig = signature["keyid"], signature["sig"]
    except (KeyError, TypeError, ValueError):  # binascii's too
        raise WireError("the file is no export of a box") from None
    if _type_of(document) != EXPORT_TYPE or not isinstance(keyid, str) or not isinstance(sig, str):
        raise WireError("the file is no export of a box")
    return payload, keyid, sig
