"""``scanside alert``: what a person is told, and that a person has seen it."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import Group, config_option, json_option, me, opened, print_json, print_table, read_config
from appliance.records import Actor, ActorKind
from appliance.store.readmodels import to_json


@click.group(cls=Group)
def alert() -> None:
    """Alerts: list and acknowledge."""


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
