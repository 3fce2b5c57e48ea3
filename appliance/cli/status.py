"""``scanside status``: is the box running, and does it do its work?"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, is_running, opened, read_config
from appliance.commands import NotRunning, json_option, print_json
from appliance.store.fares import SHARES, Fares, fares
from appliance.store.readmodels import to_json

NO_ADMINISTRATOR = "nobody administers this box: 'scanside user add NAME --role administrator' makes an administrator"


@click.command()
@config_option
@json_option
def status(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What the box does now: receiving, analysing, what it owes, what is wrong."""
    config = read_config(config_path, site)
    running = is_running(config)
    if not running and not as_json:
        raise NotRunning(f"no box runs on {config.state_path}; start it with 'systemctl start scanside'")
    with opened(config) as store:
        box = store.views.box()
        counts = store.views.counts(datetime.now(timezone.utc) - timedelta(days=1))
        backlog = store.deliveries.backlog()
        uncommitted = store.commitments.waiting([one.name for one in config.commitment_destinations])
        asked = store.commitment_requests.open()
        newest = store.views.studies(limit=1)
        fared = fares(store.db, datetime.now(timezone.utc))
        has_administrator = store.accounts.has_administrator()
    if as_json:
        print_json(
            {
                "running": running,
                "has_administrator": has_administrator,
                "box": to_json(box),
                "studies_24_h": counts,
                "fares": _document(fared),
                "deliveries": to_json(backlog),
                "uncommitted": to_json(uncommitted),
                "commitment_requests": to_json(asked),
                "last_study": to_json(newest[0]) if newest else None,
            }
        )
    else:
        click.echo(f"running; {len(box.receiving)} studies arriving, {box.queued} analyses waiting")
        for outcome, count in sorted(counts.items()):
            click.echo(f"  last 24 h: {count} {outcome or 'open'}")
        _tell(fared)
        for one in backlog:
            click.echo(f"  owed to {one.destination}: {one.owed}, parked {one.parked} {one.last_error}".rstrip())
        for waiting in uncommitted:
            words = f"{waiting.destination} has not committed to {waiting.objects} objects {waiting.last_error}"
            click.echo(f"  {words.rstrip()}")
        for open_ in asked:
            click.echo(
                f"  {open_.source} waits for {open_.requests} reports of storage commitment, {open_.undecided} images"
                f" are undecided {open_.last_error}".rstrip()
            )
        for issue in box.issues:
            click.echo(f"  {issue.severity}: {issue.code} {issue.subject} since {issue.since_at:%Y-%m-%d %H:%M:%S} UTC")
            if issue.shelved_until is not None:
                click.echo(f"    shelved until {issue.shelved_until:%Y-%m-%d %H:%M} UTC by {issue.acknowledged_by}")
            elif issue.acknowledged_at is not None:
                click.echo(f"    acknowledged by {issue.acknowledged_by}")
            if why := issue.detail.get("why"):
                click.echo(f"    {why}")
        if not box.issues:
            click.echo("  no issues are open")
        if not has_administrator:
            click.echo(f"  {NO_ADMINISTRATOR}")
    if not running:
        raise SystemExit(3)


def _document(fared: Fares) -> dict[str, Any]:
    models = [
        {
            "package": one.package,
            "version": one.version,
            "role": one.role,
            "analyses": one.n,
            "flagged": one.flagged,
            "not_analysed": one.not_analysed,
            "ms": {f"p{share * 100:g}": one.took_ms(share) for share in SHARES},
            "psi": {name: moved.psi for name, moved in one.drift.items()},
        }
        for one in fared.models
    ]
    return {**to_json(replace(fared, models=())), "models": models}


def _tell(fared: Fares) -> None:
    """The same figures as the page of health and the fleet."""
    off = f", {fared.skew_s:+.1f} s against the fleet's server" if fared.skew_s is not None else ""
    click.echo(f"  clock {fared.clock}{off}; {fared.restarts} restarts in 24 h")
    for one in fared.models:
        took = " / ".join(f"{(one.took_ms(share) or 0) / 1000:.1f}" for share in SHARES)
        drift = "".join(f", {name} PSI {moved.psi:.2f}" for name, moved in one.drift.items())
        times = f", p50 / p95 / p99 {took} s" if one.ms else ""
        click.echo(
            f"  {one.package} {one.version} {one.role}: {one.n} analyses, {one.flagged} flagged,"
            f" {one.not_analysed} not analysed{times}{drift}"
        )
    for source in fared.sources:
        silent = ", silent at its usual hours" if source.is_silent else ""
        machine = source.machine
        what = f", {machine.make} {machine.model} {' '.join(machine.kernels)}".rstrip() if machine is not None else ""
        click.echo(f"  source {source.source}: last image {source.last_at:%Y-%m-%d %H:%M} UTC{silent}{what}")
