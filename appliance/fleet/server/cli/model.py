"""``scanside-fleet model``: which models boxes can fetch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import ConfigError
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.signing import keys_option, release_keys, repository_of, server_keys_of
from appliance.fleet.server.db import read, write
from appliance.fleet.server.models import Signers, bring_model, get_model, list_model, list_models, withdraw_model
from appliance.fleet.server.registry import write_audit
from appliance.fleet.server.server_keys import trust
from engines.errors import SignatureError
from engines.signing import PublicKey, load_public

_VERSION = re.compile(r"[0-9]{1,8}(\.[0-9]{1,8}){0,2}")


@click.group(cls=Group)
def model() -> None:
    """Models that boxes can fetch, signed by release keys. Who gets which is a job's, or a roll-out's."""


@model.command()
@keys_option
@config_option
def init(key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Make the repository, once: its root says which keys count. Add the release keys before ('key add')."""
    config = read_config(config_path)
    signers, own = release_keys(key_paths), server_keys_of(config)
    repository, now = repository_of(config), SystemClock().now()
    with opened(config) as engine, write(engine) as connection:
        repository.create(trust(connection, config.release_threshold), signers, own.online, now)
        detail = {"keys": [key.public.keyid for key in signers]}
        write_audit(connection, act="model.init", subject="repository", actor=me(), now=now, detail=detail)
    click.echo(f"{repository.folder} is made; boxes find it at the server's HTTPS address")


@model.command()
@click.argument("package", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--maker",
    "makers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key of who made and signed packages, besides models.trusted_keys of the configuration; repeat it.",
)
@click.option("--min-agent", default="", metavar="VERSION", help="The lowest Scanside that can run it.")
@keys_option
@config_option
@json_option
def add(
    package: Path,
    makers: tuple[Path, ...],
    min_agent: str,
    key_paths: tuple[Path, ...],
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Let boxes fetch PACKAGE, a folder or an archive, checked here as boxes check it. Nothing is installed by this."""
    if min_agent and not _VERSION.fullmatch(min_agent):
        raise click.UsageError("--min-agent is a version, as 1.4.0")
    config = read_config(config_path)
    signers, repository = Signers(release_keys(key_paths), server_keys_of(config).online), repository_of(config)
    trusted = [_public(path) for path in (*config.models.trusted_keys, *makers)]
    if not trusted:
        raise ConfigError("no maker of packages is trusted; name a public key by --maker FILE, or models.trusted_keys")
    with opened(config) as engine:
        found = bring_model(repository, package, trusted, min_agent=min_agent)
        list_model(engine, repository, found, signers, actor=me(), now=SystemClock().now())
        with read(engine) as connection:
            row = get_model(connection, found.package, found.version)
    if as_json:
        print_json(row._asdict())
    else:
        click.echo(f"{row.package} {row.version} ({row.digest[:16]}) can be fetched as {row.target}")


@model.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All of them, the withdrawn too, and until when the repository holds."""
    config = read_config(config_path)
    with opened(config) as engine, read(engine) as connection:
        rows = list_models(connection)
    repository, now = repository_of(config), SystemClock().now()
    ends, targets = (repository.check(now), repository.targets()) if repository.exists() else ((), {})
    if as_json:
        told = [{"role": one.role, "expires_at": one.at, "is_soon": one.is_soon} for one in ends]
        print_json({"models": [row._asdict() for row in rows], "repository": told})
        return
    shown = [_shown(row, is_listed=row.target in targets) for row in rows]
    columns = ["Model", "Version", "Status", "Digest", "MB", "Added", "State"]
    print_table("Models (times in UTC)", columns, shown, "No models; 'scanside-fleet model add' brings one in.")
    for one in ends:
        if one.is_soon:
            click.echo(f"{one.role} of the repository ends on {one.at:%Y-%m-%d %H:%M}", err=True)


@model.command()
@click.argument("package")
@click.argument("version")
@click.option("--why", required=True, help="For the audit.")
@keys_option
@config_option
def withdraw(package: str, version: str, why: str, key_paths: tuple[Path, ...], config_path: Path | None) -> None:
    """Let no box fetch a version any more. Where it runs it is taken out by the job model.withdraw."""
    config = read_config(config_path)
    signers = Signers(release_keys(key_paths), server_keys_of(config).online)
    with opened(config) as engine:
        withdraw_model(
            engine, repository_of(config), package, version, signers, why=why, actor=me(), now=SystemClock().now()
        )
    click.echo(f"{package} {version} is fetched by no box any more; where it runs, a job model.withdraw ends it")


def _public(path: Path) -> PublicKey:
    try:
        return load_public(path)
    except SignatureError as error:
        raise ConfigError(str(error)) from error


def _shown(row: Any, *, is_listed: bool) -> list[str]:
    state = "can be fetched" if is_listed else "not in the repository: add it again"
    if row.withdrawn_at is not None:
        state = f"withdrawn {row.withdrawn_at:%Y-%m-%d}"
    size = f"{row.size / 1e6:.1f}"
    return [row.package, row.version, row.status, row.digest[:16], size, f"{row.added_at:%Y-%m-%d %H:%M}", state]
