"""``scanside run``: the daemon."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import click

from appliance.cli.common import config_option
from appliance.commands import Exit
from appliance.errors import ApplianceError, ConfigError
from appliance.settings import ATTEMPT_VARIABLE, BROKEN_VARIABLE, Loaded, Settings, load_box


@click.command()
@config_option
@click.pass_context
def run(ctx: click.Context, config_path: Path, site: Path | None) -> None:
    """Run the box until SIGTERM or Ctrl-C. Ends with 75 where a page asked for a restart, which systemd then does."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    attempt = int(os.environ.pop(ATTEMPT_VARIABLE, "0"))
    loaded = load_box(config_path, site, attempt=attempt, broken=os.environ.pop(BROKEN_VARIABLE, ""))
    from appliance.daemon import Daemon

    daemon = None
    try:
        daemon = Daemon(loaded.config, settings=Settings(loaded))
        daemon.run()
    except ConfigError as error:
        if loaded.settings is None:
            raise
        if daemon is not None:
            with contextlib.suppress(ApplianceError, OSError, RuntimeError):
                daemon.stop("the settings of the site do not fit")
        _again_without(loaded, error)
    if daemon is not None and daemon.is_restarting:
        ctx.exit(int(Exit.RESTART))


def _again_without(loaded: Loaded, error: ConfigError) -> None:
    """Begin this very process anew with the settings of last time, or with none: a box must not stay down for them."""
    assert loaded.settings is not None  # noqa: S101 - the caller looked
    was_newest = loaded.settings.name == "site.yaml"
    os.environ[ATTEMPT_VARIABLE] = "1" if was_newest else "2"
    os.environ[BROKEN_VARIABLE] = loaded.broken or str(error)
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "appliance.cli", *sys.argv[1:]])  # noqa: S606 - ourselves
