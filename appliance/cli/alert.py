"""``scanside alert``: what a person is told, and that a person has seen it."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.records import Actor, ActorKind, AlertStep, CommunicationMethod
from appliance.store.readmodels import to_json


@click.group(cls=Group)
def alert() -> None:
    """Alerts: list, acknowledge, record who was told, try whether they arrive."""


@alert.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only those that nobody has acknowledged.")
@config_option
@json_option
def list_(only_open: bool, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The newest alerts."""
    with opened(read_config(config_path, site)) as store:
        views = store.views.open_alerts() if only_open else store.views.alerts()
    if as_json:
        print_json({"alerts": to_json(views)})
        return
    print_table(
        "Alerts (times in UTC)",
        ["Alert", "Study", "Raised", "Category", "Suspected", "State", "By"],
        [
            [
                str(view.id),
                str(view.study_id),
                f"{view.raised_at:%Y-%m-%d %H:%M:%S}",
                str(view.category),
                ", ".join(one.finding for one in view.findings),
                str(view.state),
                view.acknowledged_by or "",
            ]
            for view in views
        ],
        "No alerts. That is no statement about any patient: 'scanside study list' shows what was analysed.",
    )


@alert.command()
@click.argument("alert_id", type=int)
@click.option("--name", help="Who has seen it; default: the user at the keyboard.")
@config_option
@json_option
def ack(alert_id: int, name: str | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Acknowledge an alert by name."""
    actor = Actor(kind=ActorKind.PERSON, name=name, role="technologist") if name else me()
    with opened(read_config(config_path, site)) as store:
        store.alerts.acknowledge(alert_id, actor)
        view = store.views.alert(alert_id)
    if as_json:
        print_json({"alert": to_json(view)})
    else:
        click.echo(f"alert {alert_id} is acknowledged by {view.acknowledged_by}")


@alert.command()
@click.argument("alert_id", type=int)
@click.option("--to", "received_by", required=True, help="Who was told.")
@click.option(
    "--by", "method", required=True, type=click.Choice([str(one) for one in CommunicationMethod]), help="How."
)
@click.option("--read-back/--no-read-back", required=True, help="Whether they repeated it.")
@click.option("--name", help="Who told; default: the user at the keyboard.")
@config_option
@json_option
def told(  # the six fields of a communication
    alert_id: int,
    received_by: str,
    method: str,
    read_back: bool,  # noqa: FBT001
    name: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Record that somebody was told of an alert: a line of the register of critical values."""
    actor = Actor(kind=ActorKind.PERSON, name=name, role="technologist") if name else me()
    config = read_config(config_path, site)
    with opened(config) as store:
        line = store.communications.record(
            alert_id,
            actor,
            received_by=received_by,
            method=CommunicationMethod(method),
            read_back=read_back,
            titles=(),
            evaluation=config.site.mode == "evaluation",
        )
    if as_json:
        print_json({"communication": line, "alert": alert_id})
    else:
        click.echo(f"alert {alert_id}: {received_by} was told by {actor.name}; line {line} of the register")


@alert.command()
@click.option("--source", default="", help="On the screens of this source alone; default: on every screen.")
@config_option
@json_option
def test(source: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Raise a TEST alert: shown and heard, counted nowhere; lights and webhooks get it marked as a test."""
    config = read_config(config_path, site)
    if source and source not in {one.name for one in config.sources}:
        raise NotFoundError(f"no source is named {source!r}; name one of 'sources' in the configuration")
    with opened(config) as store:
        test_id = store.alert_tests.begin(source, me(), config.sinks_of(AlertStep.TEST))
    if as_json:
        print_json({"test": test_id, "source": source})
    else:
        where = f"the screens of {source}" if source else "every screen"
        click.echo(
            f"test alert {test_id} is raised on {where}; it ends when somebody acknowledges it, or in 10 minutes"
        )
