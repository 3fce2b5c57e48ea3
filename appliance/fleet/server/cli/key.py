"""``scanside-fleet key``: which keys boxes obey."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy import select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import ConfigError, ConflictError
from appliance.fleet.server import tables as t
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import write_audit
from appliance.fleet.server.server_keys import add_key, retire_key
from engines.durable import write_private
from engines.errors import SignatureError
from engines.signing import generate, load_public


@click.group(cls=Group)
def key() -> None:
    """Keys that boxes obey: the server's own, and those of who approves changes of models."""


@key.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them, the retired too."""
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        rows = [row._asdict() for row in connection.execute(select(t.server_key).order_by(t.server_key.c.made_at))]
    if as_json:
        print_json({"keys": rows})
        return
    shown = [[row["keyid"], row["role"], row["name"], "retired" if row["retired_at"] else "counts"] for row in rows]
    print_table("Keys", ["Key", "Role", "Name", "State"], shown, "No keys; 'scanside-fleet up' makes the server's.")


@key.command()
@click.argument("path", type=click.Path(path_type=Path))
def new(path: Path) -> None:
    """Make a release key: PATH is the secret, PATH.pub what the server is told. Keep PATH off the server."""
    if path.exists():
        raise ConflictError(f"{path} is there already; a key is never written over")
    made = generate(path.stem)
    write_private(path, made.pem().encode())
    path.with_name(f"{path.name}.pub").write_text(made.public.pem(), "ascii")
    click.echo(made.public.keyid)


@key.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Whose it is.")
@config_option
def add(path: Path, name: str, config_path: Path | None) -> None:
    """Let boxes that enrol from now on obey a release key; PATH is its public half."""
    try:
        public = load_public(path, name)
    except SignatureError as error:
        raise ConfigError(str(error)) from error
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        add_key(connection, public, "release", name, now=now)
        write_audit(connection, act="key.add", subject=public.keyid, actor=me(), now=now, detail={"name": name})
    click.echo(f"key {public.keyid} is added; boxes that enrolled before do not know it")


@key.command()
@click.argument("keyid")
@config_option
def retire(keyid: str, config_path: Path | None) -> None:
    """Count a release key's signatures no more."""
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        retire_key(connection, keyid, now=now)
        write_audit(connection, act="key.retire", subject=keyid, actor=me(), now=now)
    click.echo(f"key {keyid} is retired")
