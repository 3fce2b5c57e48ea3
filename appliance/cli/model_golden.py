"""``scanside model golden``: what a package says of phantoms now, kept for every box to check that it still does."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from appliance.cli.model_package import refuse
from appliance.commands import json_option, print_json
from engines.data_rules import GOLDEN_FOLDER, GOLDEN_LIST, ORIGINS
from engines.errors import PackageError
from engines.manifest import Finding
from engines.package import load_package

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
#: FP16 and INT8 may take so much from a score, and so large a share of a quantity.
_AROUND = 0.05
_LEAST = 0.01


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--dicom", "studies", type=_FOLDER, required=True, help="Folder of DICOM files: one case a study.")
@click.option("--origin", type=click.Choice(ORIGINS), required=True, help="What they show; never a patient.")
@json_option
@click.pass_context
def golden(ctx: click.Context, folder: Path, studies: Path, origin: str, as_json: bool) -> None:  # noqa: FBT001
    """Run the package in FOLDER on studies, and add them with what it says, within bounds, to its golden cases.

    A case is called like the folder of its study. Only pixels and spacing are kept. Sign the package again afterwards.
    """
    from appliance.triage.golden_run import record

    try:
        package = load_package(folder, trusted=True)
        with tempfile.TemporaryDirectory(prefix="scanside-") as scratch:
            recorded = record(package, studies, Path(scratch))
            cases: list[dict[str, Any]] = [
                {
                    "file": case.path.name,
                    "origin": origin,
                    "scores": {one.id: bounds(case.scores[one.id], one) for one in package.manifest.findings},
                }
                for case in recorded
            ]
            _add(folder, cases, Path(scratch))
    except PackageError as error:
        refuse(ctx, folder, error, as_json=as_json)
        return
    if as_json:
        print_json({"cases": cases, "scores": {case.path.name: case.scores for case in recorded}})
        return
    for case, entry in zip(recorded, cases, strict=True):
        for finding in package.manifest.findings:
            low, high = entry["scores"][finding.id]
            point = finding.default_point
            flagged = "flagged" if case.scores[finding.id] >= point.threshold else "not flagged"
            click.echo(
                f"{case.path.name}: {finding.id} {case.scores[finding.id]:.4g} {finding.score_unit}".rstrip()
                + f", kept as {low:g} to {high:g}; {flagged} at {point.name} ({point.threshold:g})"
            )


def bounds(score: float, finding: Finding) -> tuple[float, float]:
    """Within what a box may find the score again: a quantity to a share, any other to a step."""
    if finding.score_unit:
        around = max(_LEAST, _AROUND * abs(score))
        return round(score - around, 4), round(score + around, 4)
    low, high = round(score - _AROUND, 4), round(score + _AROUND, 4)
    return (max(0.0, low), min(1.0, high)) if 0 <= score <= 1 else (low, high)


def _add(folder: Path, cases: list[dict[str, Any]], made: Path) -> None:
    """Move the files to their place, and name them in the list; a case of the same name is replaced."""
    listing = folder / GOLDEN_LIST
    try:
        before = json.loads(listing.read_text("utf-8")) if listing.exists() else []
        new = {case["file"] for case in cases}
        kept = [case for case in before if case["file"] not in new]
    except (ValueError, TypeError, KeyError) as error:
        raise PackageError(f"{listing} is no list of cases: {error}; mend it, or take it away") from error
    (folder / GOLDEN_FOLDER).mkdir(exist_ok=True)
    for case in cases:
        shutil.move(made / case["file"], folder / GOLDEN_FOLDER / case["file"])
    listing.write_text(json.dumps([*kept, *cases], indent=2) + "\n", "utf-8")
