"""What a file of the spool itself tells of its receipt, for adopting files that no row knows."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from appliance.config import Config
from appliance.dicom.headers import data_set_offset, pixel_sha256, read_header
from appliance.intake.record import change_of
from appliance.records import Header
from appliance.store.forwarding import originals_for
from appliance.store.rebuild import Reader
from appliance.store.studies import Change, Version

_CHUNK = 1 << 20
#: Name of the source of files whose calling AE title no configured source has any more.
UNKNOWN_SOURCE = "unknown"


def receipt(path: Path) -> tuple[str, str, int]:
    """(calling AE title, SHA-256 of the data set, size of the file in bytes), as at the receipt."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(data_set_offset(path))
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    meta = read_file_meta_info(path)
    return str(meta.get("SourceApplicationEntityTitle", "")), digest.hexdigest(), path.stat().st_size


def change_between(current: Version, header: Header, current_path: Path, path: Path) -> Change:
    """How a file differs from the current version under its UID."""
    return change_of(current, header, same_pixel_bytes=pixel_sha256(current_path) == pixel_sha256(path))


def spool_reader(config: Config) -> Reader:
    """What ``store.rebuild`` needs to know of DICOM files and of the configuration."""
    by_ae = {source.ae_title.strip(): source for source in reversed(config.sources)}

    def read(path: Path) -> Header:
        source = by_ae.get(receipt(path)[0].strip())
        return read_header(path, assume_charset=source.assume_charset if source else "")

    def source_name(calling_ae: str) -> str:
        source = by_ae.get(calling_ae.strip())
        return source.name if source else UNKNOWN_SOURCE

    return Reader(
        header=read,
        receipt=receipt,
        change=change_between,
        source=source_name,
        originals=functools.partial(originals_for, config),
    )
