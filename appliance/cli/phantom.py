"""``scanside phantom``: a study of nobody as DICOM files, to try a box or a package with."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.commands import json_option, print_json
from appliance.errors import ConflictError
from appliance.simulate.dicomize import save
from appliance.simulate.phantom_studies import PHANTOMS, phantom_study


@click.command()
@click.argument("name", type=click.Choice(sorted(PHANTOMS)))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Another number, another study.")
@json_option
def phantom(name: str, folder: Path, seed: int, as_json: bool) -> None:  # noqa: FBT001
    """Write a simulated study into FOLDER as DICOM files: phantom NAME, of a person who does not exist."""
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty; name another folder"
        raise ConflictError(msg)
    written = save(phantom_study(name, seed), folder)
    if as_json:
        print_json({"phantom": name, "seed": seed, "folder": str(folder), "files": len(written)})
    else:
        click.echo(f"{folder}: {len(written)} files of phantom {name} number {seed}")
