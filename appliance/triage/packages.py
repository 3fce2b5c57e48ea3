"""The packages that this box runs: loaded once at start, checked against the site's mode and its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.config import Config
from appliance.errors import ConfigError
from appliance.records import AnalysisResult, DeliveryKind, Role
from appliance.store.analyses import OwedResult
from engines.errors import PackageError
from engines.package import Package, bundled_packages, load_package


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One package that runs here, in its role, with the site's operating points."""

    package: Package
    role: Role
    operating_points: Mapping[str, str]


def load_packages(config: Config, trusted_folders: Sequence[Path] = ()) -> dict[str, Running]:
    """Load what the configuration names.

    Args:
        config: The configuration.
        trusted_folders: Folders of packages that a test made; no configuration key reaches this.

    Raises:
        ConfigError: A package is not there or broken, is not fit for the site's mode, or has no such operating point.
    """
    loaded: dict[str, Package] = {}
    for folder, trusted in [(path, False) for path in bundled_packages()] + [(path, True) for path in trusted_folders]:
        try:
            package = load_package(folder, trusted=trusted)
        except PackageError as error:
            raise ConfigError(str(error)) from error
        loaded[package.name] = package
    running = {}
    for choice in config.packages:
        found = loaded.get(choice.name)
        if found is None:
            msg = f"packages: {choice.name!r} is not installed; installed are {', '.join(sorted(loaded)) or 'none'}"
            raise ConfigError(msg)
        _check_mode(config, found, choice.role)
        for finding_id, point in choice.operating_points.items():
            try:
                found.manifest.finding(finding_id).point(point)
            except KeyError as error:
                offered = {one.id: [p.name for p in one.operating_points] for one in found.manifest.findings}
                msg = f"packages: {choice.name}: no operating point {finding_id}: {point}; the package has {offered}"
                raise ConfigError(msg) from error
        running[choice.name] = Running(package=found, role=choice.role, operating_points=choice.operating_points)
    for one in running.values():
        for requirement in one.package.manifest.requires:
            if requirement.package not in running:
                msg = f"packages: {one.package.name} requires {requirement.package}; add it to 'packages'"
                raise ConfigError(msg)
    return running


def _check_mode(config: Config, package: Package, role: Role) -> None:
    """A demonstrator never raises a real alarm (DESIGN §1.7)."""
    if config.site.mode != "clinical":
        return
    status = package.manifest.status
    if status != "cleared":
        msg = f"packages: {package.name} has status {status} and cannot run in clinical mode; set site.mode: evaluation"
        raise ConfigError(msg)
    if role is Role.LIVE:
        msg = f"packages: {package.name}: in clinical mode every package starts with role: silent"
        raise ConfigError(msg)


def owed_results(config: Config, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
    """Which result objects which destinations are owed for an analysis.

    In evaluation mode only destinations of purpose test get results (DESIGN §1.7).
    """
    return tuple(
        OwedResult(destination=destination.name, kind=kind)
        for destination in config.destinations
        if result.outcome in destination.outcomes
        and (not destination.packages or package in destination.packages)
        and (config.site.mode == "clinical" or destination.purpose == "test")
        for kind in destination.send
        if kind is not DeliveryKind.ORIGINAL
    )
