"""Power cuts of the whole box: what never reached the block device is gone, what was acknowledged is not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

import pytest
from box_process import BoxProcess
from checker import check
from sender import Sender

IMAGE_BYTES = 400 * 1024**2


@contextlib.contextmanager
def mounted(image, folder):
    """A file system image on a loop device."""
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    """An empty ext4 image, or a skip with the reason."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a power cut is simulated with a loop mount, which needs root and mkfs.ext4")
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    try:
        with mounted(image, tmp_path / "probe"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mount here: {error.stderr.decode().strip()}")
    return image


@pytest.mark.fault("T03")
@pytest.mark.req("R-INTAKE-01")
@pytest.mark.timeout(900)
def test_power_cuts_lose_no_acknowledged_image(tmp_path, disk, scale, wait_until):
    cuts = 30 if scale == 1 else 2  # one of each kind, see below
    with mounted(disk, tmp_path / "live") as live:
        box = BoxProcess(tmp_path, state=live / "state")
        with box:
            for number in range(cuts):
                senders = [Sender(box, f"{number + 1}{seed}") for seed in range(2)]
                wait_until(lambda now=senders: all(len(sender.acknowledged) > 10 for sender in now), 60)
                if number % 2:  # every second cut comes when the last acknowledgement is already some time ago
                    for sender in senders:
                        sender.end()
                os.kill(box.process.pid, signal.SIGSTOP)
                acknowledged = {uid: sha for sender in senders for uid, sha in list(sender.acknowledged.items())}
                copy = tmp_path / f"cut{number}.img"
                subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
                os.kill(box.process.pid, signal.SIGCONT)
                for sender in senders:
                    sender.end()
                _assert_whole(tmp_path / f"after{number}", copy, acknowledged)
                copy.unlink()
            assert box.terminate()[0] == 0


def _assert_whole(folder, image, acknowledged):
    folder.mkdir()
    with mounted(image, folder / "disk") as disk:
        with BoxProcess(folder, state=disk / "state") as again:
            assert again.terminate()[0] == 0
        assert acknowledged
        assert check(disk / "state", acknowledged, expect_outcomes=False) == []
