"""Preamble and file meta information of a received object (PS3.10 §7.1)."""

from __future__ import annotations

import struct

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def file_meta(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, calling_ae: str, called_ae: str
) -> bytes:
    """What stands before the data set in its file.

    The AE titles tell a rebuild of the database which source it was.
    """
    elements = [
        _element(0x0001, "OB", b"\0\1"),
        _element(0x0002, "UI", _uid(sop_class_uid)),
        _element(0x0003, "UI", _uid(sop_instance_uid)),
        _element(0x0010, "UI", _uid(transfer_syntax)),
        _element(0x0012, "UI", _uid(IMPLEMENTATION_CLASS_UID)),
        _element(0x0013, "SH", _spaced(IMPLEMENTATION_VERSION_NAME)),
        _element(0x0016, "AE", _spaced(calling_ae)),
        _element(0x0018, "AE", _spaced(called_ae)),
    ]
    body = b"".join(elements)
    return b"\0" * 128 + b"DICM" + _element(0x0000, "UL", struct.pack("<L", len(body))) + body


def _element(element: int, vr: str, value: bytes) -> bytes:
    if vr == "OB":
        return struct.pack("<HH2sHL", 2, element, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr.encode(), len(value)) + value


def _uid(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def _spaced(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b" " * (len(value) % 2)
