"""What the children of ``test_child.py`` do; imported in the child process."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def handle(request, progress):
    return globals()[request["deed"]](request, progress)


def echo(request, progress):
    return {"got": request["value"]}


def count(request, progress):
    for step in range(3):
        progress({"step": step})
    return {"done": True}


def chatter(request, progress):
    sys.stdout.write("a library prints this to standard output\n")
    os.write(1, b"and native code writes this\n")
    return {"clean": True}


def sleep(request, progress):
    Path(request["pid_file"]).write_text(str(os.getpid()))
    say("about to sleep")
    time.sleep(600)


def burn(request, progress):
    while True:
        pass


def hog(request, progress):
    return {"size": len(bytearray(4 << 30))}


def reserve(request, progress):
    """Address space without memory, as CUDA takes it."""
    held = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    time.sleep(0.5)
    held.close()
    return {"reserved": True}


def fill(request, progress):
    held = b"x" * (200 << 20)
    time.sleep(600)
    return {"held": len(held)}


def tidy(request, progress):
    def end(number, frame):
        Path(request["path"]).write_text("tidied")
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    progress({"begun": True})
    time.sleep(600)


def stubborn(request, progress):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    progress({"begun": True})
    time.sleep(600)


def killed(request, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def crash(request, progress):
    say("touching address zero")
    ctypes.string_at(0)


def leave(request, progress):
    say("cannot go on")
    os._exit(3)


def garbage(request, progress):
    # Descriptors above 2 that are pipes: one of them is the answer's.
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"this is no answer\n")
        except OSError:
            continue
    time.sleep(600)


def fail(request, progress):
    raise ValueError("not like this")


def wrong_type(request, progress):
    return {"object": object()}


def write(request, progress):
    Path(request["path"]).write_bytes(b"x" * (2 << 20))
    return {}


def open_many(request, progress):
    held = [open(os.devnull) for _ in range(200)]  # noqa: SIM115, PTH123
    return {"held": len(held)}


def breed(request, progress):
    grandchild = subprocess.Popen(["sleep", "600"])
    return {"grandchild": grandchild.pid}


def endless(request, progress):
    while True:
        progress({"again": "x" * 1000})


def large(request, progress):
    return {"text": "x" * (20 << 20)}
