"""``scanside audit``: whether the journal is what it was when it was written, and an export of it."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from pathlib import Path

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import Exit, Group, json_option, print_json
from appliance.errors import ConflictError
from appliance.store.audit_log import AuditFilter, as_csv, as_jsonl
from appliance.store.facts import Kind
from appliance.store.readmodels import to_json

_DAY = click.DateTime(["%Y-%m-%d"])


@click.group(cls=Group)
def audit() -> None:
    """The journal: check its chain, export it."""


@audit.command()
@config_option
@json_option
@click.pass_context
def verify(ctx: click.Context, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check every row against the one before; 7 where one was changed, removed or put in.

    Keep the number and hash that it prints somewhere else: whoever owns the machine could write the whole chain anew.
    """
    with opened(read_config(config_path, site)) as store:
        while store.chain.advance():
            pass
        state = store.chain.state
    if as_json:
        print_json({"intact": state.is_whole, **to_json(state)})
    elif state.is_whole:
        click.echo(f"Chain intact to #{state.through}, hash {state.hash}")
    else:
        click.echo(
            f"The chain breaks at #{state.broken_at}; it is intact to #{state.through}.\n"
            "A row was changed, removed or put in: keep the database as it is, 'scanside audit export' it, call service"
        )
    if not state.is_whole:
        ctx.exit(int(Exit.CHECK_FAILED))


@audit.command()
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, allow_dash=True), help="A new file; - for stdout."
)
@click.option("--form", default="jsonl", show_default=True, type=click.Choice(["jsonl", "csv"]))
@click.option("--who", default="", type=click.Choice(["person", "system", "fleet", ""]), help="Rows of these alone.")
@click.option("--name", default="", help="A part of the name of who acted.")
@click.option("--study", default=None, type=int, help="Of the study with this number.")
@click.option("--kind", default=None, type=click.Choice(sorted(map(str, Kind))), metavar="KIND")
@click.option("--since", default=None, type=_DAY, metavar="DATE", help="From this day on (2026-03-31).")
@click.option("--until", default=None, type=_DAY, metavar="DATE", help="To the end of this day.")
@config_option
@json_option
def export(
    out: Path,
    form: str,
    who: str,
    name: str,
    study: int | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Rows of the journal, oldest first, each with its hash. That somebody exported them is in the journal too."""
    is_stdout = str(out) == "-"
    if is_stdout and as_json:
        raise click.UsageError("--json says what was written; give a file to --out beside it")
    if not is_stdout and out.exists():
        raise ConflictError(f"{out} is there already; name a new file")
    wanted = AuditFilter(
        who=who,
        name=name,
        study_id=study,
        kind=Kind(kind) if kind else None,
        since=_begin(since),
        until=_begin(until + timedelta(days=1)) if until else None,
    )
    rows, last, digest = 0, 0, ""
    with opened(read_config(config_path, site)) as store, click.open_file(str(out), "w", encoding="utf-8") as file:
        store.audit.accessed("audit export", me())
        if form == "csv":
            file.write(as_csv((), head=True))
        for batch in store.audit_log.export(wanted):
            file.write(as_csv(batch) if form == "csv" else as_jsonl(batch))
            fact, digest = batch[-1]
            rows, last = rows + len(batch), fact.seq
    if as_json:
        print_json({"out": str(out), "rows": rows, "last": last, "hash": digest})
    elif not is_stdout:
        click.echo(f"{rows} rows to {out}; the last is #{last} with hash {digest}")


def _begin(day: datetime | None) -> datetime | None:
    """Of a day in the box's time zone."""
    return datetime.combine(day.date(), time()).astimezone() if day else None
