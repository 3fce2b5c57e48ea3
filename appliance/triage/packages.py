"""The packages that this box runs: the configuration's choice checked, and what the store says runs now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.config import Config
from appliance.errors import ConfigError, ConflictError
from appliance.records import AnalysisResult, DeliveryKind, Role
from appliance.report.kinds import applies
from appliance.store import Store
from appliance.store.ending import OwedResult, Owing
from appliance.store.installing import Site
from appliance.store.package_files import PackageFiles
from appliance.store.package_rows import PackageRow, PackageState, seen
from appliance.store.package_sync import Choice
from appliance.triage.engine_messages import EngineWish, KServeWish
from appliance.triage.protocol import Load
from engines.contents import MANIFEST_NAME
from engines.errors import PackageError
from engines.manifest import Manifest
from engines.package import Package, bundled_packages, load_package, parse_manifest
from engines.signing import PublicKey, load_public


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One version of a package that runs here, in its role, with the site's operating points.

    Attributes:
        package: Manifest, digest and folder. Of an installed one the files are not read here: the worker checks them
            against signature and digest before it opens them.
        role: What its analyses may do.
        operating_points: finding: point, where the site picked one.
        key: What the worker knows it by: its name, or ``name@version`` for a second one beside it.
    """

    package: Package
    role: Role
    operating_points: Mapping[str, str]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """What runs at one moment.

    Attributes:
        running: By key.
        withdrawn: Packages whose live version was taken out of service and that nothing replaces.
        seen: The rows that this rests on, for ``Analyses.route``.
    """

    running: Mapping[str, Running] = field(default_factory=dict)
    withdrawn: tuple[Package, ...] = ()
    seen: frozenset[tuple[str, str, str]] | None = None

    def of(self, name: str, version: str) -> Running | None:
        """The version of a package, if it runs."""
        for one in self.running.values():
            if (one.package.name, one.package.version) == (name, version):
                return one
        return None


class RunningPackages(Mapping[str, Running]):
    """What runs by key, as the store has it at this moment: a change by any process is seen at the next look.

    A version keeps its key while it runs, so that going live, or back, moves nothing in the worker.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        trusted_folders: Sequence[Path] = (),
        *,
        wish: Callable[[Manifest], EngineWish | None] = lambda _: None,
        kserve: Callable[[Manifest], KServeWish | None] = lambda _: None,
    ) -> None:
        """Bring the store in line with the configuration, and look for the first time.

        Args:
            store: The box's.
            config: Its configuration.
            trusted_folders: Packages that a test made; no configuration key reaches this.
            wish: On which engine a package should run.
            kserve: On which KServe server a package should run.

        Raises:
            ConfigError: A package is not fit for the site's mode, or a trusted key cannot be read.
        """
        self._store = store
        self._wish = wish
        self._kserve = kserve
        self._config = config
        self._files = PackageFiles(config.state_path)
        self._keys = tuple(key.pem() for key in trusted_keys(config))
        self._packages = _here(trusted_folders)
        self._known: dict[int, Package] = {}
        self._held: dict[int, str] = {}
        self._last: tuple[list[PackageRow], Now] = ([], Now())
        self._lock = threading.Lock()
        chosen = _chosen(config, self._packages)
        self.owed: Owing = lambda package, result: owed_results(config, package, result)
        store.packages.sync(
            [
                Choice(
                    name=name,
                    version=one.package.version,
                    digest=one.package.digest,
                    manifest=one.package.data(MANIFEST_NAME).decode("utf-8"),
                    role=one.role,
                    operating_points=one.operating_points,
                    template=one.package.manifest.template.en if one.package.manifest.template else "",
                )
                for name, one in chosen.items()
            ],
            clinical=config.site.mode == "clinical",
            owed=self.owed,
        )
        for one in self.now().running.values():
            _check_mode(config, one.package, Role.SILENT)

    def now(self) -> Now:
        """What runs now."""
        with self._lock:
            rows = self._store.packages.all()
            if rows != self._last[0]:
                self._last = (rows, self._look(rows))
            return self._last[1]

    def __getitem__(self, key: str) -> Running:
        """The version that the worker knows by this key."""
        return self.now().running[key]

    def __iter__(self) -> Iterator[str]:
        """The keys of what runs now."""
        return iter(self.now().running)

    def __len__(self) -> int:
        """How many versions run now."""
        return len(self.now().running)

    def loads(self, now: Now | None = None) -> list[Load]:
        """What the worker is to have loaded."""
        return [
            Load(
                package=one.key,
                folder=str(one.package.path),
                digest=one.package.digest,
                role=one.role,
                keys=self._keys if one.package.signed_by else (),
                engine=self._wish(one.package.manifest),
                kserve=self._kserve(one.package.manifest),
            )
            for one in (now or self.now()).running.values()
        ]

    def known(self) -> dict[str, tuple[Package, bool]]:
        """Every version that the box has known, as ``name@version``, the serving one also as ``name``; is it live?"""
        found: dict[str, tuple[Package, bool]] = {}
        for row in self._store.packages.all():
            package = self._package(row)
            if package is not None:
                found[f"{row.name}@{row.version}"] = (package, False)
                is_live = row.state is PackageState.LIVE
                if is_live or not found.get(row.name, (package, False))[1]:
                    found[row.name] = (package, is_live)
        return found

    def _look(self, rows: Sequence[PackageRow]) -> Now:
        runs = [row for row in rows if row.runs]
        self._held = {row.id: self._held[row.id] for row in runs if row.id in self._held}
        running: dict[str, Running] = {}
        # The serving version first: the plain name is for it, unless another has it still.
        for row in sorted(runs, key=lambda row: (row.state is not PackageState.LIVE, row.id)):
            package = self._package(row)
            if package is None:
                continue
            if row.id not in self._held:
                is_free = row.name not in self._held.values()
                self._held[row.id] = row.name if is_free else f"{row.name}@{row.version}"
            key = self._held[row.id]
            running[key] = Running(package=package, role=row.role, operating_points=row.operating_points, key=key)
        live = {row.name for row in runs if row.state is PackageState.LIVE}
        withdrawn = [self._package(row) for row in rows if row.is_missed and row.name not in live]
        return Now(running, tuple(one for one in withdrawn if one is not None), seen(list(rows)))

    def _package(self, row: PackageRow) -> Package | None:
        """A version as its row describes it; None where this software no longer understands its manifest."""
        if row.id not in self._known:
            mine = self._packages.get(row.name)
            if row.origin == "config" and mine is not None and mine.digest == row.digest:
                self._known[row.id] = mine
            else:
                try:
                    manifest = parse_manifest(
                        self._store.packages.manifest(row.id).encode(), f"{row.name} {row.version}"
                    )
                except PackageError:
                    return None
                self._known[row.id] = Package(
                    self._files.path(row.folder or row.name), manifest, row.digest, {}, row.signed_by
                )
        return self._known[row.id]


def trusted_keys(config: Config) -> list[PublicKey]:
    """The keys whose signatures this site trusts.

    Raises:
        ConfigError: A file is missing or no public key.
    """
    try:
        return [load_public(path) for path in config.trusted_keys]
    except PackageError as error:
        raise ConfigError(f"trusted_keys: {error}") from error


def asked_of(config: Config) -> Site:
    """What this box asks of a package that is to be installed.

    Raises:
        ConfigError: As ``trusted_keys``.
    """
    return Site(
        keys=trusted_keys(config),
        ct_deadline_s=config.triage.ct_deadline_s,
        xray_deadline_s=config.triage.xray_deadline_s,
        threads=config.triage.worker_threads,
    )


def load_packages(config: Config, trusted_folders: Sequence[Path] = ()) -> dict[str, Running]:
    """Load what the configuration names: packages that came with this software.

    Args:
        config: The configuration.
        trusted_folders: Folders of packages that a test made; no configuration key reaches this.

    Raises:
        ConfigError: A package is not there or broken, is not fit for the site's mode, or has no such operating point.
    """
    return _chosen(config, _here(trusted_folders))


def _chosen(config: Config, loaded: Mapping[str, Package]) -> dict[str, Running]:
    """What the configuration names of the packages that are here."""
    running = {}
    for choice in config.packages:
        found = loaded.get(choice.name)
        if found is None:
            msg = (
                f"packages: {choice.name!r} did not come with this software; installed are "
                f"{', '.join(sorted(loaded)) or 'none'}. Others are not named here but installed: 'scanside model'"
            )
            raise ConfigError(msg)
        _check_mode(config, found, choice.role)
        for finding_id, point in choice.operating_points.items():
            try:
                found.manifest.finding(finding_id).point(point)
            except KeyError as error:
                offered = {one.id: [p.name for p in one.operating_points] for one in found.manifest.findings}
                msg = f"packages: {choice.name}: no operating point {finding_id}: {point}; the package has {offered}"
                raise ConfigError(msg) from error
        running[choice.name] = Running(
            package=found, role=choice.role, operating_points=choice.operating_points, key=choice.name
        )
    for one in running.values():
        for requirement in one.package.manifest.requires:
            if requirement.package not in running:
                msg = f"packages: {one.package.name} requires {requirement.package}; add it to 'packages'"
                raise ConfigError(msg)
    return running


def _here(trusted_folders: Sequence[Path]) -> dict[str, Package]:
    """The packages that came with this software, and those of a test, by name; each is read once."""
    try:
        found = [load_package(folder) for folder in bundled_packages().values()]
        found += [load_package(folder, trusted=True) for folder in trusted_folders]
    except PackageError as error:
        raise ConfigError(str(error)) from error
    return {package.name: package for package in found}


def _check_mode(config: Config, package: Package, role: Role) -> None:
    """A demonstrator never raises a real alarm (DESIGN §1.7)."""
    if config.site.mode != "clinical":
        return
    status = package.manifest.status
    if status != "cleared":
        msg = (
            f"packages: {package.name} has status {status} and cannot run in clinical mode; set site.mode: evaluation, "
            f"or take it out: of 'packages', or with 'scanside model withdraw {package.name}'"
        )
        raise ConfigError(msg)
    if role is Role.LIVE:
        msg = f"packages: {package.name}: in clinical mode every package starts with role: silent"
        raise ConfigError(msg)


def recover_packages(store: Store) -> int:
    """Remove what an interrupted installation left. Returns how many folders went."""
    files = PackageFiles(store.db.path.parent)
    try:
        with files.locked():
            return files.recover(store.packages.folders())
    except ConflictError:
        return 0  # somebody installs at this very moment, and tidies first


def owed_results(
    config: Config, package: str, result: AnalysisResult, *, intended_use: str = ""
) -> tuple[OwedResult, ...]:
    """Which result objects which destinations are owed for an analysis.

    In evaluation mode only destinations of purpose test get results (DESIGN §1.7).

    Args:
        config: The destinations.
        package: Its name.
        result: Of the analysis.
        intended_use: Of the package; only what tells of a finding goes by it.
    """
    return tuple(
        OwedResult(destination=destination.name, kind=kind)
        for destination in config.destinations
        if result.outcome in destination.outcomes
        and (not destination.packages or package in destination.packages)
        and (config.site.mode == "clinical" or destination.purpose == "test")
        for kind in destination.send
        if kind is not DeliveryKind.ORIGINAL and applies(kind, intended_use, result)
    )
