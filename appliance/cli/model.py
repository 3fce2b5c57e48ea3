"""``scanside model``: packages on this box, from installing to taking out of service, and what makers do with them."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, is_running, me, opened, read_config
from appliance.commands import F, Group, json_option, print_json, print_table
from appliance.config import Config
from appliance.records import AnalysisResult
from appliance.store import Store
from appliance.store.ending import OwedResult
from appliance.store.package_rows import PackageRow, PackageState
from appliance.store.package_rules import Terms, pick
from appliance.store.packages import RUNNING_OR_WAITING
from appliance.store.readmodels import to_json


def version_option(function: F) -> F:
    """``--version``: which version of the package is meant."""
    return click.option("--version", default="", metavar="VERSION", help="Which; the one that is meant when left out.")(
        function
    )


def why_option(function: F) -> F:
    """``--why``: an act that takes something out of service is never without a reason."""
    return click.option("--why", required=True, help="The reason, for the journal; no patient data.")(function)


@click.group(cls=Group)
def model() -> None:
    """AI packages: install, activate, withdraw, roll back; make and sign your own."""


model.add_lazy(
    {
        **{name: f"appliance.cli.model_package:{name}" for name in ("verify", "sign", "export")},
        "new": "appliance.cli.model_new:new",
        "golden": "appliance.cli.model_golden:golden",
        "evaluate": "appliance.cli.model_evaluate:evaluate",
    }
)


class _Owing:
    """What destinations are owed for what an act ends; loads the configuration's rule only when it is asked."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        from appliance.triage.packages import owed_results

        return owed_results(self._config, package, result)


def _is_clinical(config: Config) -> bool:
    return config.site.mode == "clinical"


def _when(config: Config) -> str:
    return "the box sees it within a second" if is_running(config) else "it counts from the box's next start"


@model.command()
@click.argument("package", type=click.Path(path_type=Path, exists=True))
@config_option
@json_option
def install(package: Path, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check PACKAGE (a folder or an archive), try it on this box and keep it. It runs nowhere until it is activated."""
    from appliance.store.installing import install_package
    from appliance.triage.packages import asked_of

    config = read_config(config_path, site)
    asked = asked_of(config)
    with opened(config) as store:
        new = install_package(store, package, asked, me())
    if as_json:
        print_json({"package": new.name, "version": new.version, "signed_by": new.signed_by, "p95_ms": new.p95_ms})
    else:
        click.echo(
            f"{new.name} {new.version} is installed, signed by {', '.join(new.signed_by)}; p95 {new.p95_ms:.0f} ms.\n"
            f"It runs nowhere yet: 'scanside model activate {new.name}' begins its silent time"
        )


def _document(store: Store, row: PackageRow) -> dict[str, object]:
    soak = store.packages.soak(row) if row.state is PackageState.SILENT else None
    agreement = store.packages.agreement(row) if row.state is PackageState.SHADOW else None
    fields: dict[str, object] = {name: value for name, value in to_json(row).items() if name not in ("id", "folder")}
    return {**fields, "silent": to_json(soak), "shadow": to_json(agreement)}


def _progress(store: Store, row: PackageRow) -> str:
    if row.state is PackageState.SHADOW:
        agreement = store.packages.agreement(row)
        return f"agreed on {agreement.same} of {agreement.studies} studies"
    if row.state is not PackageState.SILENT:
        return row.why
    soak = store.packages.soak(row)
    if row.live_after_days is None:
        return f"{soak.days:.1f} days, {soak.studies} studies; stays silent until it is activated"
    return f"{soak.days:.1f} of {row.live_after_days:g} days, {soak.studies} of {row.live_after_studies} studies"


@model.command("list")
@click.option("--all", "everything", is_flag=True, help="Also versions that have no slot any more.")
@config_option
@json_option
def list_(everything: bool, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The packages of this box and where each version stands."""
    with opened(read_config(config_path, site)) as store:
        rows = [row for row in store.packages.all() if everything or row.state is not PackageState.REMOVED]
        if as_json:
            print_json({"packages": [_document(store, row) for row in rows]})
            return
        lines = [
            [
                row.name,
                row.version,
                str(row.state),
                row.state_at.strftime("%Y-%m-%d %H:%M"),
                f"{row.p95_ms:.0f} ms" if row.p95_ms is not None else "",
                ", ".join(row.signed_by) or "with this software",
                _progress(store, row),
            ]
            for row in sorted(rows, key=lambda row: (row.name, row.id))
        ]
    print_table(
        "Packages (times in UTC)",
        ["Package", "Version", "State", "Since", "p95 here", "Signed by", ""],
        lines,
        "No package is known here; name one under 'packages' and start the box, or 'scanside model install' one.",
    )


@model.command()
@click.argument("name")
@version_option
@config_option
@json_option
def show(name: str, version: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Everything about one version: the live one when VERSION is left out."""
    from engines.package import parse_manifest

    with opened(read_config(config_path, site)) as store:
        rows = store.packages.all(name)
        row = pick(rows, name, version, (PackageState.LIVE,), RUNNING_OR_WAITING)
        manifest = parse_manifest(store.packages.manifest(row.id).encode(), f"{row.name} {row.version}")
        document = _document(store, row)
        progress = _progress(store, row)
    points = {
        finding.id: {
            "point": row.operating_points.get(finding.id) or finding.default_point.name,
            "offered": [point.model_dump(exclude={"basis"}) for point in finding.operating_points],
        }
        for finding in manifest.findings
    }
    if as_json:
        print_json({**document, "manifest": manifest.model_dump(mode="json", by_alias=True), "findings": points})
        return
    click.echo(f"{row.name} {row.version}: {row.state} since {row.state_at:%Y-%m-%d %H:%M} UTC {progress}".rstrip())
    click.echo(f"  {manifest.title.en}; status {manifest.status}, {manifest.intended_use}, {manifest.licence}")
    if manifest.template is not None:
        click.echo(f"  a template, which cannot be activated: {manifest.template.en}")
    click.echo(f"  looked for: {manifest.looked_for.en}\n  not looked for: {manifest.not_looked_for.en}")
    click.echo(f"  digest {row.digest}, {'signed by ' + ', '.join(row.signed_by) if row.signed_by else row.origin}")
    for finding in manifest.findings:
        for point in finding.operating_points:
            mark = "*" if point.name == points[finding.id]["point"] else " "
            said = ", ".join(
                f"{what} {value:g}"
                for what, value in (("sensitivity", point.sensitivity), ("specificity", point.specificity))
                if value is not None
            )
            click.echo(f"  {mark} {finding.id} at {point.name}: from {point.threshold:g} {finding.score_unit} {said}")


@model.command()
@click.argument("name")
@version_option
@click.option(
    "--days", type=click.FloatRange(min=0), default=7.0, show_default=True, help="Silent for so many days ..."
)
@click.option("--studies", type=click.IntRange(min=0), default=50, show_default=True, help="... and so many studies.")
@click.option("--shadow", is_flag=True, help="Run beside the live version; only the agreement is journalled.")
@click.option("--why", default="", help="The reason, for the journal; no patient data.")
@config_option
@json_option
def activate(
    name: str,
    version: str,
    days: float,
    studies: int,
    shadow: bool,  # noqa: FBT001
    why: str,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Let a version run: silent for the given time, then live by itself. 0 and 0 at once, in evaluation mode only."""
    config = read_config(config_path, site)
    with opened(config) as store:
        row = store.packages.activate(
            name,
            Terms(days=days, studies=studies, shadow=shadow),
            version=version,
            clinical=_is_clinical(config),
            owed=_Owing(config),
            actor=me(),
            why=why,
        )
        document = _document(store, row)
    if as_json:
        print_json(document)
    else:
        until = f", live after {days:g} days and {studies} studies" if row.state is PackageState.SILENT else ""
        click.echo(f"{name} {row.version} is {row.state}{until}; {_when(config)}")


@model.command()
@click.argument("name")
@version_option
@why_option
@config_option
@json_option
def withdraw(name: str, version: str, why: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Take a version out of service at once; what it claims ends NOT_ANALYSED(withdrawn) until another one is live."""
    config = read_config(config_path, site)
    with opened(config) as store:
        row, count = store.packages.withdraw(name, why, version=version, owed=_Owing(config), actor=me())
        can_go_back = any(one.state is PackageState.RETIRED for one in store.packages.all(name))
    if as_json:
        print_json({"package": name, "version": row.version, "was": str(row.state), "analyses_ended": count})
        return
    click.echo(f"{name} {row.version} is withdrawn ({row.state} before); {count} open analyses ended; {_when(config)}")
    if can_go_back:
        click.echo(f"'scanside model rollback {name} --why ...' lets the version before it serve")
    click.echo(f"'scanside study affected --package {name} --from DATE --to DATE' lists the studies that it analysed")


@model.command()
@click.argument("name")
@why_option
@config_option
@json_option
def rollback(name: str, why: str, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Let the previous version serve again, at once."""
    config = read_config(config_path, site)
    with opened(config) as store:
        before, now = store.packages.roll_back(name, why, owed=_Owing(config), actor=me())
    if as_json:
        print_json({"package": name, "from": before, "version": now})
    else:
        click.echo(f"{name} {now} serves again instead of {before}; {_when(config)}")


@model.command()
@click.argument("name")
@click.argument("finding")
@click.argument("point")
@version_option
@click.option("--reason", required=True, help="Why, for the journal; no patient data.")
@config_option
@json_option
def point(
    name: str,
    finding: str,
    point: str,
    version: str,
    reason: str,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Pick another operating point of the package's list for FINDING; analyses from now on use it."""
    config = read_config(config_path, site)
    with opened(config) as store:
        before = store.packages.choose_point(
            name, finding, point, reason, version=version, clinical=_is_clinical(config), actor=me()
        )
    if as_json:
        print_json({"package": name, "finding": finding, "before": before, "point": point})
    else:
        click.echo(f"{name}: {finding} at {point} instead of {before}; {_when(config)}")
