"""Which of a box's engines a package runs on now: the wished one, else an earlier one, else none, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.build import engine_key
from engines.errors import BuildError, EngineError, SessionError
from engines.package import Package
from engines.session import Session, open_engine
from engines.store import EngineKey, EngineStore, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a package runs on.

    Attributes:
        entry: The engine; ``None``: the reference, ONNX Runtime with the package's own graph.
        sessions: The engine, opened; one for each stage.
        fallback: Why it is not the wished engine; empty where it is.
        lacks_engine: The wished engine is not there and nothing speaks against building it.
    """

    entry: Entry | None = None
    sessions: tuple[Session, ...] = ()
    fallback: str = ""
    lacks_engine: bool = False


def open_best(package: Package, *, root: Path, flavour: str, precision: str, threads: int) -> Choice:
    """Open the best engine there is for a package on this machine.

    An engine that does not open is rejected, one whose MAC does not match is set aside; the next one is tried.

    Args:
        package: A loaded package.
        root: The folder of engines.
        flavour: The wished one.
        precision: The wished one; other precisions of the same flavour stand in for it.
        threads: Threads within one operator.

    Raises:
        SessionError: An engine broke the device for this process (``sticky``).
    """
    try:
        store = EngineStore(root)
        wished = engine_key(package, precision=precision, flavour=flavour)
    except EngineError as error:
        return Choice(fallback=str(error))
    faults: list[str] = []
    for entry in _candidates(package, store, wished, precision):
        try:
            sessions = open_engine(entry, store.plans(entry), package, threads=threads)
        except EngineError as error:
            if isinstance(error, SessionError) and error.sticky:
                raise
            faults.append(str(error))
            if not (isinstance(error, BuildError) and error.kind == "integrity"):
                store.reject(entry.digest, f"it does not open: {error}", entry.report)
            continue
        if entry.precision == precision:
            return Choice(entry=entry, sessions=sessions)
        why, lacks = _missing(package, store, wished, precision)
        told = "; ".join([*faults, why])
        return Choice(entry=entry, sessions=sessions, fallback=told, lacks_engine=lacks)
    why, lacks = _missing(package, store, wished, precision)
    return Choice(fallback="; ".join([*faults, why]), lacks_engine=lacks)


def _candidates(package: Package, store: EngineStore, wished: EngineKey, precision: str) -> Iterator[Entry]:
    """Accepted engines that fit this machine, the wished precision first, then the newest first."""
    precisions = [precision, *(p for p in package.manifest.precisions if p != precision)]
    for one in precisions:
        try:
            key = wished if one == precision else engine_key(package, precision=one, flavour=wished.flavour)
        except EngineError:
            continue
        fitting = [e for e in store.entries() if e.state == "ready" and e.precision == one and e.key == key]
        yield from fitting


def _missing(package: Package, store: EngineStore, wished: EngineKey, precision: str) -> tuple[str, bool]:
    """Why the wished engine is not there, and whether it should be built."""
    what = f"{wished.flavour} {precision}"
    others = [
        e
        for e in store.entries()
        if (e.package, e.flavour, e.precision) == (package.name, wished.flavour, precision) and e.state != "verifying"
    ]
    for entry in others:
        if entry.key == wished and entry.state == "rejected":
            mend = f"build it again with 'scanside engine build {package.name}' once its cause is gone"
            return f"the engine {what} was rejected: {entry.reason}; {mend}", False
    if others:
        changed = ", ".join(_changed(others[0].key, wished)) or "the engine"
        return f"the engine {what} was built before {changed} changed; it is built anew", True
    return f"no engine {what} has been built on this box yet; it is built now", True


def _changed(before: EngineKey, now: EngineKey) -> list[str]:
    names = {
        "package_digest": "the package",
        "onnx": "the package",
        "recipe": "the way of lowering",
        "version": "the library",
        "driver": "the driver",
        "gpu": "the GPU",
        "profiles": "the profiles",
        "host": "the machine",
        "builder": "this software",
    }
    found = [told for name, told in names.items() if getattr(before, name) != getattr(now, name)]
    return list(dict.fromkeys(found))
