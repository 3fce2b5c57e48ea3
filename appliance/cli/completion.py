"""``scanside completion``: scripts for the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from appliance.commands import json_option, print_json


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:  # noqa: FBT001
    """Print the completion script of a shell."""
    from appliance.cli import main

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    source = kind(main, {}, "scanside", "_SCANSIDE_COMPLETE").source()
    print_json({"shell": shell, "script": source}) if as_json else click.echo(source)
