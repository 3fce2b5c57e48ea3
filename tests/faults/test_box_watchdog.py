"""The watchdog's truth on the whole box: a blocked event loop or a stuck stage is not hidden by living threads."""

from __future__ import annotations

import os
import socket
import time

import pytest
from box_kit import Box, box_config


@pytest.mark.fault("T48")
@pytest.mark.req("R-STORE-13")
def test_blocked_event_loop_ends_the_feeding_of_the_watchdog(tmp_path, monkeypatch):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with Box(box_config(tmp_path / "state", packages=())) as box:
            said = {manager.recv(64)}
            while said != {b"READY=1", b"WATCHDOG=1"}:
                said.add(manager.recv(64))
            health = box.daemon.runners["health"].stage
            web = next(beat for beat in health.beats if beat.stage.name == "web")
            box.wait(lambda: not web.is_late(0), "a turning event loop")
            web.stage.max_step_s = -10.0  # as if the loop had not turned for the whole of its bound
            manager.settimeout(3)
            with pytest.raises(TimeoutError):
                _until_silent(manager)
            web.stage.max_step_s = 10.0
            manager.settimeout(60)
            assert manager.recv(64) == b"WATCHDOG=1"
    assert os.environ["NOTIFY_SOCKET"] == address


def _until_silent(manager):
    """Read what was sent before; ends by the time-out of a manager that is told nothing any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        manager.recv(64)
