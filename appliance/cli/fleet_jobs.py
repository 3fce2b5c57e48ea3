"""``scanside fleet jobs``: what the service team asked of this box, and the site's word on it."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.cli.model import why_option
from appliance.commands import json_option, print_json, print_table
from appliance.fleet.device.inbox import job_of
from appliance.fleet.wire import WireError
from appliance.store.fleet_jobs import JobRow


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@config_option
@json_option
def jobs(everything: bool, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Jobs of the fleet and where each stands; those that wait for the site's approval say so."""
    with opened(read_config(config_path, site)) as store:
        rows = [row for row in store.fleet_jobs.all() if everything or row.is_open]
    if as_json:
        print_json({"jobs": [_document(row) for row in rows]})
        return
    lines = [
        [
            str(row.ctr),
            row.op,
            _what(row),
            row.state.lower() if row.state != "WAIT_APPROVAL" or row.approved_by else "waits for approval",
            row.code,
            row.state_at.strftime("%Y-%m-%d %H:%M"),
        ]
        for row in rows
    ]
    print_table("Jobs (times in UTC)", ["Job", "Op", "What", "State", "Code", "Since"], lines, "No job is open.")


@click.command()
@click.argument("job")
@why_option
@config_option
@json_option
def approve(job: str, why: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Say yes, for this site, to JOB (its number), which waits for that. The box goes on within a second."""
    with opened(read_config(config_path, site)) as store:
        row = store.fleet_jobs.approve(job, me(), why)
    _said(row, "approved", as_json=as_json)


@click.command()
@click.argument("job")
@why_option
@config_option
@json_option
def refuse(job: str, why: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Say no, for this site, to JOB (its number): it ends here, and the service team hears that it was refused."""
    with opened(read_config(config_path, site)) as store:
        row = store.fleet_jobs.refuse(job, me(), why)
    _said(row, "refused", as_json=as_json)


def _said(row: JobRow, word: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(row))
    else:
        click.echo(f"job {row.ctr} ({row.op} {_what(row)}) is {word}")


def _document(row: JobRow) -> dict[str, object]:
    return {
        "job": row.ctr,
        "id": row.id,
        "op": row.op,
        "what": _what(row),
        "state": row.state,
        "code": row.code,
        "figures": dict(row.figures),
        "received_at": row.received_at.isoformat(),
        "state_at": row.state_at.isoformat(),
        "approved_by": row.approved_by,
    }


def _what(row: JobRow) -> str:
    """The package that it is about."""
    try:
        args = job_of(row).args
    except WireError:
        return ""
    return " ".join(filter(None, (args.package, args.version)))
