"""Does something to an engine store in forked processes, each killed (SIGKILL) at a later step on the disk.

``python store_deeds.py ROOT DEED``: prints at how many steps it was killed. Below ROOT lies one store for each.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

from engines.errors import BuildError
from engines.store import EngineKey, EngineStore

OLD, NEW = b"old plan " * 1000, b"new plan " * 1000
#: Functions written in C that touch the disk; the kill comes just before one.
STEPS = frozenset(
    {"open", "write", "flush", "close", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "chmod"}
    | {"ftruncate", "pwrite", "flock"}
)
#: Of a deed's steps at most; more would mean that it never ends.
MOST = 300


def key(package="p" * 64, **changes):
    facts = {"onnx": ("a" * 64,), "recipe": "fp32-1", "flavour": "tensorrt", "version": "10.3.0", "driver": "12060"}
    facts |= {"gpu": "Orin", "profiles": "{}", "host": "aarch64 linux", "builder": "1"}
    return EngineKey(package_digest=package, **{**facts, **changes})


def put(store, plans=(NEW,), **changes):
    return store.put(
        key(**changes), package="toy", version="1.0.0", precision="fp32", plans=list(plans), facts={"seconds": 1}
    )


def begin(store):
    """What stands before the deed: engines that served and serve, and one that waits for its verdict."""
    for _ in range(2):
        store.accept(put(store, [OLD]).digest, {"passed": True})
    put(store, [OLD, OLD])


def waiting(store):
    return next(e for e in store.entries() if e.state == "verifying")


def do(deed, store):
    if deed == "put":
        put(store)
    elif deed == "accept":
        store.accept(waiting(store).digest, {"passed": True})
    elif deed == "reject":
        store.reject(waiting(store).digest, "scores differ", {"passed": False})
    elif deed == "gc":
        store.gc(keep=1)
    elif deed == "build":
        with store.building("toy") as work:
            (work / "stage-0.onnx").write_bytes(b"graph")
            (work / "stage-0.plan").write_bytes(NEW)
            put(store)
    elif deed == "aside":
        victim = waiting(store).digest
        (store.root / "entries" / victim / "stage-1.plan").write_bytes(NEW)
        try:
            store.plans(store.entry(victim))
        except BuildError:
            return
        raise AssertionError("loaded")
    elif deed == "open":
        EngineStore(store)


def die_at(step):
    seen = count(1)

    def watch(_frame, event, function):
        if event == "c_call" and function.__name__ in STEPS and next(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def main(base, deed):
    for step in range(1, MOST):
        root = base / str(step)
        if deed != "open":
            shutil.copytree(base / "seed", root)
        child = os.fork()
        if child == 0:
            # Opened before: only the deed's own steps count.
            store = root if deed == "open" else EngineStore(root)
            die_at(step)
            do(deed, store)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            sys.stdout.write(str(step - 1))
            return
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"step {step}: the deed failed")
    raise SystemExit("the deed never ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
