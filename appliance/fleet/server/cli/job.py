"""``scanside-fleet job``: what boxes are asked to do, and the second signature of what changes models."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from sqlalchemy import Engine, select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import approve_job, cancel_job, make_job, waiting_jobs
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.signing import keys_option, release_keys
from appliance.fleet.server.db import read, write
from appliance.fleet.server.many import FOR_MANY, boxes_for
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.server.uploads import Upload, list_uploads, open_upload
from appliance.fleet.wire import NOT_PERMITTED, TWO_SIGNATURES, JobArgs, Op
from engines.durable import write_private
from engines.signing import PrivateKey

_OPS = [str(op) for op in Op if op not in NOT_PERMITTED]
_LOOK_S = 2.0
#: Jobs of one transaction.
_GROUP = 200


@click.group(cls=Group)
def job() -> None:
    """What boxes are asked to do: make, list, approve, cancel."""


@job.command()
@click.argument("device")
@click.argument("op", type=click.Choice(_OPS))
@click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="Of the op; repeat it.")
@click.option("--days", type=click.FloatRange(0, 90, min_open=True), help="It holds so long.  [default: 1; models 7]")
@config_option
@json_option
def make(
    device: str,
    op: str,
    args: tuple[str, ...],
    days: float | None,
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Ask one box to do something. What changes models waits for 'job approve'."""
    config = read_config(config_path)
    keys = ServerKeys.open(config.folder / KEYS)
    with opened(config) as engine, write(engine) as connection:
        made = make_job(
            connection,
            keys,
            Scope.everything(),
            device,
            Op(op),
            _args(args),
            now=SystemClock().now(),
            actor=me(),
            life=None if days is None else timedelta(days=days),
        )
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        click.echo(f"job {made.id} for {device}")


@job.command("make-all")
@click.argument("op", type=click.Choice([str(op) for op in FOR_MANY]))
@click.option("--tenant", help="Boxes of this one and of all below it alone.")
@click.option("--site", help="Boxes of this one alone.")
@click.option("--days", type=click.FloatRange(0, 90, min_open=True), help="It holds so long.  [default: 1; keys 7]")
@config_option
@json_option
def make_all(
    op: str,
    tenant: str | None,
    site: str | None,
    days: float | None,
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Ask every box that has not been asked; of root.update, those that have not taken the keys that count now."""
    config = read_config(config_path)
    keys, now = ServerKeys.open(config.folder / KEYS), SystemClock().now()
    life = None if days is None else timedelta(days=days)
    made = []
    with opened(config) as engine:
        with read(engine) as connection:
            scope = Scope.everything() if tenant is None else Scope.of(connection, tenant)
            boxes = boxes_for(connection, Op(op), scope, now, site)
        for first in range(0, len(boxes), _GROUP):  # boxes that bring records wait for no more than these
            with write(engine) as connection:
                for one in boxes[first : first + _GROUP]:
                    with contextlib.suppress(ConflictError):  # disabled just now
                        made.append(make_job(connection, keys, scope, one, Op(op), now=now, actor=me(), life=life))
    if as_json:
        print_json({"jobs": [{"id": one.id, "device": one.aud} for one in made]})
        return
    waits = "; they wait for 'scanside-fleet job approve --key FILE'" if made and Op(op) in TWO_SIGNATURES else ""
    click.echo(f"{len(made)} jobs {op}{waits}")


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
@keys_option
@click.option("--roll-out", help="All that wait of one roll-out.")
@click.option("--follow", is_flag=True, help="Stay, and sign each further wave of --roll-out as it comes.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def approve(
    jobs: tuple[str, ...],
    key_paths: tuple[Path, ...],
    roll_out: str | None,
    follow: bool,  # noqa: FBT001
    yes: bool,  # noqa: FBT001
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Sign jobs that change models or keys, as the second person. They go out within seconds."""
    if follow and not roll_out:
        raise click.UsageError("--follow goes with --roll-out")
    config = read_config(config_path)
    keys, release = ServerKeys.open(config.folder / KEYS), release_keys(key_paths)
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


@job.command()
@click.argument("device")
@click.option("--job", "ident", metavar="JOB", help="Of which job; the newest that came.")
@click.option("--out", type=click.Path(path_type=Path), help="Take the file there; else they are listed.")
@config_option
@json_option
def logs(device: str, ident: str | None, out: Path | None, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Logs that a box brought for 'job make DEVICE collect_logs': list them, or take one."""
    config = read_config(config_path)
    with opened(config) as engine, read(engine) as connection:
        found = list_uploads(connection, Scope.everything(), device)
    if out is None and ident is None:
        if as_json:
            print_json({"logs": [asdict(one) for one in found]})
            return
        shown = [[one.job, f"{one.made_at:%Y-%m-%d %H:%M}", _came(one), str(one.size or "")] for one in found]
        print_table("Logs (times in UTC)", ["Job", "Asked", "Came", "Bytes"], shown, "No logs were asked for.")
        return
    came = [one for one in found if one.received_at is not None and ident in (None, one.job)]
    if not came:
        raise NotFoundError(
            f"no logs of {device} are here; 'scanside-fleet job make {device} collect_logs' asks for them"
        )
    out = Path(f"{came[0].job}.zip") if out is None else out
    with opened(config) as engine, write(engine) as connection:
        taken, file = open_upload(
            connection, Scope.everything(), config.folder, came[0].job, now=SystemClock().now(), actor=me()
        )
    with file:
        write_private(out, file.read())
    if as_json:
        print_json({**asdict(taken), "path": str(out)})
    else:
        click.echo(str(out))


def _came(one: Upload) -> str:
    if one.removed_at is not None:
        return f"removed {one.removed_at:%Y-%m-%d %H:%M}"
    return "" if one.received_at is None else f"{one.received_at:%Y-%m-%d %H:%M}"


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


def _sign(engine: Engine, keys: ServerKeys, row: Any, release: Sequence[PrivateKey], threshold: int) -> dict[str, Any]:
    with write(engine) as connection:
        done = approve_job(
            connection,
            keys,
            Scope.everything(),
            row.id,
            *release,
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
    return " ".join(f"{name}={value}" for name, value in sorted(_shown(args).items()))


def _shown(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments without the token of an upload, which is the box's alone."""
    return {name: value for name, value in args.items() if name != "upload"}


def _document(row: Any) -> dict[str, Any]:
    names = ("id", "device", "ctr", "op", "state", "code", "percent", "roll_out", "wave")
    times = ("made_at", "expires_at", "sent_at", "state_at")
    return {**{name: getattr(row, name) for name in (*names, *times)}, "args": _shown(row.args)}
