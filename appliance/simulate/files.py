"""A user's own files, sorted as a scanner would send them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance.dicom.headers import read_header
from appliance.errors import RejectedInstance


def collect(paths: Iterable[Path]) -> tuple[list[list[Path]], list[Path]]:
    """Find DICOM files and sort them by series and instance number.

    Args:
        paths: Files and folders; folders are searched through.

    Returns:
        The files of each series, and the files that are not DICOM or are damaged.
    """
    series: dict[tuple[str, str], list[tuple[int, str, Path]]] = {}
    others = []
    for path in sorted(found for given in paths for found in (given.rglob("*") if given.is_dir() else [given])):
        if not path.is_file():
            continue
        try:
            header = read_header(path)
        except (RejectedInstance, OSError):
            others.append(path)
            continue
        key = (header.identity.study_instance_uid, header.series_instance_uid)
        series.setdefault(key, []).append((header.instance_number or 0, str(path), path))
    return [[path for _, _, path in sorted(files)] for files in series.values()], others
