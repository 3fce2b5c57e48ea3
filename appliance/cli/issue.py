"""``scanside issue``: what is wrong with the box, and that a person knows of it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import F, Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.records import Actor, Issue
from appliance.store import Store
from appliance.store.issues import LONGEST_ON_SHELF
from appliance.store.readmodels import to_json


def name_option(function: F) -> F:
    """``--name``: in whose name."""
    return click.option("--name", help="Who does it; default: the user at the keyboard.")(function)


@click.group(cls=Group)
def issue() -> None:
    """Issues: list, acknowledge, shelve. Neither ends one: only what raised it does."""


@issue.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """All that stand, those on the shelf too."""
    with opened(read_config(config_path, site)) as store:
        issues = store.issues.open()
    if as_json:
        print_json({"issues": to_json(issues)})
        return
    print_table(
        "Issues (times in UTC)",
        ["Code", "Subject", "Severity", "Since", "Known to", "Told again"],
        [
            [
                one.code,
                one.subject,
                str(one.severity),
                f"{one.since_at:%Y-%m-%d %H:%M:%S}",
                one.acknowledged_by,
                f"{one.shelved_until:%Y-%m-%d %H:%M}" if one.shelved_until else "",
            ]
            for one in issues
        ],
        "No issues are open.",
    )


@issue.command()
@click.argument("code")
@click.argument("subject", default="")
@name_option
@config_option
@json_option
def acknowledge(
    code: str,
    subject: str,
    name: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Say by name that you have seen an issue. SUBJECT may be left out where one of this code stands."""
    with opened(read_config(config_path, site)) as store:
        subject = _subject(store, code, subject)
        store.issues.acknowledge(code, subject, _actor(name))
        found = _found(store, code, subject)
    _tell(found, as_json=as_json)


@issue.command()
@click.argument("code")
@click.argument("subject", default="")
@click.option(
    "--hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, LONGEST_ON_SHELF / timedelta(hours=1), min_open=True),
    help="Told anew after so long.",
)
@name_option
@config_option
@json_option
def shelve(
    code: str,
    subject: str,
    hours: float,
    name: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Hear of an issue again later: it goes on being listed, and the fleet is told of it all the same."""
    with opened(read_config(config_path, site)) as store:
        subject = _subject(store, code, subject)
        store.issues.shelve(code, subject, datetime.now(timezone.utc) + timedelta(hours=hours), _actor(name))
        found = _found(store, code, subject)
    _tell(found, as_json=as_json)


def _actor(name: str | None) -> Actor:
    mine = me()
    return Actor(kind=mine.kind, name=name, role=mine.role) if name else mine


def _subject(store: Store, code: str, subject: str) -> str:
    """The subject that is meant: the only one of this code where none is given.

    Raises:
        NotFoundError: None stands, or several do and none was named.
    """
    standing = [one.subject for one in store.issues.open() if one.code == code]
    if subject or not standing:
        return subject
    if len(standing) > 1:
        raise NotFoundError(f"several {code} stand: name one of {', '.join(map(repr, standing))}")
    return standing[0]


def _found(store: Store, code: str, subject: str) -> Issue | None:
    return next((one for one in store.issues.open() if (one.code, one.subject) == (code, subject)), None)


def _tell(found: Issue | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"issue": to_json(found) if found else None})
    elif found is None:
        click.echo("it has ended meanwhile")
    elif found.shelved_until is not None:
        click.echo(f"{found.code} {found.subject} is told again at {found.shelved_until:%Y-%m-%d %H:%M} UTC")
    else:
        click.echo(f"{found.code} {found.subject} is acknowledged by {found.acknowledged_by}")
