"""``scanside-fleet device desired``: how a box should be, and what it made of that."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, select

from appliance.clock import SystemClock
from appliance.commands import json_option, print_json, print_table
from appliance.errors import ConfigError, ConflictError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import set_desired
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.db import read, write
from appliance.fleet.server.desired import differences, read_desired, with_values
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import Scope, find_device
from appliance.fleet.server.rollout.holding import is_held
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import Desired


@click.command()
@click.argument("ident", metavar="DEVICE")
@click.option("--show", is_flag=True, help="Show both documents; what happens too where nothing else is asked.")
@click.option(
    "--file", type=click.Path(path_type=Path), help="A whole document in YAML in place of the one that stands."
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One value of it; repeat it.")
@config_option
@json_option
def desired(
    ident: str,
    show: bool,  # noqa: FBT001
    file: Path | None,
    pairs: tuple[str, ...],
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """How a box should be: a whole document of the next version, which it applies or refuses as a whole.

    Keys: health_every_s, bytes_per_s, window.begin, window.end, packages.NAME.role and
    packages.NAME.operating_points.FINDING. Whether it is held is 'hold add' and 'hold lift'.
    """
    config = read_config(config_path)
    told: int | None = None
    with opened(config) as engine:
        if file is not None or pairs:
            text = None if file is None else _text(file)
            keys = ServerKeys.open(config.folder / KEYS)
            with write(engine) as connection:
                told = _set(connection, keys, ident, file, text, pairs, SystemClock().now())
        with read(engine) as connection:
            find_device(connection, Scope.everything(), ident)
            row = connection.execute(select(t.twin).where(t.twin.c.device == ident)).first()
    if told is not None:
        click.echo(f"document {told} is made for {ident}; it goes out within seconds", err=True)
    if as_json:
        print_json(_document(ident, row))
    elif show or told is None:
        _show(row)


def _set(
    connection: Connection,
    keys: ServerKeys,
    ident: str,
    file: Path | None,
    text: str | None,
    pairs: tuple[str, ...],
    now: datetime,
) -> int:
    find_device(connection, Scope.everything(), ident)
    stands = connection.execute(select(t.twin.c.desired).where(t.twin.c.device == ident)).scalar_one_or_none()
    before = Desired.model_validate(stands) if stands else Desired()
    wanted = with_values(before if text is None else read_desired(text, str(file)), pairs)
    held = is_held(connection, ident, now)
    if wanted.held is not held:
        # What a document leaves out, it does not lift.
        if any(pair.partition("=")[0] == "held" for pair in pairs) or wanted.held:
            raise ConflictError("held: holds say that; 'scanside-fleet hold add' and 'hold lift' change it")
        wanted = wanted.model_copy(update={"held": held})
    if stands and wanted == before:
        raise ConflictError("that is what it should be already; nothing is sent")
    return set_desired(connection, keys, Scope.everything(), ident, wanted, now=now, actor=me())


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name a file in YAML") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no text in UTF-8; is this the right file?") from error


def _parts(row: Any) -> tuple[Desired | None, Desired | None]:
    if row is None:
        return None, None
    return (
        Desired.model_validate(row.desired) if row.desired else None,
        Desired.model_validate(row.reported) if row.reported else None,
    )


def _document(ident: str, row: Any) -> dict[str, Any]:
    wanted, reported = _parts(row)
    names = ("dv", "made_at", "applied_dv", "refused_dv", "errors", "reported_at")
    return {
        "device": ident,
        **{name: getattr(row, name, None) for name in names},
        "desired": wanted.model_dump(mode="json") if wanted else None,
        "reported": reported.model_dump(mode="json") if reported else None,
        "differences": [
            {"key": one.key, "desired": one.desired, "reported": one.reported} for one in differences(wanted, reported)
        ],
    }


def _show(row: Any) -> None:
    wanted, reported = _parts(row)
    if wanted is None:
        click.echo("Nothing is desired; the box does what it does by itself.")
        return
    click.echo(wanted.model_dump_json(indent=2))
    refused = f"; it refuses {row.refused_dv}: {', '.join(row.errors or ())}" if row.refused_dv else ""
    click.echo(f"document {row.dv}; {row.applied_dv or 'none'} holds at the box{refused}", err=True)
    shown = [[one.key, one.desired or "", one.reported or ""] for one in differences(wanted, reported)]
    print_table("What differs", ["Key", "Should be", "Is"], shown, "The box is as it should be.")
