"""Which of a box's engines a package runs on now: the wished one, else an earlier one, else none, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engines.build import engine_key, recipe_of
from engines.errors import EngineError, SessionError
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

    An engine that does not open is rejected, one whose MAC does not match is set aside, one that cannot be read now is
    left; the next one is tried.

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
    choice = Choice()
    entries = store.entries()
    for entry in candidates(package, entries, wished, precision):
        try:
            sessions = open_engine(entry, store.plans(entry), package, threads=threads)
        except EngineError as error:
            faults.append(str(error))
            if isinstance(error, SessionError):
                if error.sticky:
                    raise
                store.reject(entry.digest, f"it does not open: {error}", entry.report)
            entries = store.entries()
            continue
        choice = Choice(entry=entry, sessions=sessions)
        if entry.precision == precision:
            return choice
        break
    why, lacks = _missing(package, entries, wished, precision)
    return replace(choice, fallback="; ".join([*faults, why]), lacks_engine=lacks)


def candidates(package: Package, entries: Sequence[Entry], wished: EngineKey, precision: str) -> Iterator[Entry]:
    """Those of ``entries`` (newest first) that were accepted and fit this machine, the wished precision first.

    Args:
        package: A loaded package.
        entries: Of the box's store.
        wished: The key that the wished engine would have if it was built now.
        precision: The wished one; other precisions stand in for it.
    """
    for one in dict.fromkeys((precision, *package.manifest.precisions)):
        try:
            key = wished if one == precision else replace(wished, recipe=recipe_of(package, one))
        except EngineError:
            continue
        yield from (e for e in entries if e.state == "ready" and e.precision == one and e.key == key)


def _missing(package: Package, entries: Sequence[Entry], wished: EngineKey, precision: str) -> tuple[str, bool]:
    """Why the wished engine does not serve, and whether it should be built."""
    what = f"{wished.flavour} {precision}"
    others = [
        e
        for e in entries
        if (e.package, e.flavour, e.precision) == (package.name, wished.flavour, precision) and e.state != "verifying"
    ]
    same = [e for e in others if e.key == wished]
    for entry in same:
        if entry.state == "rejected":
            mend = f"build it again with 'scanside engine build {package.name}' once its cause is gone"
            return f"the engine {what} was rejected: {entry.reason}; {mend}", False
    if same:
        return f"the engine {what} is tried again when the worker starts", False
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
