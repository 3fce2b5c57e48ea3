"""``scanside-fleet demo``: a whole fleet on this machine, and a roll-out that a bad canary stops."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from appliance.commands import Exit, json_option, print_json
from appliance.errors import ApplianceError

_SHM, _ROOM_BYTES = "/dev/shm", 2 * 1024**3  # noqa: S108 - a folder of our own within it


@click.command()
@click.option("--once", is_flag=True, help="End when the roll-out was taken back.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave database, logs, models and what boxes have in this folder, which holds private keys of the demo.",
)
@json_option
@click.pass_context
def demo(ctx: click.Context, once: bool, keep: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """A server, 20 real box agents and 300 simulated boxes on this machine, and a roll-out with a bad canary.

    Needs mosquitto and nothing else; for two cores a minute and a half. Exits 0 only if all went as it should: every
    box online, the roll-out stopped in its canaries, no other box touched, taken back, no record lost.
    """
    # A terminated demo takes its boxes along, as one that is interrupted does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - begun:5.1f} s  {text}", err=as_json)

    from appliance.fleet.server.demo.demo import REAL, SIMULATED, Demo

    document: dict[str, Any] = {"ok": False}
    with _folder(keep) as folder, _log(folder):
        say(f"A fleet server, {REAL} real agents and {SIMULATED} simulated boxes start; not for clinical use")
        with Demo(folder, say) as made:
            say(f"Console: {made.console}")
            say(f"         as {', '.join(made.sign_in['names'])}; password {made.sign_in['password']}")
            say("         (its certificate comes from a development CA of this demo: the browser asks)")
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    made.run()
                except ApplianceError as error:
                    document["error"] = str(error)
                    say(f"It did not go on: {error}")
                document = made.document() | document | {"ok": made.is_well and "error" not in document}
                say("All went as it should." if document["ok"] else "NOT all went as it should; see the checks.")
                if not once:
                    _stay(made, say, goes_on=document["ok"])
    if as_json:
        print_json(document)
    else:
        for name, check in document.get("checks", {}).items():
            if not check["ok"]:
                click.echo(f"{name}: {check}", err=True)
    if not document["ok"]:
        ctx.exit(int(Exit.FAILED))


def _stay(made: Any, say: Any, *, goes_on: bool) -> None:
    """Health goes on, and a good version goes out, until Ctrl-C."""
    if goes_on:
        made.go_on()
        say("Version 2.0.1, which is good everywhere, goes out now: look at the console.")
    say("Ctrl-C ends the demo.")
    threading.Event().wait()


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="scanside-fleet-demo-", dir=memory_folder()) as name:
            yield Path(name)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep}: the folder is not empty; name a new one")
    yield keep.resolve()


def memory_folder() -> str | None:
    """A folder in memory where there is room: 20 boxes have 10,000 folders, which a disk takes a minute for."""
    if os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > _ROOM_BYTES:
        return _SHM
    return None


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[None]:
    """What the server says goes to a file."""
    handler = logging.FileHandler(folder / "server.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
