"""The TUF part of a stick: kept in a folder of its own until it has served. Whether it is believed is TUF's to say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from appliance.errors import StoreError
from appliance.fleet.device.download import disk_free
from appliance.fleet.wire_stick import Stick
from engines.durable import sync_folder

#: Below the folder of the identity.
STICK = "stick"
_ROOM_BYTES = 1024**3


def take_stick(folder: Path, stick: Stick, free: Callable[[Path], int] = disk_free) -> None:
    """Keep the files of a stick in place of the last one's: all of them or none. One without files changes nothing.

    Args:
        folder: Of the identity.
        stick: As ``wire_stick.open_stick`` gives it: its names lead nowhere else.
        free: How many bytes a disk has left.

    Raises:
        WireError: The stick is damaged.
        StoreError: The disk has no room, or refuses.
    """
    part = folder / f"{STICK}.part"
    if not stick.files:
        return
    try:
        shutil.rmtree(part, ignore_errors=True)
        drop_stick(folder)
        room = free(folder)
        if room < stick.size + _ROOM_BYTES:
            raise StoreError(f"{room} bytes are free for a stick of {stick.size}, and 1 GiB must stay; make room first")
        for name in stick.files:
            (part / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (part / name).open("xb") as file:
                stick.copy(name, file)
                file.flush()
                os.fsync(file.fileno())
        part.rename(folder / STICK)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(f"{folder / STICK}: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def drop_stick(folder: Path) -> None:
    """Nothing of a stick is needed any more. Whoever reads it meanwhile finds it missing."""
    gone = folder / f"{STICK}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if (folder / STICK).is_dir():
        (folder / STICK).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
