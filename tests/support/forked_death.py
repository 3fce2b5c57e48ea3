"""A deed in a forked child that dies by kill -9 before a chosen line of the code under test."""

from __future__ import annotations

import os
import signal
import sys


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
