"""``scanside model evaluate``: a package on studies whose truth is known. No alert, no delivery, no database."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.commands import Exit, json_option, print_json, print_table
from appliance.errors import NotFoundError
from engines.errors import PackageError

if TYPE_CHECKING:
    from appliance.triage.evaluation import AtPoint, Estimate, Evaluated, Group, Proportion, Report
    from appliance.triage.evaluation_run import Ran
    from appliance.triage.evaluation_truth import Unmatched
    from engines.package import Package
    from engines.signing import PublicKey


@dataclass(frozen=True)
class _Rest:
    """What is in no figure."""

    rows: int
    unmatched: list[Unmatched]
    without_truth: list[Evaluated]
    others: list[Path]


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_COLUMNS = ["Operating point", "Sensitivity", "Specificity", "PPV", "NPV", "Sensitivity owed*", "Flagged", "Alerts/day"]
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("package")
@click.option("--studies", "folder", type=_FOLDER, required=True, help="Folder of DICOM files, searched through.")
@click.option(
    "--truth",
    "truth_file",
    type=_FILE,
    required=True,
    help="CSV with the columns study,finding,present[,source]. study: Study Instance UID, accession number, or the"
    " name of a folder or file below --studies; present: 0 or 1.",
)
@click.option("--studies-a-day", type=click.FloatRange(min=0), help="For alerts a day; else by the studies' own dates.")
@click.option("--trust", type=_FILE, multiple=True, help="Public key (PEM) of the maker; may be repeated.")
@click.option("--unsigned", is_flag=True, help="For makers: do not ask for a signature.")
@click.option("--threads", type=click.IntRange(0, 256), default=0, help="Of one inference; 0 = all cores.")
@click.option("--list", "listed", is_flag=True, help="Name what did not match and what was not analysed.")
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    package: str,
    folder: Path,
    truth_file: Path,
    studies_a_day: float | None,
    trust: tuple[Path, ...],
    unsigned: bool,  # noqa: FBT001
    threads: int,
    listed: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Run PACKAGE over studies and compare it with the truth. Raises no alert, delivers nothing.

    PACKAGE is a folder, an archive, or the name of a package that came with this installation.
    """
    from appliance.triage.evaluation import evaluate as evaluate_cases
    from appliance.triage.evaluation_run import blank, find_studies, run_studies
    from appliance.triage.evaluation_truth import match, read_truth
    from engines.signing import load_public

    with tempfile.TemporaryDirectory(prefix="scanside-") as scratch:
        try:
            keys = [load_public(path) for path in trust]
            opened, trusted = _open(package, keys, scratch, unsigned=unsigned)
            rows = read_truth(_text(truth_file), [finding.id for finding in opened.manifest.findings])
            found, others = find_studies(folder)
            if not found:
                msg = f"{folder} holds no DICOM studies; name the folder that does with --studies"
                raise NotFoundError(msg)
            # For its complaints, before hours of work.
            match(rows, [blank(study) for study in found])
            ran = run_studies(
                opened,
                keys,
                found,
                trusted=trusted,
                threads=threads or len(os.sched_getaffinity(0)),
                on_done=lambda done: _tell(done, len(found)),
            )
        except PackageError as error:
            faults = str(error).replace(str(_unpacked(scratch)), package).splitlines()
            if as_json:
                print_json({"package": package, "faults": faults, "exit": int(Exit.CHECK_FAILED)})
            else:
                click.echo("\n".join(f"Error: {line}" for line in faults), err=True)
            ctx.exit(int(Exit.CHECK_FAILED))
    cases, unmatched, without_truth = match(rows, ran.studies)
    report = evaluate_cases(opened.manifest, ran.studies, cases, studies_a_day=studies_a_day)
    rest = _Rest(rows=len(rows), unmatched=unmatched, without_truth=without_truth, others=others)
    if as_json:
        print_json(_document(opened, ran, report, rest))
        return
    _print(opened, ran, report)
    _print_rest(ran, rest, listed=listed)


def _open(package: str, keys: list[PublicKey], scratch: str, *, unsigned: bool) -> tuple[Package, bool]:
    """The package once it has passed the gate, and whether its signature is not asked for."""
    from engines.archive import unpack
    from engines.gate import gate_package
    from engines.package import bundled_packages, load_package

    path = Path(package)
    bundled = bundled_packages()
    if not path.exists() and package in bundled:
        return load_package(bundled[package]), False
    if not path.exists():
        msg = f"{package} is neither a folder nor an archive nor one of {', '.join(sorted(bundled)) or 'no packages'}"
        raise NotFoundError(msg)
    folder = path if path.is_dir() else unpack(path, _unpacked(scratch))
    if folder.resolve() in bundled.values():
        return load_package(folder), False
    if not keys and not unsigned:
        raise click.UsageError("name the maker's key with --trust, or say --unsigned")
    gate_package(folder, keys, trusted=unsigned)
    return load_package(folder, keys=keys, trusted=unsigned), unsigned


def _unpacked(scratch: str) -> Path:
    """Where an archive's files lie; for the person they lie in the archive."""
    return Path(scratch, "package")


def _text(path: Path) -> str:
    from appliance.triage.evaluation_truth import TruthError

    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as UTF-8 text: {error}"
        raise TruthError(msg) from error


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} studies", err=True, nl=done == total)


def _document(package: Package, ran: Ran, report: Report, rest: _Rest) -> dict[str, Any]:
    return {
        "package": {"name": package.name, "version": package.version, "digest": package.digest},
        "engine": {"digest": ran.engine_digest, "backend": ran.backend, "precision": ran.precision},
        **asdict(report),
        "truth": {"rows": rest.rows, "unmatched": [asdict(row) for row in rest.unmatched]},
        "studies_without_truth": [study.names[0] for study in rest.without_truth],
        "studies_not_analysed": [
            {"study": study.names[0], "reason": study.reason, "detail": study.detail}
            for study in ran.studies
            if study.reason
        ],
        "other_files": [str(path) for path in rest.others],
    }


def _print(package: Package, ran: Ran, report: Report) -> None:
    click.echo(
        f"{package.name} {package.version} on {report.studies} studies ({ran.backend}, {ran.precision}):"
        f" {report.analysed} analysed"
    )
    for reason, count in report.not_analysed.items():
        click.echo(f"  {count} not analysed: {reason}")
    if report.not_applicable:
        click.echo(f"  {report.not_applicable} not applicable: the package claims none of their series")
    if report.alerts_a_day is not None:
        click.echo(
            f"  {report.alerts_a_day:.2g} alerts a day at the default operating points,"
            f" of {report.studies_a_day:.4g} studies a day"
        )
    else:
        click.echo("  alerts a day: not known, some studies have no date; give --studies-a-day")
    for one in report.findings:
        for group in one.groups:
            _print_group(one.finding, group)


def _print_group(finding: str, group: Group) -> None:
    click.echo(f"\n{finding}, {'all sources' if group.source == 'all' else f'source {group.source}'}:", nl=False)
    click.echo(f" {group.positive} with, {group.negative} without; AUC {_estimate(group.auc)}")
    left_out = {f"not analysed: {reason}": count for reason, count in group.not_analysed.items()}
    for what, count in {**left_out, "not applicable": group.not_applicable}.items():
        if any(count.values()):
            click.echo(f"  not in the figures below: {count['positive']} with, {count['negative']} without, {what}")
    print_table("", _COLUMNS, [_row(point) for point in group.points], "")
    if group.not_analysed:
        click.echo("* a study with the finding that was not analysed counts as missed")


def _row(point: AtPoint) -> list[str]:
    figures = (point.sensitivity, point.specificity, point.ppv, point.npv, point.sensitivity_owed, point.flagged)
    return [
        f"{point.point} (>= {point.threshold:g}){', default' if point.default else ''}",
        *map(_share, figures),
        "" if point.alerts_a_day is None else f"{point.alerts_a_day:.2g}",
    ]


def _share(one: Proportion) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "not known (0/0)"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f}) {one.numerator}/{one.denominator}"


def _estimate(one: Estimate) -> str:
    if one.value is None:
        return "not known"
    return f"{one.value:.3f}" + ("" if one.low is None else f" ({one.low:.3f} to {one.high:.3f})")


def _print_rest(ran: Ran, rest: _Rest, *, listed: bool) -> None:
    """What is in no figure: by number, or by name where it is asked for."""
    left_out = [f"{study.names[0]}: {study.reason}: {study.detail}" for study in ran.studies if study.reason]
    unused = [f"line {row.line}: {row.study}: {row.why}" for row in rest.unmatched]
    parts = (
        (f"{len(unused)} of {rest.rows} rows of truth were not used", unused),
        (f"{len(rest.without_truth)} studies have no truth", [study.names[0] for study in rest.without_truth]),
        (f"{len(left_out)} studies were not analysed", left_out),
        (f"{len(rest.others)} files are no DICOM images or are damaged", [str(path) for path in rest.others]),
    )
    click.echo("")
    for title, lines in parts:
        if lines:
            click.echo(title + (":" if listed else " (--list names them)"))
            for line in lines if listed else ():
                click.echo(f"  {line}")
