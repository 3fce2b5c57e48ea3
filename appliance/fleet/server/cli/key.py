"""``scanside-fleet key``: which keys boxes obey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from sqlalchemy import Connection, select

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.signing import TAKE, keys_option, release_keys, repository_of, server_keys_of
from appliance.fleet.server.config import ServerConfig
from appliance.fleet.server.db import read, write
from appliance.fleet.server.key_rotation import (
    PUBLISHED,
    REPOSITORY,
    begin_online,
    behind,
    changed_at,
    made_at,
    next_online,
    publish_trust,
    retire_online,
    take_over,
)
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import write_audit
from appliance.fleet.server.repository_files import missing
from appliance.fleet.server.server_keys import add_key, retire_key, trust
from engines.durable import write_private
from engines.errors import SignatureError
from engines.signing import PrivateKey, PublicKey, generate, load_public

_MOST_NAMED = 10


@click.group(cls=Group)
def key() -> None:
    """Keys that boxes obey: the server's own, and those of who approves changes of models."""


@key.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them, the retired too, and which boxes have not taken the last change."""
    config = read_config(config_path)
    with opened(config) as engine, read(engine) as connection:
        rows = [row._asdict() for row in connection.execute(select(t.server_key).order_by(t.server_key.c.made_at))]
        since = changed_at(connection)
        late = [] if since is None else list(connection.execute(behind(since)).scalars())
    if as_json:
        print_json({"keys": rows, "changed_at": since, "behind": late})
        return
    shown = [[row["keyid"], row["role"], row["name"], "retired" if row["retired_at"] else "counts"] for row in rows]
    print_table("Keys", ["Key", "Role", "Name", "State"], shown, "No keys; 'scanside-fleet up' makes the server's.")
    if late and since is not None:
        changed = f"{since:%Y-%m-%d %H:%M} UTC"
        click.echo(_late(late, f"the keys that count since {changed}"), err=True)


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
@keys_option
@config_option
def add(path: Path, name: str, key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Let a release key count; PATH is its public half. Once models are served, release keys sign this (--key)."""
    config, public, now = read_config(config_path), _public(path, name), SystemClock().now()
    signers = release_keys(key_paths, needed=False)
    with opened(config) as engine, write(engine) as connection:
        add_key(connection, public, "release", name, now=now)
        write_audit(connection, act="key.add", subject=public.keyid, actor=me(), now=now, detail={"name": name})
        published = _publish(connection, config, signers)
    click.echo(f"key {public.keyid} is added; {TAKE if published else 'boxes that enrolled before do not know it'}")


@key.command()
@click.argument("keyid")
@keys_option
@config_option
def retire(keyid: str, key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Count a release key's signatures no more. Once models are served, release keys sign this (--key)."""
    config, now = read_config(config_path), SystemClock().now()
    signers = release_keys(key_paths, needed=False)
    with opened(config) as engine, write(engine) as connection:
        retire_key(connection, keyid, now=now)
        write_audit(connection, act="key.retire", subject=keyid, actor=me(), now=now)
        published = _publish(connection, config, signers)
    click.echo(f"key {keyid} is retired{f'; {TAKE}' if published else ''}")


@key.command()
@keys_option
@config_option
def publish(key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Sign the root and the list of models anew, with the keys and the threshold that hold here now.

    After a change of release_threshold, and before they end: the root after two years, the list after half a year.
    """
    config, now = read_config(config_path), SystemClock().now()
    signers = release_keys(key_paths)
    with opened(config) as engine, write(engine) as connection:
        repository = repository_of(config)
        if not repository.exists():
            raise missing()
        detail = {"changes": repository.trust() != trust(connection, config.release_threshold)}
        _publish(connection, config, signers)
        write_audit(connection, act=PUBLISHED, subject=REPOSITORY, actor=me(), now=now, detail=detail)
    click.echo(f"signed; where keys have changed, {TAKE}")


@key.group(cls=Group)
def rotate() -> None:
    """Put one key in the place of another, on boxes that are out there."""


@rotate.command()
@click.argument("keyid")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Whose the new one is.")
@keys_option
@config_option
def release(keyid: str, path: Path, name: str, key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Let the key in PATH (its public half) count in the place of the release key KEYID, in one step.

    Enough of the old keys and enough of the new ones sign: name the new one's secret file by --key too.
    """
    config, public, now = read_config(config_path), _public(path, name), SystemClock().now()
    signers = release_keys(key_paths, needed=False)
    with opened(config) as engine, write(engine) as connection:
        add_key(connection, public, "release", name, now=now)
        retire_key(connection, keyid, now=now)
        detail = {"name": name, "for": keyid}
        write_audit(connection, act="key.rotate", subject=public.keyid, actor=me(), now=now, detail=detail)
        published = _publish(connection, config, signers)
    told = TAKE if published else "boxes that enrolled before do not know it"
    click.echo(f"key {public.keyid} counts in the place of {keyid}; {told}")


@rotate.command()
@click.option("--finish", is_flag=True, help="Sign with the new one, and count the old one no more.")
@click.option("--leave-behind", is_flag=True, help="With --finish: although boxes do not know it; they enrol anew.")
@keys_option
@config_option
def online(
    finish: bool,  # noqa: FBT001
    leave_behind: bool,  # noqa: FBT001
    key_paths: tuple[Path, ...],
    config_path: Path | None,
) -> None:
    """Put another key in the place of the server's own, in two steps: first let boxes know it, then --finish."""
    config = read_config(config_path)
    signers = release_keys(key_paths)
    if not repository_of(config).exists():
        raise NotFoundError("boxes learn keys from the repository; make it with 'scanside-fleet model init --key FILE'")
    with opened(config) as engine, write(engine) as connection:
        if finish:
            told = _finish(connection, config, signers, leave_behind=leave_behind)
        else:
            told = _begin(connection, config, signers)
    click.echo(told)


def _begin(connection: Connection, config: ServerConfig, signers: Sequence[PrivateKey]) -> str:
    now = SystemClock().now()
    public = begin_online(connection, config.folder / KEYS, now)
    write_audit(connection, act="key.rotate_online", subject=public.keyid, actor=me(), now=now)
    _publish(connection, config, signers)
    then = "scanside-fleet key rotate online --finish"
    return f"key {public.keyid} counts beside the one that signs; {TAKE}. Then: {then}"


def _finish(connection: Connection, config: ServerConfig, signers: Sequence[PrivateKey], *, leave_behind: bool) -> str:
    now, folder = SystemClock().now(), config.folder / KEYS
    following = next_online(connection, folder)
    public = following.public
    late = list(connection.execute(behind(made_at(connection, public.keyid))).scalars())
    if late and not leave_behind:
        raise ConflictError(f"{_late(late, 'the new key')}. With --leave-behind they must enrol anew")
    gone = retire_online(connection, public, now)
    detail = {"retired": gone, "left_behind": len(late)}
    write_audit(connection, act="key.rotate_online_finish", subject=public.keyid, actor=me(), now=now, detail=detail)
    told = trust(connection, config.release_threshold)
    repository_of(config).refuse(told, signers, following, now)
    # Cut off from here on, both keys count still, and the same call goes on.
    take_over(folder)
    _publish(connection, config, signers)
    return (
        f"key {public.keyid} signs from the next start on: restart the server now. Then {TAKE}, so that boxes refuse"
        f" the old one; after that remove {', '.join(f'online.{one}.old' for one in gone)} in {folder}"
    )


def _publish(connection: Connection, config: ServerConfig, signers: Sequence[PrivateKey]) -> bool:
    repository = repository_of(config)
    if repository.exists() and not signers:
        raise ConflictError("boxes learn this from the repository, which release keys sign; name them by --key FILE")
    own, now = server_keys_of(config), SystemClock().now()
    return publish_trust(connection, repository, config.release_threshold, signers, own.online, now)


def _late(boxes: Sequence[str], what: str) -> str:
    more = ", ..." if len(boxes) > _MOST_NAMED else ""
    return f"{len(boxes)} boxes have not taken {what}: {', '.join(boxes[:_MOST_NAMED])}{more}; {TAKE}"


def _public(path: Path, name: str) -> PublicKey:
    try:
        return load_public(path, name)
    except SignatureError as error:
        raise ConfigError(str(error)) from error
