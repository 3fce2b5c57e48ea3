"""``scanside dest``: destinations, what they are owed, whether they answer."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.clock import SystemClock
from appliance.commands import Exit, Group, json_option, print_json, print_table
from appliance.config import Config, Destination, DicomDestination, Hl7Destination
from appliance.deliver.echo import probe
from appliance.errors import ConflictError, NotFoundError
from appliance.store.commitments import Waiting
from appliance.store.destinations import Left, forget, left_of_gone
from appliance.store.readmodels import to_json


@click.group(cls=Group)
def dest() -> None:
    """Destinations: list, show, test, retry, forget."""


def _named(config: Config, name: str) -> Destination:
    for destination in config.destinations:
        if destination.name == name:
            return destination
    names = ", ".join(one.name for one in config.destinations) or "none"
    raise NotFoundError(f"no destination is named {name!r}; configured are: {names}")


def _commits(destination: Destination) -> bool:
    return isinstance(destination, DicomDestination) and destination.commitment


def _custody_text(waiting: Waiting | None) -> str:
    """What a destination has not committed to, as one line."""
    if waiting is None:
        return "all that was sent is committed to"
    line = f"{waiting.objects} objects wait, the oldest sent {waiting.oldest_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{line}; {waiting.last_error}" if waiting.last_error else line


def _where(destination: Destination) -> str:
    """Whom to look for when it does not answer."""
    if isinstance(destination, DicomDestination):
        return f"{destination.ae_title} {destination.host}:{destination.port}"
    if isinstance(destination, Hl7Destination):
        return f"{destination.host}:{destination.port}"
    # A query may hold a token.
    return destination.url.partition("?")[0]


@dest.command("list")
@config_option
@json_option
def list_(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What each destination is owed."""
    config = read_config(config_path, site)
    with opened(config) as store:
        backlog = {one.destination: one for one in store.deliveries.backlog()}
        committing = [one.name for one in config.commitment_destinations]
        uncommitted = {one.destination: one for one in store.commitments.waiting(committing)}
    if as_json:
        listed = [
            {
                "name": one.name,
                "kind": one.kind,
                "purpose": one.purpose,
                "backlog": to_json(backlog.get(one.name)),
                "uncommitted": to_json(uncommitted.get(one.name)),
            }
            for one in config.destinations
        ]
        print_json({"destinations": listed})
        return
    rows = []
    for one in config.destinations:
        state = backlog.get(one.name)
        rows.append(
            [
                one.name,
                one.kind,
                _where(one),
                one.purpose,
                str(state.owed if state else 0),
                str(state.parked if state else 0),
                (str(uncommitted[one.name].objects) if one.name in uncommitted else "0")
                if one.name in committing
                else "",
                state.last_error if state else "",
            ]
        )
    print_table(
        "Destinations",
        ["Name", "Kind", "Peer", "Purpose", "Owed", "Parked", "Uncommitted", "Last error"],
        rows,
        "No destination is configured; results stay on this box.",
    )


@dest.command()
@click.argument("name")
@config_option
@json_option
def show(name: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What a destination is, what it is to get, and what it is still owed."""
    config = read_config(config_path, site)
    one = _named(config, name)
    with opened(config) as store:
        state = next((item for item in store.deliveries.backlog() if item.destination == name), None)
        waiting = next(iter(store.commitments.waiting([name])), None) if _commits(one) else None
    if as_json:
        print_json(
            {
                "destination": one.model_dump(mode="json"),
                "backlog": to_json(state),
                "uncommitted": to_json(waiting),
            }
        )
        return
    lines = {
        "Kind": one.kind + (", by TLS" if one.tls else ""),
        "Peer": _where(one),
        "Purpose": one.purpose,
        "Gets": ", ".join(map(str, one.send)),
        "Of results": ", ".join(map(str, one.outcomes)),
        "Of packages": ", ".join(one.packages) or "all",
        "Owed": str(state.owed if state else 0),
        "Waiting to be built": str(state.held if state else 0),
        "Parked": str(state.parked if state else 0),
        "Owed since": state.oldest_at.isoformat(timespec="seconds") if state and state.oldest_at else "",
        "Last error": state.last_error if state else "",
        "Storage commitment": _custody_text(waiting) if _commits(one) else "",
    }
    for label, text in lines.items():
        if text:
            click.echo(f"{label + ':':<21}{text}")


@dest.command()
@click.argument("name")
@config_option
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Ask a destination whether it would take what it is to get, and say in plain words what it answers.

    No result is sent: DICOM gets a C-ECHO, STOW a request without an object, HL7 a message that asks for nothing, a
    webhook a signed body of type scanside.test.
    """
    config = read_config(config_path, site)
    result = probe(_named(config, name), config.dicom.ae_title, SystemClock())
    if as_json:
        print_json({"destination": name, **to_json(result)})
    else:
        click.echo(f"{name}: {'answers' if result.ok else 'does not answer as it should'}: {result.words}")
    if not result.ok:
        ctx.exit(int(Exit.FAILED))


@dest.command()
@click.argument("name", required=False)
@config_option
@json_option
def retry(name: str | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Send everything that is owed or parked now; of one destination or of all."""
    config = read_config(config_path, site)
    if name is not None:
        _named(config, name)
    with opened(config) as store:
        count = store.deliveries.retry(name, me())
    print_json({"retried": count}) if as_json else click.echo(f"{count} deliveries are tried again now")


@dest.command("forget")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for the journal; no patient data.")
@click.option("--yes", is_flag=True, help="Do not ask for the name once more.")
@config_option
@json_option
def forget_(name: str, reason: str, yes: bool, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Give up a destination that the configuration no longer names: end what it is owed, and wait for it no more.

    What it has not got is not sent any more. No file is deleted now: images leave the box later, as those of
    any other destination do (retention.images_h).
    """
    config = read_config(config_path, site)
    configured = [one.name for one in config.destinations]
    with opened(config) as store:
        left = left_of_gone(store.db, configured).get(name)
        if left is not None and not yes:
            _confirm(name, left)
        ended = forget(store.db, name, configured, reason, me())
    if as_json:
        print_json({"destination": name, "ended": to_json(ended)})
    else:
        click.echo(f"{name} is forgotten: {_left_text(ended)}")


def _left_text(left: Left) -> str:
    return (
        f"{left.owed + left.held + left.parked} objects that it has not got, {left.uncommitted} that it got and has not"
        " committed to"
    )


def _confirm(name: str, left: Left) -> None:
    """Have the person type the name.

    Raises:
        ConflictError: Something else was typed, or nobody is there to type.
    """
    click.echo(f"{name!r} waits for {_left_text(left)}. This box will not send them, and may let them go.", err=True)
    try:
        typed = click.prompt("Type its name to forget it", default="", show_default=False, err=True)
    except click.Abort:
        typed = ""
    if typed != name:
        raise ConflictError(f"{name!r} was not typed, so nothing has changed; give --yes where nobody can type")
