"""``scanside-fleet rollout``: what people do with one that is drawn up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.clock import SystemClock
from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.rollout_told import account_of, as_option, say_gaps, why_option
from appliance.fleet.server.db import read, write
from appliance.fleet.server.premises import KEYS
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import acts, granting, query
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import WireError
from appliance.fleet.wire_grant import payload_of, read_grant
from engines.errors import SignatureError
from engines.signing import PrivateKey, load_private

_EVERYTHING = Scope.everything()


@click.command()
@click.argument("ident", metavar="ID")
@as_option()
@config_option
def submit(ident: str, name: str, config_path: Path | None) -> None:
    """Ask for approval; from now on it does not change."""
    _do(config_path, acts.submit, ident, name)
    click.echo(f"roll-out {ident} waits for approval: somebody else's word and release keys' signatures")


@click.command()
@click.argument("ident", metavar="ID")
@click.option("--key", type=click.Path(path_type=Path), help="Your release key; the server has none.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_option()
@config_option
def approve(ident: str, key: Path | None, yes: bool, name: str, config_path: Path | None) -> None:  # noqa: FBT001
    """Say yes as the second person; with --key also sign its grant, with a key that is read for this one call."""
    config, now = read_config(config_path), SystemClock().now()
    release = None if key is None else _key(key)
    with opened(config) as engine:
        with read(engine) as connection:
            page = query.get_roll_out(connection, _EVERYTHING, ident, now)
        row = page.row
        boxes = sum(one.boxes for one in page.plan.waves)
        click.echo(f"{row.package} {row.version} ({row.role}), digest {row.digest}, on {boxes} boxes", err=True)
        say_gaps(page)
        if not yes:
            click.confirm("Approve?", abort=True, err=True)
        with write(engine) as connection:
            account, threshold = account_of(connection, name), config.release_threshold
            is_ready = acts.approve(
                connection,
                _EVERYTHING,
                ident,
                account=account,
                actor=me(),
                now=now,
                threshold=threshold,
                release=release,
            )
    _say_ready(ident, is_ready=is_ready)


@click.command()
@click.argument("ident", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where it is written.")
@config_option
def grant(ident: str, out: Path, config_path: Path | None) -> None:
    """Write the grant of a roll-out that waits for approval, to be signed on a machine that has a release key."""
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        row = acts.find(connection, _EVERYTHING, ident)
    if row.grant_text is None:
        raise ConflictError(f"roll-out {ident} is {row.state}; it has a grant once it is submitted")
    out.write_bytes(row.grant_envelope or row.grant_text.encode())
    click.echo(f"{out}: sign it with 'scanside-fleet rollout sign {out.name} --key FILE', then 'put-grant'")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Your release key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(path: Path, key: Path, yes: bool) -> None:  # noqa: FBT001
    """Sign the grant in the file PATH, in place. Needs no server, no network and no database."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error
    envelope: bytes | None = found
    try:
        text = payload_of(found).decode()
    except (WireError, UnicodeDecodeError):
        envelope, text = None, found.decode(errors="replace")
    try:
        told = read_grant(text.encode())
    except WireError as error:
        raise ConflictError(f"{path} is no grant: {error}; write it with 'scanside-fleet rollout grant'") from error
    whom = f"{len(told.tenants)} tenants" if told.tenants else "every tenant"
    click.echo(f"{told.package} {told.version} ({told.role}), digest {told.digest}, for {whom}", err=True)
    if not yes:
        click.confirm("Sign?", abort=True, err=True)
    try:
        path.write_bytes(granting.sign_grant(text, envelope, _key(key)))
    except SignatureError as error:
        raise ConflictError(str(error)) from error
    click.echo(f"{path} is signed")


@click.command("put-grant")
@click.argument("ident", metavar="ID")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@config_option
def put_grant(ident: str, path: Path, config_path: Path | None) -> None:
    """Take the signed grant back."""
    config = read_config(config_path)
    with opened(config) as engine, write(engine) as connection:
        envelope, now, threshold = path.read_bytes(), SystemClock().now(), config.release_threshold
        is_ready = acts.put_grant(connection, _EVERYTHING, ident, envelope, actor=me(), now=now, threshold=threshold)
    _say_ready(ident, is_ready=is_ready)


@click.command()
@click.argument("ident", metavar="ID")
@as_option()
@config_option
def start(ident: str, name: str, config_path: Path | None) -> None:
    """Let it go: the first wave is told within seconds."""
    _do(config_path, acts.start, ident, name)
    click.echo(f"roll-out {ident} runs")


@click.command()
@click.argument("ident", metavar="ID")
@why_option
@as_option()
@config_option
def pause(ident: str, why: str, name: str, config_path: Path | None) -> None:
    """Tell no further box; those that were told go on."""
    _do(config_path, acts.pause, ident, name, why=why)
    click.echo(f"roll-out {ident} stands still")


@click.command()
@click.argument("ident", metavar="ID")
@why_option
@as_option()
@config_option
def resume(ident: str, why: str, name: str, config_path: Path | None) -> None:
    """Go on, knowing what the gates said ('show'): they judge what comes from now on."""
    config = read_config(config_path)
    keys = ServerKeys.open(config.folder / KEYS)
    with opened(config) as engine, write(engine) as connection:
        account, now = account_of(connection, name), SystemClock().now()
        acts.resume(connection, keys, _EVERYTHING, ident, why=why, account=account, actor=me(), now=now)
    click.echo(f"roll-out {ident} runs")


@click.command()
@click.argument("ident", metavar="ID")
@why_option
@as_option()
@config_option
def abort(ident: str, why: str, name: str, config_path: Path | None) -> None:
    """End it: what has not gone out never does; boxes that have the version keep it."""
    _do(config_path, acts.abort, ident, name, why=why)
    click.echo(f"roll-out {ident} is aborted; 'rollout revert' takes back what went out")


@click.command()
@click.argument("ident", metavar="ID")
@why_option
@as_option()
@config_option
def revert(ident: str, why: str, name: str, config_path: Path | None) -> None:
    """Take it back wherever it went, the last wave first."""
    _do(config_path, acts.revert, ident, name, why=why)
    click.echo(f"roll-out {ident} is taken back")


@click.command()
@click.argument("ident", metavar="ID")
@as_option()
@config_option
def discard(ident: str, name: str, config_path: Path | None) -> None:
    """Throw a draft away."""
    _do(config_path, acts.discard, ident, name)
    click.echo(f"roll-out {ident} is gone")


def _do(config_path: Path | None, act: Any, ident: str, name: str, **more: Any) -> None:
    with opened(read_config(config_path)) as engine, write(engine) as connection:
        account = account_of(connection, name)
        act(connection, _EVERYTHING, ident, account=account, actor=me(), now=SystemClock().now(), **more)


def _key(path: Path) -> PrivateKey:
    try:
        return load_private(path)
    except SignatureError as error:
        raise ConfigError(str(error)) from error


def _say_ready(ident: str, *, is_ready: bool) -> None:
    rest = "it is READY: 'rollout start'" if is_ready else "it waits for another word or signature ('rollout show')"
    click.echo(f"roll-out {ident}: {rest}")
