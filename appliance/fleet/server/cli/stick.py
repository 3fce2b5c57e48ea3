"""``scanside-fleet stick``: boxes without any network, by files that somebody carries."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json
from appliance.errors import ConfigError
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.repository import TUF, Repository
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.server.stick_answer import write_answer
from appliance.fleet.server.sticks import take_file
from appliance.fleet.wire_stick import MOST_EXPORT_BYTES


@click.group(cls=Group)
def stick() -> None:
    """Boxes without any network: take in what one wrote, and write what it is told."""


@stick.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The answer.  [default: FILE.answer.zip]")
@click.option("--models", is_flag=True, help="With the models that its jobs install, and the keys that they bring.")
@config_option
@json_option
def take(file: Path, out: Path | None, models: bool, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Take in FILE ('scanside fleet export' at the box) and write the answer for 'scanside fleet import' there.

    Where the answer gets lost, take the same FILE again.
    """
    config = read_config(config_path)
    out = file.with_name(f"{file.name}.answer.zip") if out is None else out
    try:
        with file.open("rb") as opened_file:
            data = opened_file.read(2 * MOST_EXPORT_BYTES + 1)
        with opened(config) as engine:
            keys = ServerKeys.open(config.folder / KEYS)
            now = SystemClock().now()
            taken = take_file(engine, keys, data, now=now, threshold=config.release_threshold, actor=me())
        files = write_answer(out, taken, Repository(config.folder / TUF) if models else None)
    except OSError as error:
        raise ConfigError(f"{error.filename or file}: {error.strerror}; name a file that is there") from error
    refused = {str(reason): n for reason, n in taken.refused.items()}
    if as_json:
        print_json(
            {
                "device": taken.device,
                "records": taken.records,
                "again": taken.again,
                "refused": refused,
                "is_older": taken.is_older,
                "more": taken.more,
                "acknowledged": taken.acknowledged,
                "document": taken.has_document,
                "jobs": list(taken.jobs),
                "files": list(files),
                "answer": str(out),
            }
        )
        return
    click.echo(f"{taken.device}: {taken.records} new records, {taken.again} that were here", err=True)
    for reason, n in refused.items():
        click.echo(f"{n} letters are refused: {reason}", err=True)
    if taken.is_older:
        click.echo("a newer file was taken before: its records alone count, and it is told nothing", err=True)
    if taken.more:
        click.echo("the box has more than one file holds: have it write another", err=True)
    if taken.targets and not models:
        click.echo("its jobs need models or keys: with --models they are in the answer", err=True)
    told = f"{taken.acknowledged} acknowledgements, {len(taken.jobs)} jobs, {len(files)} files"
    click.echo(f"the answer has {told}{' and a desired document' if taken.has_document else ''}", err=True)
    click.echo(str(out))
