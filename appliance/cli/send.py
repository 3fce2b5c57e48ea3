"""``scanside send``: files to a DICOM peer, as a scanner would."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, read_config
from appliance.commands import Exit, json_option, print_json
from appliance.errors import NotFoundError, TransientError
from appliance.simulate.files import collect
from appliance.simulate.scanner import NotAccepted, Scanner


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--calling", default=None, help="Calling AE title; default: the first configured source's.")
@click.option("--to", "peer", default=None, metavar="AE@HOST:PORT", help="Peer; default: this box.")
@config_option
@json_option
@click.pass_context
def send(
    ctx: click.Context,
    paths: tuple[Path, ...],
    calling: str | None,
    peer: str | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Send DICOM files or folders of them, one association a series."""
    if peer is None or calling is None:
        config = read_config(config_path, site)
        calling = calling or (config.sources[0].ae_title if config.sources else "SCANSIDE")
        peer = peer or f"{config.dicom.ae_title}@{_reachable(config.dicom.host)}:{config.dicom.port}"
    called, _, address = peer.partition("@")
    host, _, port = address.rpartition(":")
    if not (called and host and port.isdigit()):
        raise click.UsageError(f"--to {peer}: write AE@HOST:PORT")
    series, others = collect(paths)
    if not series:
        raise NotFoundError("no DICOM file was found; name files or folders that hold some")
    scanner = Scanner(calling, called, host, int(port))
    sent = []
    for files in series:
        try:
            sent += scanner.send(files)
        except (NotAccepted, OSError) as error:
            raise TransientError(
                f"{peer} does not take images from {calling}: {error}; is the box running, and is {calling} one of"
                " its 'sources'?"
            ) from error
    refused = [one for one in sent if one.status != 0]
    if as_json:
        print_json({"sent": len(sent) - len(refused), "refused": len(refused), "not_dicom": len(others)})
    else:
        click.echo(f"{len(sent) - len(refused)} sent, {len(refused)} refused, {len(others)} files are not DICOM")
    if refused:
        ctx.exit(int(Exit.FAILED))


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - where to call, not where to listen
