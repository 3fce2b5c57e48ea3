"""``scanside model new``: a package around an ONNX file. What the graph tells is written, the rest is asked for."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from appliance.cli.model_package import refuse
from appliance.cli.model_skeleton import CT_RANK, NONE, XRAY_RANK, Graph, is_labels, manifest_text, shown, template
from appliance.commands import json_option, print_json
from appliance.errors import ConflictError
from engines.errors import PackageError
from engines.package import FILL_IN
from engines.ports import Port, Ports, read_ports

KINDS = ("classifier", "segmenter", "detector", "regressor")
_NAME = re.compile(r"[a-z][a-z0-9-]{1,63}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The ONNX file; weights that lie in files beside it are taken in.",
)
@click.option("--kind", required=True, type=click.Choice(KINDS), help="What its output is.")
@click.option(
    "--findings",
    required=True,
    metavar="NAMES",
    help="What the columns, channels or labels of the output mean, in their order, by commas; '-' for one that is no"
    " finding: 'effusion,-,opacity'.",
)
@json_option
@click.pass_context
def new(ctx: click.Context, folder: Path, source: Path, kind: str, findings: str, as_json: bool) -> None:  # noqa: FBT001
    """Write a commented package around an ONNX file into FOLDER, whose name becomes the package's."""
    name = folder.absolute().name
    if not _NAME.fullmatch(name):
        msg = f"{name!r} cannot be a package's name: use 2 to 64 of a-z, 0-9 and '-', a letter first"
        raise click.BadParameter(msg, param_hint="FOLDER")
    columns = _columns(findings)
    if folder.exists():
        msg = f"{folder} exists already; choose another name"
        raise ConflictError(msg)
    try:
        with tempfile.TemporaryDirectory(prefix="scanside-") as scratch:
            copy = Path(scratch) / "model.onnx"
            graph = _chosen(read_ports(source, copy), kind, columns, source)
            folder.mkdir(parents=True)
            shutil.move(copy, folder / "model.onnx")
    except PackageError as error:
        refuse(ctx, source, error, as_json=as_json)
        return
    manifest = manifest_text(name, kind, graph)
    (folder / "model.yaml").write_text(manifest, "utf-8")
    (folder / "CARD.md").write_text(template("CARD.md", NAME=name), "utf-8")
    left = [number for number, line in enumerate(manifest.splitlines(), 1) if f'"{FILL_IN}' in line]
    if as_json:
        print_json({"package": name, "folder": str(folder), "fill_in": left})
    else:
        click.echo(
            f"{folder}: package {name}, {kind}, reads {shown(graph.input)}, gives {shown(graph.output)}\n"
            f'{len(left)} lines of model.yaml and some of CARD.md say "{FILL_IN}"; replace them, then record golden'
            f" cases with 'scanside model golden {folder}'"
        )


def _columns(text: str) -> tuple[str, ...]:
    columns = tuple(part.strip() for part in text.split(","))
    wrong = [part for part in columns if part != NONE and not _NAME.fullmatch(part)]
    if wrong:
        msg = f"{wrong[0]!r} cannot be a finding's id: use 2 to 64 of a-z, 0-9 and '-', a letter first; or '-' for none"
        raise click.BadParameter(msg, param_hint="--findings")
    named = [part for part in columns if part != NONE]
    if not named or len(set(named)) != len(named):
        msg = "name at least one finding, each once"
        raise click.BadParameter(msg, param_hint="--findings")
    return columns


def _chosen(ports: Ports, kind: str, columns: Sequence[str], source: Path) -> Graph:
    """The input, and the output that the head will read.

    Raises:
        PackageError: Nothing here can prepare the input, or no output is of the kind; what is there, and what could be.
    """
    (given, *more) = ports.inputs
    if more:
        raise PackageError(
            f"{source}: takes {len(ports.inputs)} inputs ({', '.join(map(shown, ports.inputs))}); a package with"
            " several inputs or graphs is written by hand, see 'pipeline' in docs/bring-your-own-model.md"
        )
    is_xray = len(given.shape) == XRAY_RANK and given.shape[1] in {1, 3} and given.shape[2] == given.shape[3]
    is_ct = len(given.shape) == CT_RANK and given.shape[1] == 1
    if given.dtype != "FLOAT" or given.shape[0] not in {None, 1} or not (is_xray or is_ct):
        raise PackageError(
            f"{source}: takes {shown(given)}; prepared can be an X-ray, FLOAT [1, 1 or 3, size, size], or a CT,"
            " FLOAT [1, 1, depth, rows, columns]; export the graph with such an input"
        )
    if is_ct and kind in {"classifier", "regressor"}:
        raise PackageError(f"{source}: takes {shown(given)}; a {kind} looks at one X-ray, [1, 1 or 3, size, size]")
    single = kind in {"detector", "regressor"}
    if single and sum(name != NONE for name in columns) != 1:
        raise PackageError(f"--findings: a {kind} has one finding; write '-' for every other channel or column")
    found = [port for port in ports.outputs if _is_of(kind, port, given)]
    if not found:
        wanted = "[1, N]" if kind in {"classifier", "regressor"} else "a map over the input, [1, channels, ...]"
        given_out = ", ".join(map(shown, ports.outputs))
        raise PackageError(f"{source}: gives {given_out}; the output of a {kind} is {wanted}; export the graph with it")
    output = next((port for port in found if _count(port) in {None, len(columns)}), found[0])
    count = _count(output)
    if count not in {None, len(columns)}:
        raise PackageError(
            f"--findings names {len(columns)}, the output {shown(output)} has {count}; name them all in their order,"
            " '-' for one that is no finding"
        )
    return Graph(given, output, tuple(columns), ports.peak_mb)


def _is_of(kind: str, port: Port, given: Port) -> bool:
    if kind in {"classifier", "regressor"}:
        return len(port.shape) == 2 or (kind == "regressor" and len(port.shape) == 1)
    if len(port.shape) != len(given.shape):
        return False
    # Whole numbers are labels, however many there are.
    return all(None in pair or pair[0] == pair[1] for pair in zip(port.shape[2:], given.shape[2:], strict=True))


def _count(port: Port) -> int | None:
    """How many columns or channels; None where the graph does not say, or gives labels."""
    if is_labels(port):
        return None
    return port.shape[1] if len(port.shape) > 1 else 1
