"""``scanside engine``: engines on this box, from building to looking inside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, is_running, me, opened, read_config
from appliance.cli.engine_work import (
    BACKEND,
    PRECISION,
    EngineFailed,
    case_lines,
    direct_build,
    entry_named,
    entry_row,
    precision_here,
    serving,
    store_of,
)
from appliance.commands import Group, json_option, print_json, print_table
from appliance.store import Store
from appliance.store.facts import Kind

_NEWS = (Kind.ENGINE_BUILDING, Kind.ENGINE_READY, Kind.ENGINE_REJECTED)


@click.group(cls=Group)
def engine() -> None:
    """Engines: what packages run on; built on this box, proven before they serve."""


engine.add_lazy(
    {"bench": "appliance.cli.engine_bench:bench", "compare": "appliance.cli.engine_bench:compare"},
)


@engine.command()
@click.argument("package")
@PRECISION
@BACKEND
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    metavar="8.6",
    help="Build for GPUs that are not here (tensorrt_rtx); shows that it can be built, not that it is right.",
)
@config_option
@json_option
def build(
    package: str,
    precision: str | None,
    backend: str | None,
    capabilities: tuple[str, ...],
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Build an engine and prove it. On a running box its worker does it, and studies go on; Ctrl-C cancels."""
    config = read_config(config_path, site)
    flavour = backend or config.engines.backend
    if is_running(config) and not capabilities:
        with opened(config) as store:
            answer = _ask(store, package, flavour, precision or precision_here(config, store, package))
    else:
        answer = direct_build(config, package, flavour, precision, capabilities, _say)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"engine {answer['engine_digest'][:12]} of {package} is {answer['state']}")


def _ask(store: Store, package: str, flavour: str, precision: str) -> dict[str, Any]:
    """Have the daemon's worker build, and follow the journal until it has ended."""
    cursor = store.journal.last_seq()
    store.engines.ask_build(package, flavour, precision, me())
    is_cancelled = False
    while True:
        try:
            store.journal.wait(cursor, 1.0)
            for fact in store.journal.after(cursor, kinds=_NEWS):
                cursor = fact.seq
                body = fact.body
                if (body["package"], body["flavour"], body["precision"]) != (package, flavour, precision):
                    continue
                if fact.kind is Kind.ENGINE_READY:
                    return {**body, "state": "ready"}
                if fact.kind is Kind.ENGINE_REJECTED:
                    raise EngineFailed(f"no engine was built ({body['cause']}): {body['why']}")
                _say(body["step"], body["share"])
        except KeyboardInterrupt:
            if is_cancelled:
                raise
            is_cancelled = True
            click.echo("cancelling ...; once more, to leave without waiting for its end", err=True)
            store.engines.ask_cancel(me())


def _say(step: str, share: float | None) -> None:
    words = {"lower": "lowering the graph", "build": "building", "accept": "comparing with the reference"}
    done = f" {share:.0%}" if share else ""
    click.echo(f"{time.strftime('%H:%M:%S')}  {words.get(step, step)}{done}", err=True)


@engine.command()
@config_option
def cancel(config_path: Path, site: Path | None) -> None:
    """Cancel the build that runs. What serves goes on serving."""
    with opened(read_config(config_path, site)) as store:
        store.engines.ask_cancel(me())
    click.echo("the build that runs is asked to end")


@engine.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Every engine on this box, what builds now, and what was set aside."""
    config = read_config(config_path, site)
    store = store_of(config)
    rows = [entry_row(entry) for entry in store.entries()]
    building, aside = store.in_progress(), store.aside()
    if as_json:
        print_json(
            {
                "engines": rows,
                "building": {"package": building.package, "since": building.since} if building else None,
                "set_aside": [{"name": one.name, "why": one.why} for one in aside],
            }
        )
        return
    print_table(
        "Engines",
        ["Engine", "Package", "Runs on", "State", "Built", "Why"],
        [
            [
                row["digest"][:12],
                f"{row['package']} {row['version']}",
                f"{row['flavour']} {row['precision']}",
                row["state"],
                row["built_at"][:19],
                row["reason"],
            ]
            for row in rows
        ],
        "No engine has been built; ONNX Runtime serves with the packages' own graphs.",
    )
    if building is not None:
        click.echo(f"building: {building.package} since {building.since[:19]}")
    for one in aside:
        click.echo(f"set aside: {one.name}: {one.why}")


@engine.command()
@click.argument("digest")
@config_option
@json_option
def show(digest: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """One engine: what it was built of, and the report of its acceptance."""
    _, entry = entry_named(read_config(config_path, site), digest)
    if as_json:
        key = {name: getattr(entry.key, name) for name in entry.key.__slots__}
        print_json({**entry_row(entry), "key": key, "facts": dict(entry.facts), "report": dict(entry.report)})
        return
    for name, value in entry_row(entry).items():
        click.echo(f"{name}: {value}")
    for name in entry.key.__slots__:
        click.echo(f"  {name}: {getattr(entry.key, name)}")
    for line in case_lines(entry.report):
        click.echo(f"  {line}")


@engine.command()
@click.argument("digest")
@config_option
@json_option
def inspect(digest: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What an engine's plans hold; nothing is loaded into a runtime."""
    from engines.errors import EngineError
    from engines.inspection import inspect as look

    store, entry = entry_named(read_config(config_path, site), digest)
    try:
        described = look(store, entry)
    except EngineError as error:
        raise EngineFailed(str(error)) from error
    if as_json:
        print_json({"engine": entry.digest, "stages": described})
        return
    for stage in described:
        for name, value in stage.items():
            click.echo(f"{'stage ' if name == 'stage' else '  ' + name + ': '}{value}")


@engine.command()
@click.option("--keep", type=click.IntRange(min=1), help="Of each package, backend and precision; default: configured.")
@config_option
@json_option
def gc(keep: int | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Remove old engines; the newest accepted ones stay, and those that serve."""
    config = read_config(config_path, site)
    gone = store_of(config).gc(keep=keep or config.engines.keep, serving=serving(config))
    print_json({"removed": gone}) if as_json else click.echo(f"{len(gone)} engines removed")
