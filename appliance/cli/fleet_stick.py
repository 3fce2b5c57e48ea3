"""``scanside fleet export`` and ``import``: for a box without any network, by a file that somebody carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.common import config_option, is_running, opened, read_config
from appliance.clock import SystemClock, clock_quality
from appliance.commands import Exit, json_option, print_json
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.desk import inbox_of
from appliance.fleet.device.identity import FOLDER
from appliance.fleet.device.inbox import Inbox
from appliance.fleet.device.stick import Exporter, bring, ended_well
from appliance.fleet.device.stick_files import take_stick
from appliance.fleet.wire_stick import MOST_IMPORT_BYTES, is_stick, open_stick
from appliance.records import AnalysisResult
from appliance.store import Store
from appliance.store.ending import OwedResult

if TYPE_CHECKING:
    from appliance.fleet.wire_records import Clk


def _inbox(config: Config, store: Store) -> Inbox:
    clock = SystemClock()

    def owed(package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        from appliance.triage.packages import owed_results

        return owed_results(config, package, result)

    def clk() -> Clk:
        return clock_quality(clock.now())

    return inbox_of(config, store, clock, owed, clk)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--all", "everything", is_flag=True, help="Also what an earlier file held and the server has not taken.")
@config_option
@json_option
def export(file: Path, everything: bool, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Write health, records and states of jobs since the last export into FILE, signed by this box; no patient data."""
    config = read_config(config_path, site)
    with opened(config) as store:
        told = Exporter(store, Contents(store, config, SystemClock()), _inbox(config, store)).write(
            file, everything=everything
        )
    if as_json:
        print_json({"file": str(file), "records": told.records, "bytes": told.size, "more": told.more})
        return
    click.echo(f"{file}: {told.records} records, {told.size} bytes; the service team's server takes it in")
    if told.more:
        click.echo("the file is full: call it again with another name for the rest")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@config_option
@json_option
def import_(file: Path, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Take in FILE from the service team: jobs, desired document, acknowledgements, models; checked as by network."""
    config = read_config(config_path, site)
    with opened(config) as store:
        inbox = _inbox(config, store)
        data, files = _taken(file, config, inbox)
        found = bring(data, store, inbox)
    if as_json:
        print_json({"file": str(file), "files": files, "envelopes": [vars_of(one) for one in found]})
    else:
        if files:
            click.echo(f"{files} files for models; they are used where their signatures hold")
        for one in found:
            click.echo(f"{one.kind} {one.ref}: {one.result} {one.code}".rstrip())
        waits = any(one.kind == "job" and one.result == "ACCEPTED" for one in found)
        if waits and not is_running(config):
            click.echo("the box does not run; its jobs are done from its next start")
    if not ended_well(found):
        raise SystemExit(Exit.CHECK_FAILED)


def _taken(file: Path, config: Config, inbox: Inbox) -> tuple[bytes, int]:
    """The envelopes of a file; and how many others it had, which lie where jobs look for models."""
    try:
        if not is_stick(file):
            with file.open("rb") as opened_file:
                return opened_file.read(MOST_IMPORT_BYTES + 1), 0
        _ = inbox.identity  # a box of no fleet keeps nothing
        with open_stick(file) as stick:
            data = stick.envelopes()
            take_stick(config.state_path / FOLDER, stick)
            return data, len(stick.files)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def vars_of(one: object) -> dict[str, str]:
    """The fields of a result."""
    return {name: getattr(one, name) for name in ("kind", "ref", "result", "code")}
