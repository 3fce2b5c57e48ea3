"""What the worker keeps while it lives: open packages, and slices that were prepared before they are needed.

Prepared slices are small (one of a head takes some 100 KB) and kept up to a budget; the series that was used longest
ago goes first. Raw pixels are never kept.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.triage.engine_messages import EngineWish, KServeWish
from appliance.triage.protocol import SeriesKind
from appliance.triage.serving import OpenPackage, Plan
from appliance.triage.workbench import Piece
from engines.errors import PackageError
from engines.package import load_package
from engines.pipeline import Pipeline
from engines.signing import load_public
from engines.store import Entry

#: Of all series together: five heads of 300 slices.
BUDGET_BYTES = 192 << 20


@dataclass(slots=True)
class _Series:
    kind: SeriesKind
    packages: tuple[str, ...] = ()
    pieces: dict[str, Piece] = field(default_factory=dict)
    size_bytes: int = 0


class Shelf:
    """Packages by name, prepared instances by series and version. One thread uses it: sessions belong to a thread."""

    def __init__(
        self,
        *,
        threads: int = 0,
        trusted: Sequence[Path] = (),
        backend: str = "onnxruntime",
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        """Begin empty.

        Args:
            threads: Of one inference; 0 = all cores.
            trusted: Folders of packages that a test made.
            backend: What runs graphs.
            budget_bytes: How much prepared data is kept.
        """
        self._threads = threads or len(os.sched_getaffinity(0))
        self._trusted = frozenset(folder.resolve() for folder in trusted)
        self._backend = backend
        self._budget_bytes = budget_bytes
        self._packages: dict[str, OpenPackage] = {}
        self._series: OrderedDict[str, _Series] = OrderedDict()

    def load(
        self,
        name: str,
        folder: Path,
        digest: str,
        keys: Sequence[str] = (),
        *,
        engine: EngineWish | None = None,
        kserve: KServeWish | None = None,
        no_engine: str = "",
    ) -> OpenPackage:
        """Open a package and let it show that it works; another of that name is closed first.

        Args:
            name: What the daemon calls it: the package's name, or ``name@version``.
            folder: Where it lies.
            digest: What the daemon has read there.
            keys: PEM of the keys of which one must have signed it, unless it came with this software.
            engine: On which it should run.
            kserve: On whose server it should run; without it and ``engine`` it is the reference.
            no_engine: Why it must run on the reference all the same.

        Raises:
            PackageError: It is not trusted, not the one that the daemon has read, or breaks the schema.
            SessionError: The backend refuses its graph, or a golden case got another answer.
        """
        self.unload(name)
        trusted = folder.resolve() in self._trusted
        package = load_package(folder, keys=[load_public(pem) for pem in keys], trusted=trusted)
        if (package.name, package.digest) != (name.partition("@")[0], digest):
            raise PackageError(f"{folder} is no longer the package that the daemon has read; restart the daemon")
        plan = Plan(backend=self._backend, threads=self._threads, wish=engine, kserve=kserve, no_engine=no_engine)
        opened = OpenPackage(package, plan)
        self._packages[name] = opened
        return opened

    def unload(self, name: str) -> None:
        """Close a package; nothing if there is none of that name."""
        opened = self._packages.pop(name, None)
        if opened is not None:
            opened.close()

    def package(self, name: str) -> OpenPackage | None:
        """An open package."""
        return self._packages.get(name)

    def entries(self) -> list[Entry]:
        """The engines that serve now."""
        return [opened.entry for opened in self._packages.values() if opened.entry is not None]

    def begin(self, series_key: str, kind: SeriesKind, packages: tuple[str, ...]) -> None:
        """A series begins that these packages may want."""
        self._series.setdefault(series_key, _Series(kind, packages))

    def kind_of(self, series_key: str) -> SeriesKind | None:
        """What a series that has begun consists of."""
        series = self._series.get(series_key)
        return series.kind if series is not None else None

    def wants(self, series_key: str, version_key: str) -> tuple[Pipeline, ...]:
        """For whom an instance is to be prepared ahead of time; empty: for nobody."""
        series = self._series.get(series_key)
        if series is None or version_key in series.pieces or series.size_bytes > self._budget_bytes:
            return ()
        return tuple(self._packages[name].pipeline for name in series.packages if name in self._packages)

    def put(self, series_key: str, version_key: str, piece: Piece) -> None:
        """Keep a prepared instance; other series give way."""
        series = self._series.setdefault(series_key, _Series("ct"))
        before = series.pieces.get(version_key)
        series.size_bytes += piece.size_bytes - (before.size_bytes if before is not None else 0)
        series.pieces[version_key] = piece.without_image()
        self._series.move_to_end(series_key)
        while len(self._series) > 1 and sum(one.size_bytes for one in self._series.values()) > self._budget_bytes:
            self._series.popitem(last=False)

    def get(self, series_key: str, version_key: str, preparation: str) -> Piece | None:
        """An instance that was prepared so (``OpenInput.preparation``)."""
        series = self._series.get(series_key)
        piece = series.pieces.get(version_key) if series is not None else None
        return piece if piece is not None and preparation in piece.prepared else None

    def drop(self, series_key: str) -> None:
        """Forget a series."""
        self._series.pop(series_key, None)

    def drop_all(self) -> None:
        """Forget all series: memory has ended."""
        self._series.clear()
