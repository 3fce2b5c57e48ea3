"""``scanside engine bench`` and ``compare``: an engine beside the reference."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, read_config
from appliance.cli.engine_work import BACKEND, PRECISION, EngineFailed, case_lines, package_named, store_of
from appliance.commands import Exit, json_option, print_json, print_table
from appliance.config import Config
from appliance.triage.engines import wished_precision
from engines.accept import accept
from engines.errors import EngineError
from engines.measure import measure
from engines.package import Package
from engines.pipeline import Pipeline
from engines.session import open_engine
from engines.store import EngineStore, Entry

_SHOWN = ("open_ms", "first_ms")


def _accepted(
    config: Config, package: Package, backend: str | None, precision: str | None
) -> tuple[EngineStore, Entry]:
    store = store_of(config)
    flavour, precision = backend or config.engines.backend, precision or wished_precision(config, package.manifest)
    entry = store.ready(package.digest, flavour, precision)
    if entry is None:
        msg = f"{package.name} has no accepted engine {flavour} {precision}; build it with 'scanside engine build'"
        raise EngineFailed(msg)
    return store, entry


@click.command()
@click.argument("package")
@PRECISION
@BACKEND
@click.option("--runs", type=click.IntRange(min=1, max=100_000), default=200, show_default=True)
@config_option
@json_option
def bench(
    package: str,
    precision: str | None,
    backend: str | None,
    runs: int,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Time an engine and the reference on a golden case: opening, first run, then p50, p95, p99."""
    config = read_config(config_path, site)
    taken = package_named(config, package)
    store, entry = _accepted(config, taken, backend, precision)
    try:
        found = {
            "engine": measure(taken, entry, store, runs=runs),
            "reference": measure(taken, None, None, runs=runs),
        }
    except EngineError as error:
        raise EngineFailed(str(error)) from error
    if as_json:
        print_json({"package": taken.name, "engine_digest": entry.digest, "runs": runs, **found})
        return
    rows = []
    for name, one in found.items():
        for mode in ("plain", "graph"):
            if one[mode] is not None:
                times = [one[key] for key in _SHOWN] + list(one[mode].values())
                rows.append([f"{name} ({mode})", *(f"{value:.2f}" for value in times)])
    print_table(f"{taken.name}, ms", ["", "Open", "First", "p50", "p95", "p99", "Max"], rows, "")


@click.command()
@click.argument("package")
@PRECISION
@BACKEND
@config_option
@json_option
@click.pass_context
def compare(
    ctx: click.Context,
    package: str,
    precision: str | None,
    backend: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Compare an engine with the reference once more, as acceptance does. Exits 7 if it would be rejected now."""
    config = read_config(config_path, site)
    taken = package_named(config, package)
    store, entry = _accepted(config, taken, backend, precision)
    try:
        sessions = open_engine(entry, store.plans(entry), taken)
        with Pipeline(taken, sessions=sessions) as candidate, Pipeline(taken) as reference:
            report = accept(taken, candidate, reference)
    except EngineError as error:
        raise EngineFailed(str(error)) from error
    if as_json:
        print_json({"engine_digest": entry.digest, **report.as_json()})
    else:
        for line in case_lines(report.as_json()):
            click.echo(line)
    if not report.passed:
        ctx.exit(int(Exit.CHECK_FAILED))
