"""``scanside-fleet rollout``: a version of a model, wave by wave. What people do; the running server drives it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from appliance.clock import SystemClock
from appliance.commands import Group, json_option, print_json, print_table
from appliance.fleet.server.cli.common import config_option, me, opened, read_config
from appliance.fleet.server.cli.rollout_told import (
    account_of,
    as_option,
    counted,
    document,
    row_document,
    say_gaps,
    stands,
    verdict,
)
from appliance.fleet.server.db import read, write
from appliance.fleet.server.models import get_model
from appliance.fleet.server.premises import PLATFORM
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import acts, query
from appliance.fleet.server.rollout.plan import Chosen, Gates, Plan

_EVERYTHING = Scope.everything()
#: Of an ISO 3166 code.
_CODE = 2


@click.group(
    cls=Group,
    epilog="""\b
A roll-out's life:
  scanside-fleet rollout make ich-ct 2.0.0 --as wang       its waves are drawn up; nothing happens
  scanside-fleet rollout submit ID --as wang
  scanside-fleet rollout approve ID --as li --key /media/stick/release.key
  scanside-fleet rollout start ID --as wang
  scanside-fleet rollout show ID
""",
)
def rollout() -> None:
    """A version of a model, wave by wave, with gates between the waves."""


@rollout.command()
@click.argument("package")
@click.argument("version")
@click.option("--tenant", default=PLATFORM, show_default=True, help="Whose: its boxes and those of all below it.")
@click.option("--role", type=click.Choice(["silent", "shadow", "live"]), default="live", show_default=True)
@click.option("--of", "tenants", multiple=True, metavar="TENANT", help="Boxes of this tenant alone; repeat it.")
@click.option("--site", "sites", multiple=True, help="Boxes of this site alone; repeat it.")
@click.option("--device", "devices", multiple=True, help="This box alone; repeat it.")
@click.option("--modality", "modalities", multiple=True, type=click.Choice(["CT", "CR", "DX", "OT"]))
@click.option("--country", "countries", multiple=True, help="Sites there alone.  [default: the model's markets]")
@click.option("--lab", multiple=True, metavar="DEVICE", help="A box of your own, for the first wave; repeat it.")
@click.option("--canaries", type=click.IntRange(1, 500), default=5, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the plan or its gates; see 'show'.")
@as_option()
@config_option
@json_option
def make(
    package: str,
    version: str,
    tenant: str,
    role: Any,
    tenants: tuple[str, ...],
    sites: tuple[str, ...],
    devices: tuple[str, ...],
    modalities: tuple[Any, ...],
    countries: tuple[str, ...],
    lab: tuple[str, ...],
    canaries: int,
    settings: tuple[str, ...],
    name: str,
    config_path: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Draw one up for a model that boxes can fetch ('model list'), with its waves. Nothing happens yet."""
    config, now = read_config(config_path), SystemClock().now()
    with opened(config) as engine:
        with write(engine) as connection:
            model = get_model(connection, package, version)
            markets = tuple(one for one in model.markets or () if len(one) == _CODE)
            ident = acts.make(
                connection,
                _EVERYTHING,
                tenant=tenant,
                package=package,
                version=version,
                digest=model.digest,
                target=model.target,
                role=role,
                chosen=_checked(
                    Chosen,
                    {
                        "tenants": tenants,
                        "sites": sites,
                        "devices": devices,
                        "modalities": modalities,
                        "countries": countries or markets,
                        "lab": lab,
                        "canaries": canaries,
                    },
                ),
                plan=_plan(settings),
                account=account_of(connection, name),
                actor=me(),
                now=now,
            )
        with read(engine) as connection:
            page = query.get_roll_out(connection, _EVERYTHING, ident, now)
    if as_json:
        print_json(document(page))
        return
    click.echo(ident)
    for wave in page.waves:
        click.echo(f"  wave {wave.number} ({wave.name}): {page.plan.waves[wave.number - 1].boxes} boxes", err=True)
    say_gaps(page)


@rollout.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The newest, and where each stands."""
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        found = query.list_roll_outs(connection, _EVERYTHING, SystemClock().now())
    if as_json:
        print_json({"rollouts": [row_document(one) for one in found]})
        return
    shown = [
        [
            one.id,
            one.tenant,
            f"{one.package} {one.version} {one.role}",
            stands(one),
            f"{one.wave} of {one.waves}",
            counted(one.counts),
            f"{one.made_at:%Y-%m-%d %H:%M}",
        ]
        for one in found
    ]
    columns = ["Roll-out", "Tenant", "What", "State", "Wave", "Boxes", "Made"]
    print_table("Roll-outs (times in UTC)", columns, shown, "No roll-outs; 'rollout make' draws one up.")


@rollout.command()
@click.argument("ident", metavar="ID")
@click.option("--boxes", is_flag=True, help="Each of its boxes too.")
@config_option
@json_option
def show(ident: str, boxes: bool, config_path: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Its waves, what its gates say, and with --boxes how each box fares."""
    now = SystemClock().now()
    with opened(read_config(config_path)) as engine, read(engine) as connection:
        page = query.get_roll_out(connection, _EVERYTHING, ident, now)
        every = query.list_boxes(connection, _EVERYTHING, ident, now, most=1_000_000) if boxes else []
    if as_json:
        print_json({**document(page), **({"boxes": [asdict(one) for one in every]} if boxes else {})})
        return
    row = page.row
    click.echo(
        f"{row.package} {row.version} ({row.role}) for {row.tenant}: {stands(row)}; made by {row.maker}", err=True
    )
    say_gaps(page)
    shown = [
        [str(one.number), one.name, str(one.state), counted(one.counts), "\n".join(map(verdict, one.verdicts))]
        for one in page.waves
    ]
    print_table("Waves", ["Wave", "Name", "State", "Boxes", "Gates"], shown, "No waves.")
    if boxes:
        columns = ["Box", "Site", "Wave", "Fares", "Job", "Code"]
        told = [
            [one.device, one.site, str(one.wave), str(one.word), one.state, one.code or one.left_out] for one in every
        ]
        print_table("Boxes", columns, told, "No boxes.")


_ACTS = "appliance.fleet.server.cli.rollout_acts"
rollout.add_lazy(
    {
        **{name: f"{_ACTS}:{name}" for name in ("submit", "approve", "start", "pause", "resume", "abort", "revert")},
        **{name: f"{_ACTS}:{name}" for name in ("grant", "sign", "discard")},
        "put-grant": f"{_ACTS}:put_grant",
    }
)


def _plan(settings: tuple[str, ...]) -> Plan:
    """``per_minute=50`` is the plan's, ``max_failed=0.05`` its gates'."""
    plan: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    for text in settings:
        name, sign_, value = text.partition("=")
        if not sign_ or name in {"gates", "waves", "not_covered", "left_out"}:
            raise click.UsageError("--set is NAME=VALUE, of the plan or its gates")
        many = name in {"shares", "safety_codes"}
        (gates if name in Gates.model_fields else plan)[name] = value.split(",") if many else value
    made: Plan = _checked(Plan, {**plan, "gates": _checked(Gates, gates)})
    return made


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
