"""``scanside-fleet job``: what boxes are asked to do, and the second signature of what changes models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from sqlalchemy import Engine, select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import ConfigError, ConflictError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import approve_job, cancel_job, make_job, waiting_jobs
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.db import read, write
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import NOT_PERMITTED, JobArgs, Op
from engines.errors import SignatureError
from engines.signing import PrivateKey, load_private

_OPS = [str(op) for op in Op if op not in NOT_PERMITTED]
_LOOK_S = 2.0


@click.group(cls=Group)
def job() -> None:
    """What boxes are asked to do: make, list, approve, cancel."""


@job.command()
@click.argument("device")
@click.argument("op", type=click.Choice(_OPS))
@click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="Of the op; repeat it.")
@config_option
@json_option
def make(device: str, op: str, args: tuple[str, ...], config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Ask one box to do something. What changes models waits for 'job approve'."""
    config = read_config(config_path)
    keys = ServerKeys.open(config.folder / KEYS)
    with opened(config) as engine, write(engine) as connection:
        made = make_job(
            connection, keys, Scope.everything(), device, Op(op), _args(args), now=SystemClock().now(), actor=me()
        )
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        click.echo(f"job {made.id} for {device}")


@job.command("list")
@click.option("--device", help="Of one box.")
@click.option("--waiting", is_flag=True, help="Those alone that wait for a release signature.")
@click.option("--most", type=click.IntRange(1), default=50, show_default=True)
@config_option
@json_option
def list_(
    device: str | None,
    waiting: bool,  # noqa: FBT001
    most: int,
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """The newest jobs, and how far they are."""
    config = read_config(config_path)
    with opened(config) as engine, read(engine) as connection:
        if waiting:
            now = SystemClock().now()
            rows = waiting_jobs(connection, Scope.everything(), now, threshold=config.release_threshold)
            rows = [row for row in rows if device in (None, row.device)][:most]
        else:
            asked = select(t.job).order_by(t.job.c.made_at.desc(), t.job.c.id.desc()).limit(most)
            asked = asked if device is None else asked.where(t.job.c.device == device)
            rows = list(connection.execute(asked))
    if as_json:
        print_json({"jobs": [_document(row) for row in rows]})
        return
    shown = [
        [row.id, row.device, row.op, _told(row.args), row.state, row.code, f"{row.made_at:%Y-%m-%d %H:%M}"]
        for row in rows
    ]
    print_table("Jobs (times in UTC)", ["Job", "Device", "What", "With", "State", "Code", "Made"], shown, "No jobs.")


@job.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Your release key; the server has none.")
@click.option("--roll-out", help="All that wait of one roll-out.")
@click.option("--follow", is_flag=True, help="Stay, and sign each further wave of --roll-out as it comes.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def approve(
    jobs: tuple[str, ...],
    key: Path,
    roll_out: str | None,
    follow: bool,  # noqa: FBT001
    yes: bool,  # noqa: FBT001
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Sign jobs that change models, as the second person. They go out within seconds."""
    if follow and not roll_out:
        raise click.UsageError("--follow goes with --roll-out")
    config = read_config(config_path)
    keys = ServerKeys.open(config.folder / KEYS)
    try:
        release = load_private(key)
    except SignatureError as error:
        raise ConfigError(str(error)) from error
    signed: list[dict[str, Any]] = []
    agreed: set[str] = set()
    with opened(config) as engine:
        while True:
            found = _waiting(engine, jobs, roll_out, config.release_threshold)
            _ask(found, agreed, yes=yes or as_json)
            signed += [_sign(engine, keys, row, release, config.release_threshold) for row in found]
            if not follow:
                break
            time.sleep(_LOOK_S)
    if as_json:
        print_json({"signed": signed})
    elif not signed:
        click.echo("nothing waits for a signature", err=True)


@job.command()
@click.argument("ident", metavar="JOB")
@config_option
def cancel(ident: str, config_path: Path | None) -> None:
    """Take back a job that has not gone out."""
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        cancel_job(connection, Scope.everything(), ident, now=SystemClock().now(), actor=me())
    click.echo(f"job {ident} is canceled")


def _waiting(engine: Engine, jobs: tuple[str, ...], roll_out: str | None, threshold: int) -> list[Any]:
    with read(engine) as connection:
        found = waiting_jobs(connection, Scope.everything(), SystemClock().now(), roll_out, threshold=threshold)
    missing = set(jobs) - {row.id for row in found}
    if missing:
        raise ConflictError(
            f"job {min(missing)} waits for no signature; 'scanside-fleet job list --waiting' shows those"
        )
    return [row for row in found if not jobs or row.id in jobs]


def _ask(found: list[Any], agreed: set[str], *, yes: bool) -> None:
    """Show once what is to be signed; each further wave of the same is what was agreed to."""
    fresh = {f"{row.op} {_told(row.args)}" for row in found} - agreed
    for what in sorted(fresh):
        boxes = sorted(row.device for row in found if f"{row.op} {_told(row.args)}" == what)
        click.echo(f"{what} on {len(boxes)}: {', '.join(boxes[:5])}{' ...' if len(boxes) > 5 else ''}", err=True)
    if fresh and not yes:
        click.confirm("Sign?", abort=True, err=True)
    agreed |= fresh


def _sign(engine: Engine, keys: ServerKeys, row: Any, release: PrivateKey, threshold: int) -> dict[str, Any]:
    with write(engine) as connection:
        done = approve_job(
            connection,
            keys,
            Scope.everything(),
            row.id,
            release,
            now=SystemClock().now(),
            threshold=threshold,
            actor=me(),
        )
    click.echo(f"job {row.id}: {'signed by all who must' if done else 'signed; others must sign too'}", err=True)
    return {"job": row.id, "complete": done}


def _args(given: tuple[str, ...]) -> JobArgs:
    try:
        pairs = dict(text.split("=", 1) for text in given)
    except ValueError:
        raise click.UsageError("an argument is NAME=VALUE") from None
    try:
        return JobArgs.model_validate(pairs)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise click.UsageError(f"--arg {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _told(args: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(args.items()))


def _document(row: Any) -> dict[str, Any]:
    names = ("id", "device", "ctr", "op", "args", "state", "code", "percent", "roll_out", "wave")
    times = ("made_at", "expires_at", "sent_at", "state_at")
    return {name: getattr(row, name) for name in (*names, *times)}
