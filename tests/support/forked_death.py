"""A deed in a forked child that dies by kill -9 before a chosen line of the code under test.

Programs of this folder (``*_killer.py``) do that line after line and tell a line of JSON of each death.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_in_memory():
    """A folder without a disk: a killed process, unlike a power cut, loses nothing that it has written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def deaths_of(killer, *arguments):
    """What the program ``killer`` of this folder tells of each death; the last one told was not killed any more."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(killer), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told, done.stderr
    assert [one["killed"] for one in told] == [True] * (len(told) - 1) + [False], (told[-1], done.stderr)
    return told


def in_child(function):
    """Run in a fork; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - the parent must hear of it
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def killed_at(line, watched, function):
    """Call ``function`` and die before its ``line``-th line in the ``watched`` files."""
    left = line

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    function()
