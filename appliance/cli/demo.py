"""``scanside demo``: the main job on this machine, from a simulated scanner to an alert and a result in a PACS."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appliance.cli.demo_fleet import DemoFleet
from appliance.commands import Exit, json_option, print_json

if TYPE_CHECKING:
    from appliance.cli.demo_box import DemoBox, DemoStudy

_POLL_S = 0.25
_LIMIT_S = 120.0
#: The last records are acknowledged within a second or two.
_FLEET_LIMIT_S = 15.0


@click.command()
@click.option("--once", is_flag=True, help="End when every study has ended.")
@json_option
@click.option(
    "--send",
    "folder",
    type=click.Path(exists=True, path_type=Path),
    help="Send your own DICOM files instead of the simulated studies.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave spool, database, log and the PACS's objects in this folder.",
)
@click.pass_context
def demo(ctx: click.Context, once: bool, as_json: bool, folder: Path | None, keep: Path | None) -> None:  # noqa: FBT001
    """Scanners, AI, alert screen and a PACS on this machine; nothing to set up. Not for clinical use.

    Exits 0 only if every study ended as expected.
    """
    # A terminated demo takes its PACS and worker along, as one that is interrupted does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(_state_folder(keep))
        fleet = stack.enter_context(DemoFleet(state / "fleet-server.log"))
        # The box is much to load; the fleet's server starts meanwhile, so that the first alert is no later.
        from appliance.cli.demo_box import BASE, DemoBox

        box = stack.enter_context(DemoBox(state, folder, fleet))
        console = Console(stderr=as_json)
        console.print(f"Alert screen:  [bold]{box.screen_url}[/bold]", highlight=False, soft_wrap=True)
        console.print(f"Other pages:   [bold]{box.sign_in['url']}[/bold]", highlight=False)
        console.print(
            f"               as {', '.join(box.sign_in['names'])}; password {box.sign_in['password']}", soft_wrap=True
        )
        console.print(f"PACS:          {box.pacs_name}; log: {state / 'scanside.log'}", highlight=False)
        console.print(_fleet_line(fleet), highlight=False, soft_wrap=True)
        console.print("Demonstration. Not for clinical use.", style="yellow", highlight=False)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(box, console, until_done=once)
        studies = box.studies()
        told = box.fleet_told(_FLEET_LIMIT_S if once else 0)
        console.print(_fleet_end(told), highlight=False, soft_wrap=True)
        box.save_pacs()
        if box.was_ended:
            console.print("The demo ends, for a restart was asked for on the settings page.", highlight=False)
            if keep is not None:
                console.print(f"This box again:  scanside run --config {state / BASE}", highlight=False, soft_wrap=True)
    if as_json:
        ok = all(one.is_as_expected for one in studies)
        print_json({"ok": ok, "sign_in": box.sign_in, "fleet": told, "studies": [one.document() for one in studies]})
    wrong = [one for one in studies if not one.is_as_expected]
    for one in wrong:
        click.echo(f"{one.title}: expected {one.expectation}, got {one.ending}", err=True)
    if wrong or not studies:
        ctx.exit(int(Exit.FAILED))


@contextlib.contextmanager
def _state_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise click.UsageError(f"--keep {keep}: the folder is not empty; name a new one")
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="scanside-demo-") as folder:
            yield Path(folder)


def _fleet_line(fleet: DemoFleet) -> str:
    """Where the fleet is, or that there is none."""
    if fleet.why:
        return f"Fleet:         left out: {fleet.why}"
    where = f"console {fleet.console}" if fleet.console else "a server on loopback"
    return f"Fleet:         {where}; this box is {fleet.device}"


def _fleet_end(told: dict[str, Any]) -> str:
    """What the fleet server knew at the end."""
    if "state" not in told:
        return f"The fleet was left out: {told['left_out'] or 'its server did not answer'}"
    health = told["health"]
    said = f"health {health['mode']}, AI {health['ai']}" if health else "no health yet"
    counted = f"{told['records']} records, {told['results']} results"
    return f"The fleet server has this box: {told['state']}, {said}, {counted}."


def _watch(box: DemoBox, console: Console, *, until_done: bool) -> None:
    """Show the live table until Ctrl-C, or until everything has ended."""
    deadline = time.monotonic() + _LIMIT_S
    pause = threading.Event()
    if console.is_terminal:
        with Live(_table(box.studies()), console=console, refresh_per_second=4) as live:
            while not (box.was_ended or (until_done and (box.is_done() or time.monotonic() > deadline))):
                live.update(_table(box.studies()))
                pause.wait(_POLL_S)
            live.update(_table(box.studies()))
        return
    told: dict[str, str] = {}
    while True:
        for study in box.studies():
            if study.is_over and told.get(study.title) != study.ending:
                told[study.title] = study.ending
                console.print(f"{study.title}: {study.ending}", highlight=False)
        if box.was_ended or (until_done and (box.is_done() or time.monotonic() > deadline)):
            break
        pause.wait(_POLL_S)
    console.print(_table(box.studies()))


def _table(studies: list[DemoStudy]) -> Table:
    table = Table(title="Studies", title_justify="left")
    table.add_column("Study", max_width=18)
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Said")
    # From the last image to the result.
    table.add_column("Took", no_wrap=True)
    table.add_column("In the PACS", no_wrap=True)
    styles = {"FINDING": "bold red", "NOT_ANALYSED": "bold yellow"}
    for one in studies:
        word, _, reason = one.ending.partition(" ")
        table.add_row(
            one.title,
            Text(f"{word}\n{reason}".strip(), style=styles.get(word, "")),
            Text(one.found),
            one.took,
            one.in_pacs,
        )
    return table
