"""``scanside screen``: screens at scanners."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import Group, json_option, print_json, print_table
from appliance.config import Config
from appliance.errors import NotFoundError
from appliance.screen.screens import BAD_NAME, NAME, new_code, new_ticket, pairing_path
from appliance.store.readmodels import to_json
from appliance.store.screens import CODE_LIFE, TICKET_LIFE


@click.group(cls=Group)
def screen() -> None:
    """Screens at scanners: list, pair, revoke."""


@screen.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The screens, and whose alerts each shows."""
    with opened(read_config(config_path, site)) as store:
        screens = store.screens.all()
    if as_json:
        print_json({"screens": to_json(screens)})
        return
    print_table(
        "Screens (times in UTC)",
        ["Name", "Sources", "Paired"],
        [
            [
                one.name,
                ", ".join(one.sources) or "all",
                f"{one.paired_at:%Y-%m-%d %H:%M:%S}" if one.paired_at else "waits to be paired",
            ]
            for one in screens
        ],
        "No screen is paired; 'scanside screen pair NAME' gives a code.",
    )


@screen.command()
@click.argument("name")
@click.option("--source", "sources", multiple=True, help="Whose alerts it shows; several times; default: all.")
@click.option("--url", "as_url", is_flag=True, help="An address that pairs by itself, for a kiosk: once, within 24 h.")
@config_option
@json_option
def pair(
    name: str,
    sources: tuple[str, ...],
    as_url: bool,  # noqa: FBT001
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """A code of six digits that makes the browser in which it is typed the screen NAME.

    A screen of this name that is there is replaced, once the new one is paired.
    """
    if not NAME.fullmatch(name):
        raise click.BadParameter(BAD_NAME, param_hint="NAME")
    config = read_config(config_path, site)
    known = {source.name for source in config.sources}
    if unknown := sorted(set(sources) - known):
        raise NotFoundError(f"no source is named {unknown[0]!r}; configured are: {', '.join(sorted(known)) or 'none'}")
    secret = new_ticket() if as_url else new_code()
    with opened(config) as store:
        store.screens.offer(name, sources, secret, me(), life=TICKET_LIFE if as_url else CODE_LIFE)
    address = _address(config)
    if as_url:
        secret = address + pairing_path(secret)
    if as_json:
        print_json({"name": name, "sources": list(sources), ("url" if as_url else "code"): secret})
    elif as_url:
        click.echo(secret)
    else:
        click.echo(f"{secret}    type it at {address}/pair within 15 minutes")


@screen.command()
@click.argument("name")
@click.option("--why", default="", help="The reason, for the journal; no patient data.")
@config_option
@json_option
def revoke(name: str, why: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The screen shows nothing any more, at once."""
    with opened(read_config(config_path, site)) as store:
        found = next((one for one in store.screens.all() if one.name == name), None)
        if found is None:
            raise NotFoundError(f"no screen is named {name!r}; 'scanside screen list' shows those that are")
        store.screens.revoke(found.id, me(), reason=why)
    print_json({"revoked": name}) if as_json else click.echo(f"{name} shows nothing any more")


def _address(config: Config) -> str:
    """How browsers reach the pages: by the first of its names, else as this machine reaches itself."""
    settings = config.screen
    host = settings.names[0] if settings.names else "127.0.0.1"
    return f"{'https' if settings.tls else 'http'}://{host}:{settings.port}"
