"""``scanside study``: what the box knows of studies."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, me, opened, read_config, study_id_of
from appliance.commands import Group, json_option, print_json, print_table
from appliance.errors import NotFoundError
from appliance.records import Actor, ActorKind, OrderState, QualityChoice, QualityReason
from appliance.store.affected import affected
from appliance.store.forwarding import originals_for
from appliance.store.orders import OrderView
from appliance.store.readmodels import REJECTED, ExposureView, StudyView, to_json

_NO_ORDER = {
    OrderState.NONE: "the worklist has none",
    OrderState.SEVERAL: "the worklist has several that these images may belong to",
    OrderState.OTHER_PATIENT: "the worklist has it for another patient; look at header and order",
}


@click.group(cls=Group)
def study() -> None:
    """Studies: list, show, process again, choose between versions, answer quality warnings."""


def outcome_text(view: StudyView) -> str:
    """Outcome and reason as one word for a table; open studies are said to be."""
    if view.outcome is None:
        return "open"
    return f"{view.outcome} ({view.reason})" if view.reason else str(view.outcome)


def exposure_text(view: ExposureView) -> str:
    """How an image was exposed, as one line."""
    said = {
        "exposure index": view.exposure_index,
        "target": view.target_exposure_index,
        "deviation index": view.deviation_index,
    }
    line = ", ".join(f"{name} {value:g}" for name, value in said.items() if value is not None)
    if view.percent_of_target is not None:
        line += f" ({view.percent_of_target:.3g} % of the target exposure)"
    return f"image {view.instance_number}: {line}" if view.instance_number is not None else line


def order_text(order: OrderView) -> str:
    """What the RIS said of the order, as one line."""
    if order.state is not OrderState.FOUND:
        return f"order: {_NO_ORDER[order.state]}"
    told = [order.priority, order.procedure_description, order.procedure_id and f"procedure {order.procedure_id}"]
    if order.accession_number:
        told.append(f"accession number {order.accession_number}, which results carry as the images have none")
    return f"order: {', '.join(filter(None, told)) or 'known, without particulars'}"


def _quality_warnings(view: StudyView) -> list[dict[str, Any]]:
    """What quality packages warn of now, and what was done about it."""
    return [
        {
            "analysis": analysis.id,
            "package": analysis.package,
            "version": analysis.package_version,
            "findings": [finding.id for finding in analysis.quality_warnings],
            "choice": to_json(analysis.choice),
        }
        for analysis in view.analyses
        if analysis.quality_warnings
    ]


@study.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10000))
@config_option
@json_option
def list_(limit: int, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The newest studies."""
    with opened(read_config(config_path, site)) as store:
        views = store.views.studies(limit=limit)
    if as_json:
        print_json({"studies": to_json(views)})
        return
    rows = [
        [
            str(view.id),
            view.last_at.strftime("%Y-%m-%d %H:%M:%S"),
            view.source,
            "/".join(view.modalities),
            view.identity.accession_number,
            str(view.images),
            outcome_text(view),
        ]
        for view in views
    ]
    print_table(
        "Studies (times in UTC)",
        ["Study", "Last image", "Source", "Modality", "Accession", "Images", "Outcome"],
        rows,
        "No studies yet. Test the connection from the scanner, or send files with 'scanside send'.",
    )


@study.command()
@click.argument("which")
@config_option
@json_option
def show(which: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Everything about one study: a number of 'study list', a Study Instance UID or an accession number."""
    with opened(read_config(config_path, site)) as store:
        detail = store.views.study(study_id_of(store, which))
    view = detail.study
    warnings = _quality_warnings(view)
    if as_json:
        print_json({**to_json(detail), "quality_warnings": warnings})
        return
    click.echo(f"Study {view.id} from {view.source}: {outcome_text(view)}, {view.images} images")
    if view.images_removed_at is not None:
        click.echo(f"  images removed from this box on {view.images_removed_at:%Y-%m-%d %H:%M} UTC; the results stay")
    if view.order is not None:
        click.echo(f"  {order_text(view.order)}")
    for series in detail.series:
        rejected = f", {series.rejected} of them rejected" if series.rejected else ""
        left_out = f" {series.left_out}" if series.left_out else ""
        click.echo(f"  series {series.id} {series.modality}: {series.images} images{rejected}{left_out}")
        for exposure in series.exposures:
            click.echo(f"    {exposure_text(exposure)}")
    for analysis in view.analyses:
        said = f"{analysis.outcome} {analysis.reason or ''} {analysis.detail}".strip()
        click.echo(f"  analysis {analysis.id} {analysis.package} {analysis.package_version} ({analysis.role}): {said}")
        for name, ms in analysis.hops_ms.items():
            click.echo(f"    {name}: {ms:.0f} ms")
    for alert in detail.alerts:
        if alert.withdrawn_why == REJECTED:
            click.echo(f"  alert {alert.id} withdrawn: images rejected")
    for warning in warnings:
        chosen = warning["choice"]
        done = "{choice} ({reason}) by {decided_by}".format(**chosen) if chosen else "not answered"
        click.echo(f"  quality warning of analysis {warning['analysis']}: {', '.join(warning['findings'])}: {done}")
    for delivery in view.deliveries:
        committed = f", {delivery.committed} committed" if delivery.committed else ""
        said = f"{delivery.state}{committed} {delivery.error}".rstrip()
        click.echo(f"  {delivery.count} {delivery.kind} to {delivery.destination}: {said}")
    for fact in detail.facts:
        click.echo(f"  {fact.at:%H:%M:%S.%f} {fact.kind}")


@study.command()
@click.argument("which")
@config_option
@json_option
def reprocess(which: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Analyse a study again; the old analyses stay, superseded."""
    with opened(read_config(config_path, site)) as store:
        study_id = study_id_of(store, which)
        store.analyses.reprocess(study_id, me())
    print_json({"study": study_id, "queued": True}) if as_json else click.echo(f"study {study_id} is analysed again")


@study.command()
@click.argument("which")
@click.option("--choice", required=True, type=click.Choice([str(one) for one in QualityChoice]), help="What was done.")
@click.option(
    "--reason",
    required=True,
    type=click.Choice([str(one) for one in QualityReason]),
    help="Why, as a category of a reject analysis (AAPM Report 305).",
)
@click.option("--by", "name", help="Who decided; default: the user at the keyboard.")
@config_option
@json_option
def quality(
    which: str,
    choice: str,
    reason: str,
    name: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Say what was done about the quality warnings of a study, and why; again to correct it."""
    actor = Actor(kind=ActorKind.PERSON, name=name, role="technologist") if name is not None else me()
    with opened(read_config(config_path, site)) as store:
        study_id = study_id_of(store, which)
        analyses = store.quality.decide(study_id, QualityChoice(choice), QualityReason(reason), actor)
    if as_json:
        print_json(
            {"study": study_id, "analyses": list(analyses), "choice": choice, "reason": reason, "by": actor.name}
        )
    else:
        click.echo(f"quality warnings of study {study_id}: {choice} ({reason}) by {actor.name}")


def _moment(text: str, *, is_end: bool) -> datetime:
    """A day or a minute in the box's own time zone; a day as an end is meant with all its hours."""
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M"):
        with contextlib.suppress(ValueError):
            local = datetime.strptime(text, form).astimezone()
            return local + timedelta(days=1) if is_end and form == "%Y-%m-%d" else local
    raise click.UsageError(f"{text!r} is no date; write 2026-03-31 or 2026-03-31T14:30, in the box's time zone")


@study.command("affected")
@click.option("--package", required=True, help="The package, as 'scanside model list' shows it.")
@click.option("--version", default="", help="Only this version.")
@click.option("--from", "since", required=True, metavar="DATE", help="From this day, or minute (2026-03-31T14:30).")
@click.option("--to", "until", required=True, metavar="DATE", help="To this day, all of it, or this minute.")
@config_option
@json_option
def affected_(
    package: str,
    version: str,
    since: str,
    until: str,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """The look-back: studies that a package analysed in a span of time, and whether an alert or an object went out."""
    begin, end = _moment(since, is_end=False), _moment(until, is_end=True)
    with opened(read_config(config_path, site)) as store:
        found = affected(store.db, package, begin, end, version)
        known = [row.version for row in store.packages.all(package)]
    if not found and not known:
        raise NotFoundError(
            f"no package named {package!r} was ever here; 'scanside model list --all' shows those that were"
        )
    if as_json:
        print_json({"package": package, "from": begin.isoformat(), "to": end.isoformat(), "studies": to_json(found)})
        return
    rows = [
        [
            str(one.study_id),
            one.accession_number,
            one.source,
            one.done_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            one.version,
            str(one.role),
            (f"{one.outcome} ({one.reason})" if one.reason else str(one.outcome)) + (", superseded" * one.superseded),
            "yes" if one.alerted else "no",
            str(one.delivered),
        ]
        for one in found
    ]
    print_table(
        f"{len({one.study_id for one in found})} studies analysed by {package}",
        ["Study", "Accession", "Source", "Ended", "Version", "Role", "Outcome", "Alert", "Objects sent"],
        rows,
        f"{package} analysed nothing in that time.",
    )


@study.command()
@click.argument("which")
@click.option("--choose", type=int, metavar="VERSION", help="Take this version from now on.")
@config_option
@json_option
def versions(which: str, choose: int | None, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Images that came more than once with differences; choose which one is analysed and forwarded."""
    config = read_config(config_path, site)
    with opened(config) as store:
        study_id = study_id_of(store, which)
        if choose is not None:
            known = [version.id for series in store.views.study(study_id).series for version in series.versions]
            if choose not in known:
                raise click.UsageError(f"study {study_id} has no version {choose}; it has {known}")
            store.studies.choose(choose, lambda source: originals_for(config, source), me())
        series = store.views.study(study_id).series
    listed = [version for one in series for version in one.versions]
    if as_json:
        print_json({"study": study_id, "versions": to_json(listed)})
        return
    print_table(
        f"Versions in study {study_id}",
        ["Version", "n", "State", "Received", "SOP Instance UID"],
        [[str(v.id), str(v.n), v.state, f"{v.received_at:%Y-%m-%d %H:%M:%S}", v.sop_instance_uid] for v in listed],
        "Every image of this study came in one version only.",
    )
