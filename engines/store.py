"""Engines that were built on this box, kept as adversarial ground.

``engines/`` (0700) holds ``mac.key`` (0600), ``entries/<digest>/{entry.json, stage-0.plan, ...}``, ``work/`` (of the
build that runs), ``aside/`` (what did not pass, kept for the service team). Deserialising a plan is running it, so:
- nothing comes in but through ``put``, and every entry and plan has a MAC with this box's key;
- ``plans`` gives only bytes whose MAC was checked, the very bytes, bound to their entry and stage;
- what does not pass is set aside, never loaded, never deleted.

A folder appears whole by one rename; a state changes by one replaced file. Builders take turns by ``flock``, which the
kernel gives back when a process dies. Two builds of the same inputs differ in bytes, so an engine's digest is of its
inputs, its bytes and its time, and a key is of inputs alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from engines import sealed
from engines.durable import sync_folder
from engines.errors import BuildError

log = logging.getLogger(__name__)

State = Literal["verifying", "ready", "rejected"]

_SCHEMA = 1
_ENTRY = "entry.json"
_MAX_ENTRY_BYTES = 4 * 1024 * 1024
_MAX_ASIDE = 10
_MAX_WHY_BYTES = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that decides what an engine is; if any of it changes, the engine is stale.

    Attributes:
        package_digest: ``Package.digest``.
        onnx: SHA-256 of each stage's graph.
        recipe: Of lowering, with the calibration's digest.
        flavour: ``tensorrt``, ``tensorrt_rtx`` or ``onnxruntime``.
        version: Of that library.
        driver: Of the GPU; ``none`` where the plan is not for this machine's GPU.
        gpu: Name, compute capability and memory, or the compute capabilities that were named.
        profiles: Canonical JSON of the package's.
        host: Architecture and system.
        builder: Our own version and settings.
    """

    package_digest: str
    onnx: tuple[str, ...]
    recipe: str
    flavour: str
    version: str
    driver: str
    gpu: str
    profiles: str
    host: str
    builder: str

    @property
    def digest(self) -> str:
        """SHA-256 of it all."""
        return hashlib.sha256(sealed.canonical(asdict(self))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One engine: the plans of all stages of a package.

    Attributes:
        digest: Names it in every result; also the name of its folder.
        package: Name of the package.
        version: Of the package.
        state: ``verifying`` until acceptance has spoken.
        reason: Why it was rejected.
        report: Of acceptance.
        facts: Of the build: layers, seconds, loss.
        plans: (size, MAC) of each stage's plan.
    """

    digest: str
    key: EngineKey
    package: str
    version: str
    precision: str
    state: State
    built_at: str
    plans: tuple[tuple[int, str], ...]
    reason: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flavour(self) -> str:
        """What runs it."""
        return self.key.flavour


@dataclass(frozen=True, slots=True)
class Building:
    """The build that runs now."""

    package: str
    since: str
    pid: int


@dataclass(frozen=True, slots=True)
class Aside:
    """An entry that did not pass."""

    name: str
    why: str


class EngineStore:
    """The folder of engines. Any number of processes of the same user may use it."""

    def __init__(self, root: Path) -> None:
        """Open or make it.

        Raises:
            BuildError: Kind ``integrity``: folder or key file are not ours alone.
        """
        self.root = root
        for folder in (root, self._entries, self._work, self._aside):
            sealed.own_folder(folder)
        self._key = sealed.key_of(root / "mac.key")

    @property
    def _entries(self) -> Path:
        return self.root / "entries"

    @property
    def _work(self) -> Path:
        return self.root / "work"

    @property
    def _aside(self) -> Path:
        return self.root / "aside"

    # -- building ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def building(self, package: str, *, wait_s: float = 1.0) -> Iterator[Path]:
        """Be the one builder of this box.

        Args:
            package: Name, for whoever asks who builds.
            wait_s: How long to wait for another builder.

        Yields:
            An empty folder to work in; it is removed at the end, or by the next builder after a crash.

        Raises:
            BuildError: Another builds.
        """
        lock = self.root / "build.lock"
        with sealed.locked(lock, wait_s=wait_s) as held:
            if held is None:
                other = self.in_progress()
                what = f"{other.package} since {other.since} (process {other.pid})" if other else "another engine"
                raise BuildError(f"{what} is being built; wait until it is done, or cancel it", "build")
            told = sealed.canonical(asdict(Building(package, _now(), os.getpid())))
            os.ftruncate(held, 0)
            os.pwrite(held, told, 0)
            with self._changing():  # what lies there is a dead builder's, or of a put that is not under way
                for left in self._work.iterdir():
                    _remove(left)
            folder = self._work / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                _remove(folder)
                os.ftruncate(held, 0)

    def in_progress(self) -> Building | None:
        """The build that runs now; ``None`` also after a builder that was killed."""
        lock = self.root / "build.lock"
        if not sealed.is_locked(lock):
            return None
        try:
            return Building(**json.loads(sealed.read_plain(self.root, lock.name, 4096)))
        except (OSError, ValueError, TypeError):
            return Building("an engine", "now", 0)

    # -- entries -------------------------------------------------------------------------------------------------------

    def put(
        self,
        key: EngineKey,
        *,
        package: str,
        version: str,
        precision: str,
        plans: Sequence[bytes],
        facts: Mapping[str, Any],
    ) -> Entry:
        """Keep what was built just now on this box, in state ``verifying``; durable when this returns."""
        built_at = _now()
        named = [asdict(key), package, version, precision, built_at, [hashlib.sha256(p).hexdigest() for p in plans]]
        digest = hashlib.sha256(sealed.canonical(named)).hexdigest()
        entry = Entry(
            digest=digest,
            key=key,
            package=package,
            version=version,
            precision=precision,
            state="verifying",
            built_at=built_at,
            plans=tuple((len(plan), self._plan_mac(digest, index, plan)) for index, plan in enumerate(plans)),
            facts=facts,
        )
        with self._changing():
            folder = self._work / f"{secrets.token_hex(8)}.put"
            folder.mkdir(mode=0o700)
            for index, plan in enumerate(plans):
                sealed.write_durable(folder / _plan_name(index), plan)
            sealed.write_durable(folder / _ENTRY, self._sealed(entry))
            sync_folder(folder)
            folder.rename(self._entries / digest)
            sync_folder(self._entries)
        return entry

    def accept(self, digest: str, report: Mapping[str, Any]) -> Entry:
        """It passed acceptance and may serve.

        Raises:
            BuildError: There is no such entry, it was rejected before, or it was tampered with.
        """
        with self._changing():
            entry = self.entry(digest)
            if entry.state == "rejected":
                raise BuildError(f"engine {digest[:12]} was rejected ({entry.reason}); build it again")
            return self._write(replace(entry, state="ready", report=report))

    def reject(self, digest: str, reason: str, report: Mapping[str, Any]) -> Entry:
        """It did not pass, or failed later; it never serves again.

        Raises:
            BuildError: There is no such entry, or it was tampered with.
        """
        with self._changing():
            return self._write(replace(self.entry(digest), state="rejected", reason=reason, report=report))

    def entries(self) -> list[Entry]:
        """Every entry that is what we wrote and can be read, newest first; what is not ours is set aside."""
        found = []
        for folder in self._entries.iterdir():
            if not _DIGEST.fullmatch(folder.name):
                self._set_aside(folder.name, f"{folder.name!r} is no engine's folder")
                continue
            with contextlib.suppress(BuildError):
                found.append(self.entry(folder.name))
        return sorted(found, key=lambda e: e.built_at, reverse=True)

    def entry(self, digest: str) -> Entry:
        """One entry.

        Raises:
            BuildError: There is none, it cannot be read now, or it is not what we wrote; then it is set aside.
        """
        if not _DIGEST.fullmatch(digest):
            raise BuildError(f"{digest[:80]!r} is no engine's digest")
        try:
            return self._read(digest)
        except FileNotFoundError:
            if not (self._entries / digest).is_dir():
                raise BuildError(f"there is no engine {digest[:12]}; build it") from None
            raise self._set_aside(digest, f"{_ENTRY} is missing") from None
        except BuildError as error:
            if error.kind == "unreadable":
                raise
            raise self._set_aside(digest, str(error)) from error

    def ready(self, package_digest: str, flavour: str, precision: str) -> Entry | None:
        """The newest accepted engine of a package.

        Args:
            package_digest: ``Package.digest``.
            flavour: What shall run it.
            precision: Of its graph.
        """
        for entry in self.entries():
            wanted = (entry.key.package_digest, entry.flavour, entry.precision) == (package_digest, flavour, precision)
            if wanted and entry.state == "ready":
                return entry
        return None

    def plans(self, entry: Entry) -> list[bytes]:
        """The plans of an entry's stages, each checked: only these bytes may be given to a runtime.

        Raises:
            BuildError: Kind ``integrity``: entry or plan are not what we wrote; the entry is set aside. Kind
                ``unreadable``: the system cannot read them now; the entry stays.
        """
        held = self.entry(entry.digest)
        plans = []
        for index, (size, wanted) in enumerate(held.plans):
            name = _plan_name(index)
            try:
                plan = sealed.read_plain(self._entries / held.digest, name, size)
            except FileNotFoundError:
                raise self._set_aside(held.digest, f"{name} is missing") from None
            except BuildError as error:
                if error.kind == "unreadable":
                    raise
                raise self._set_aside(held.digest, str(error)) from error
            if len(plan) != size or not sealed.same(self._plan_mac(held.digest, index, plan), wanted):
                raise self._set_aside(held.digest, f"{name} is not what was built here: its MAC does not match")
            plans.append(plan)
        return plans

    def aside(self) -> list[Aside]:
        """What was set aside, newest first."""
        found = []
        for folder in sorted((p for p in self._aside.iterdir() if p.suffix != ".why"), key=_when, reverse=True):
            why = b""
            with contextlib.suppress(OSError, BuildError):
                why = sealed.read_plain(self._aside, f"{folder.name}.why", _MAX_WHY_BYTES)
            found.append(Aside(folder.name, why.decode("utf-8", "replace")))
        return found

    def gc(self, *, keep: int = 2, serving: Collection[str] = ()) -> list[str]:
        """Remove old engines.

        Of each package, flavour and precision there remain the ``keep`` newest that are ready, what is newer than
        they and not decided or rejected (``keep`` of them), and whatever serves.

        Args:
            keep: At least 1.
            serving: Digests in use.

        Returns:
            Digests of what was removed.
        """
        with self._changing():
            gone = _superfluous(self.entries(), max(1, keep), set(serving))
            for digest in gone:
                # Out of sight in one step; what is left of it after a crash goes with the next build.
                away = self._work / f"{secrets.token_hex(8)}.gone"
                (self._entries / digest).rename(away)
                _remove(away)
            for old in self.aside()[_MAX_ASIDE:]:
                _remove(self._aside / old.name)
                _remove(self._aside / f"{old.name}.why")
        return gone

    # -- inside --------------------------------------------------------------------------------------------------------

    def _changing(self) -> contextlib.AbstractContextManager[int | None]:
        return sealed.locked(self.root / "change.lock")

    def _plan_mac(self, digest: str, index: int, plan: bytes) -> str:
        return sealed.mac(self._key, f"scanside plan {_SCHEMA} {digest} {index}", plan)

    def _sealed(self, entry: Entry) -> bytes:
        body = {"schema": _SCHEMA, **asdict(entry)}
        seal = sealed.mac(self._key, f"scanside entry {_SCHEMA}", sealed.canonical(body))
        return sealed.canonical({"entry": body, "mac": seal})

    def _write(self, entry: Entry) -> Entry:
        sealed.replace_durable(self._entries / entry.digest / _ENTRY, self._sealed(entry))
        return entry

    def _read(self, digest: str) -> Entry:
        raw = sealed.read_plain(self._entries / digest, _ENTRY, _MAX_ENTRY_BYTES)
        wrong = f"{_ENTRY} of engine {digest[:12]} is not what was written here"
        try:
            document = json.loads(raw)
            body, seal = document["entry"], document["mac"]
            is_whole = sealed.canonical(document) == raw
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BuildError(f"{wrong}: {error}", "integrity") from error
        wanted = sealed.mac(self._key, f"scanside entry {_SCHEMA}", sealed.canonical(body))
        if not is_whole or not sealed.same(str(seal), wanted):
            raise BuildError(f"{wrong}: its MAC does not match (altered, or mac.key was replaced)", "integrity")
        # From here on these are our own bytes.
        del body["schema"]
        key = EngineKey(**{**body["key"], "onnx": tuple(body["key"]["onnx"])})
        entry = Entry(**{**body, "key": key, "plans": tuple((size, seal) for size, seal in body["plans"])})
        if entry.digest != digest:
            raise BuildError(f"{wrong}: it belongs to engine {entry.digest[:12]}", "integrity")
        return entry

    def _set_aside(self, digest: str, why: str) -> BuildError:
        name = f"{digest[:64]}-{time.time_ns():020d}"
        try:
            (self._entries / digest).rename(self._aside / name)
            (self._aside / f"{name}.why").write_text(why, "utf-8")
        except OSError as error:  # another process was faster, or the disk fails: it is not loaded either way
            log.warning("engine %s could not be set aside: %s", digest[:12], error.strerror)
        log.warning("engine %s is set aside: %s", digest[:12], why)
        return BuildError(
            f"{why}. Engine {digest[:12]} is set aside in {self._aside} and not loaded; build it again, and find out "
            "who wrote there",
            "integrity",
        )


def _superfluous(entries: Sequence[Entry], keep: int, serving: set[str]) -> list[str]:
    """Digests of what ``gc`` removes; ``entries`` newest first."""
    counted: Counter[tuple[str, ...]] = Counter()
    gone = []
    for entry in entries:
        kind = (entry.package, entry.flavour, entry.precision)
        ready = (*kind, "ready")
        place = ready if entry.state == "ready" else (*kind, "other")
        is_overtaken = entry.state != "ready" and counted[ready] > 0
        counted[place] += 1
        if (is_overtaken or counted[place] > keep) and entry.digest not in serving:
            gone.append(entry.digest)
    return gone


def _plan_name(index: int) -> str:
    return f"stage-{index}.plan"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _when(path: Path) -> str:
    return path.name.rpartition("-")[2]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
