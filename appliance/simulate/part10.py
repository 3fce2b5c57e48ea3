"""Part 10 files taken apart without decoding them, odd ones too (PS3.10 §7.1).

The data set is only a run of bytes here.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from appliance.dicom.implementation import SIMULATOR

_LONG = {b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF", b"OD", b"OL", b"OV", b"UC", b"UR", b"SV", b"UV"}


@dataclass(frozen=True, slots=True)
class Part10:
    """A file's data set as it stands on disk, with what a C-STORE says about it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Digest of the data set alone: preamble and meta information are each receiver's own."""
        return hashlib.sha256(self.data).hexdigest()


def split(path: Path) -> Part10:
    """Read a file; without preamble or meta information the syntax is guessed from the first element.

    UIDs that the meta information lacks are taken from the data set, or are empty.
    """
    raw = path.read_bytes()
    start = 132 if raw[128:132] == b"DICM" else 0
    meta, place = _meta(raw, start)
    data = raw[place:]
    syntax = meta.get(0x0010) or (ExplicitVRLittleEndian if data[4:6].isupper() else ImplicitVRLittleEndian)
    sop_class, sop_instance = meta.get(0x0002, ""), meta.get(0x0003, "")
    if not (sop_class and sop_instance):
        ds = dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        sop_class = sop_class or str(ds.get("SOPClassUID", "") or "")
        sop_instance = sop_instance or str(ds.get("SOPInstanceUID", "") or "")
    return Part10(sop_class, sop_instance, str(syntax), data)


def data_sha256(path: Path) -> str:
    """SHA-256 of a Part 10 file's data set."""
    return split(path).sha256


def meta_information(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and group 0002: what stands before the data set in a file (PS3.10 §7.1)."""
    body = _element(0x0001, b"OB", b"\x00\x01")
    for element, value in ((0x0002, sop_class_uid), (0x0003, sop_instance_uid), (0x0010, transfer_syntax_uid)):
        body += _element(element, b"UI", value.encode())
    body += _element(0x0012, b"UI", SIMULATOR.class_uid.encode())
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in _LONG:
        return struct.pack("<HH2sHI", 2, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _meta(raw: bytes, start: int) -> tuple[dict[int, str], int]:
    """The texts of group 0002 and where the data set begins; group 0002 is always explicit VR little endian."""
    values: dict[int, str] = {}
    place = start
    while raw[place : place + 2] == b"\x02\x00" and place + 8 <= len(raw):
        element, vr, length = struct.unpack_from("<H2sH", raw, place + 2)
        place += 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<I", raw, place)
            place += 4
        if vr == b"UI":
            values[element] = raw[place : place + length].decode("ascii", "replace").strip(" \0")
        place += length
    return values, place
