"""What the commands of engines share: the folder of engines, packages by name, a build without a daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from appliance.cli.common import opened
from appliance.commands import NotAllowed
from appliance.config import Config
from appliance.errors import ApplianceError, NotFoundError
from appliance.store import Store
from appliance.store.package_files import PackageFiles
from appliance.triage.engine_messages import Precision
from appliance.triage.engines import wished_precision
from appliance.triage.packages import trusted_keys
from engines.build import build_engine, build_limits
from engines.errors import EngineError
from engines.package import Package, bundled_packages, load_package, parse_manifest
from engines.prove import prove_engine, prove_limits
from engines.store import EngineStore, Entry

PRECISION = click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Default: as configured.")
BACKEND = click.option(
    "--backend", type=click.Choice(["onnxruntime", "tensorrt", "tensorrt_rtx"]), help="Default: as configured."
)


class EngineFailed(ApplianceError):  # noqa: N818 - what a command reports, not a fault of it
    """An engine was not built, or is not what it should be."""


def store_of(config: Config) -> EngineStore:
    """The engines of a box, as the service's own user: files of another owner would lock the service out.

    Raises:
        NotAllowed: The state folder belongs to another user.
        EngineFailed: The folder is not safe to use.
    """
    folder = config.state_path
    try:
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            msg = f"{folder} belongs to another user; call it as the service's, with 'sudo -u scanside scanside ...'"
            raise NotAllowed(msg)
        folder.mkdir(parents=True, exist_ok=True)
        return EngineStore(config.engines_path)
    except OSError as error:
        raise EngineFailed(f"{config.engines_path} cannot be used: {error.strerror}") from error
    except EngineError as error:
        raise EngineFailed(str(error)) from error


def package_named(config: Config, name: str) -> Package:
    """A package that came with this software or runs on this box, by ``name`` or ``name@version``.

    Raises:
        NotFoundError: There is none.
        EngineFailed: Its files are not what they should be.
    """
    wanted, _, version = name.partition("@")
    try:
        if (config.state_path / "scanside.db").exists():
            with opened(config) as store:
                for row in store.packages.all():
                    fits = row.name == wanted and version in ("", row.version)
                    if fits and row.runs and row.origin == "installed":
                        folder = PackageFiles(config.state_path).path(row.folder)
                        return load_package(folder, keys=trusted_keys(config))
        if wanted in bundled_packages():
            package = load_package(bundled_packages()[wanted])
            if version in ("", package.version):
                return package
    except EngineError as error:
        raise EngineFailed(str(error)) from error
    msg = f"no package {name!r} is here; 'scanside model list' shows those that are"
    raise NotFoundError(msg)


def precision_here(config: Config, store: Store, name: str) -> Precision:
    """The precision in which a package runs on this box, by ``name`` or ``name@version``; as configured if it does not.

    Raises:
        EngineFailed: This software no longer understands the package.
    """
    for row in store.packages.all():
        if row.runs and name in (row.name, f"{row.name}@{row.version}"):
            try:
                return wished_precision(config, parse_manifest(store.packages.manifest(row.id).encode(), name))
            except EngineError as error:
                raise EngineFailed(str(error)) from error
    return config.engines.precision


def serving(config: Config) -> set[str]:
    """Digests of the engines that serve on this box, or did until it was stopped."""
    if not (config.state_path / "scanside.db").exists():
        return set()
    with opened(config) as store:
        return store.engines.serving()


def entry_named(config: Config, digest: str) -> tuple[EngineStore, Entry]:
    """An engine by the beginning of its digest.

    Raises:
        NotFoundError: There is none, or several begin so.
    """
    store = store_of(config)
    found = [entry for entry in store.entries() if entry.digest.startswith(digest)]
    if len(found) != 1:
        msg = f"{len(found)} engines begin with {digest!r}; 'scanside engine list' shows them"
        raise NotFoundError(msg)
    return store, found[0]


def entry_row(entry: Entry) -> dict[str, Any]:
    """An engine for a list."""
    names = ("digest", "package", "version", "flavour", "precision", "state", "built_at", "reason")
    return {name: getattr(entry, name) for name in names}


def case_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a report of acceptance says, a line a case."""
    for case in report.get("cases", ()):
        apart = ", ".join(f"{what} {value:.3g}" for what, value in case["differences"].items())
        yield f"{case['name']}: {'; '.join(case['faults']) or 'as the reference'} {apart}".rstrip()


def direct_build(
    config: Config,
    name: str,
    flavour: str,
    precision: str | None,
    capabilities: tuple[str, ...],
    say: Callable[[str, float | None], None],
) -> dict[str, Any]:
    """Build and prove in children of this process: no daemon runs, or the engine is for another machine.

    Raises:
        EngineFailed: No engine came of it.
    """
    package, store = package_named(config, name), store_of(config)
    limits = build_limits(wall_s=config.engines.build_limit_s, memory_mb=config.engines.build_memory_mb)
    try:
        entry = build_engine(
            package,
            precision=precision or wished_precision(config, package.manifest),
            flavour=flavour,
            store=store,
            compute_capabilities=capabilities,
            limits=limits,
            on_progress=lambda told: say(told["step"], told["stage"] / told["stages"]),
        )
        if not capabilities:
            entry = prove_engine(
                package,
                entry,
                store,
                limits=prove_limits(package, wall_s=config.engines.build_limit_s),
                on_progress=lambda told: say("accept", told["share"]),
            )
    except EngineError as error:
        raise EngineFailed(f"no engine was built: {error}") from error
    if entry.state == "rejected":
        raise EngineFailed(f"the engine was built and rejected: {entry.reason}")
    if capabilities:
        say(f"built for compute capability {', '.join(capabilities)}; it is proven on such a machine only", None)
    return {**entry_row(entry), "engine_digest": entry.digest, "seconds": entry.facts.get("seconds")}
