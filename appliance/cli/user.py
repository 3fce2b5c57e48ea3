"""``scanside user``: who may sign in. The way back in when nobody can: it needs no account, only the service's user."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import F, Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.records import UserRole
from appliance.screen.users import BAD_FULL_NAME, BAD_NAME, FULL_NAME, NAME, ROLES
from appliance.store import Store
from appliance.store.accounts import Account
from appliance.web.passwords import Passwords, fault
from appliance.web.passwords import one_time as new_password

_ROLE = click.Choice([str(role) for role in ROLES])


@click.group(cls=Group)
def user() -> None:
    """Accounts: list, add, change, switch off."""


@user.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Everybody who has an account."""
    with opened(read_config(config_path, site)) as store:
        accounts = store.accounts.all()
    if as_json:
        print_json({"users": [_document(one) for one in accounts]})
        return
    print_table(
        "Users",
        ["Name", "Signs in as", "Role", "State"],
        [[one.full_name, one.name, str(one.role), _state(one)] for one in accounts],
        "Nobody has an account; 'scanside user add NAME --role administrator' makes the first.",
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """A password, and whether its owner must choose another because somebody else knows it."""

    text: str
    must_change: bool


def _password_options(function: F) -> F:
    function = click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Its first line is the password, instead of a prompt.",
    )(function)
    return click.option(
        "--one-time", is_flag=True, help="Make a password, print it, and let its owner change it at the first sign-in."
    )(function)


@user.command()
@click.argument("name")
@click.option("--role", type=_ROLE, required=True)
@click.option("--full-name", help="As it stands on pages and in the journal; default: NAME.")
@_password_options
@config_option
@json_option
def add(
    name: str,
    role: str,
    full_name: str | None,
    password_file: Path | None,
    one_time: bool,  # noqa: FBT001
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Add somebody; the first administrator too."""
    if not NAME.fullmatch(name):
        raise click.BadParameter(BAD_NAME, param_hint="NAME")
    if full_name is not None and not FULL_NAME.fullmatch(full_name):
        raise click.BadParameter(BAD_FULL_NAME, param_hint="--full-name")
    given = _given(name, password_file, one_time=one_time)
    with opened(read_config(config_path, site)) as store:
        store.accounts.add(
            name, full_name or name, UserRole(role), Passwords().hashed(given.text), me(), must_change=given.must_change
        )
    _tell(name, f"{name} can sign in as {role}", given, as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("role", type=_ROLE)
@click.option("--reason", required=True, help="Stands in the journal.")
@config_option
@json_option
def role(name: str, role: str, reason: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Give somebody another role; whoever is signed in with the account is signed out."""
    with opened(read_config(config_path, site)) as store:
        store.accounts.set_role(_named(store, name).id, UserRole(role), me(), reason=reason)
        _show(store, name, as_json=as_json)


@user.command()
@click.argument("name")
@click.option("--reason", required=True, help="Stands in the journal.")
@config_option
@json_option
def disable(name: str, reason: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Switch an account off at once. None is ever deleted: the journal names them."""
    with opened(read_config(config_path, site)) as store:
        store.accounts.set_active(_named(store, name).id, me(), active=False, reason=reason)
        _show(store, name, as_json=as_json)


@user.command()
@click.argument("name")
@click.option("--reason", required=True, help="Stands in the journal.")
@config_option
@json_option
def enable(name: str, reason: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Switch an account on again."""
    with opened(read_config(config_path, site)) as store:
        store.accounts.set_active(_named(store, name).id, me(), active=True, reason=reason)
        _show(store, name, as_json=as_json)


@user.command()
@click.argument("name")
@_password_options
@config_option
@json_option
def password(
    name: str,
    password_file: Path | None,
    one_time: bool,  # noqa: FBT001
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Give somebody another password; every browser of the account is signed out."""
    with opened(read_config(config_path, site)) as store:
        account = _named(store, name)
        given = _given(account.name, password_file, one_time=one_time)
        store.accounts.set_password(account.id, Passwords().hashed(given.text), me(), must_change=given.must_change)
    _tell(name, f"{name} has another password", given, as_json=as_json)


def _given(name: str, file: Path | None, *, one_time: bool) -> _Given:
    if one_time:
        return _Given(new_password(), must_change=True)
    if file is not None:
        text = file.read_text("utf-8").partition("\n")[0].rstrip("\r")
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("give --password-file FILE or --one-time: there is no terminal to ask at")
    if said := fault(text, name):
        raise click.UsageError(said)
    return _Given(text, must_change=False)


def _named(store: Store, name: str) -> Account:
    found = store.accounts.by_name(name)
    if found is None:
        msg = f"no account is named {name!r}; 'scanside user list' shows those that are"
        raise NotFoundError(msg)
    return found[0]


def _show(store: Store, name: str, *, as_json: bool) -> None:
    account = _named(store, name)
    if as_json:
        print_json({"user": _document(account)})
    else:
        click.echo(f"{account.name}: {account.role}, {_state(account) or 'can sign in'}")


def _tell(name: str, words: str, given: _Given, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name} | ({"password": given.text} if given.must_change else {}))
        return
    click.echo(words)
    if given.must_change:
        click.echo(f"password, to be changed at the first sign-in: {given.text}")


def _state(account: Account) -> str:
    if not account.is_active:
        return "switched off"
    return "must change the password" if account.must_change else ""


def _document(account: Account) -> dict[str, object]:
    return {
        "name": account.name,
        "full_name": account.full_name,
        "role": str(account.role),
        "active": account.is_active,
        "must_change": account.must_change,
        "oidc": bool(account.subject),
        "made_at": account.made_at.isoformat(),
    }
