"""``scanside config``: check a configuration before a restart."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.common import config_option, read_config
from appliance.commands import Group, json_option, print_json
from appliance.errors import ConfigError


@click.group(cls=Group)
def config() -> None:
    """The configuration file."""


@config.command()
@config_option
@json_option
def validate(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check a configuration, and that the packages, certificates and secrets it names are there."""
    from appliance.clock import SystemClock
    from appliance.deliver.senders import check_tls, sender_of
    from appliance.triage.packages import load_packages

    checked = read_config(config_path, site)
    check_tls(checked)
    for destination in checked.destinations:
        sender_of(destination, checked.dicom.ae_title, SystemClock())
    named = load_packages(checked)
    packages = sorted(name for name, one in named.items() if one.package.manifest.template is None)
    templates = {name: one.package.manifest.template.en for name, one in named.items() if one.package.manifest.template}
    if as_json:
        print_json({"valid": True, "mode": checked.site.mode, "packages": packages, "templates": templates})
    else:
        click.echo(
            f"{config_path}: valid; mode {checked.site.mode}, {len(checked.sources)} sources,"
            f" {len(checked.destinations)} destinations, packages: {', '.join(packages) or 'none'}"
        )
        for name, why in sorted(templates.items()):
            click.echo(f"  {name} is a template and will not run: {why}")


@config.command()
@config_option
@json_option
def show(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """The configuration as it counts, and the files that it comes from: a later one wins over those before it.

    First --config, then --site, then site.yaml of the state folder, which the pages of the box write.
    """
    from appliance.settings import dump, load_box, to_yaml

    loaded = load_box(config_path, site)
    files = [str(path) for path in loaded.files]
    if as_json:
        print_json({"files": files, "left_out": loaded.broken, "config": dump(loaded.config)})
        return
    for number, path in enumerate(files, 1):
        click.echo(f"# {number}. {path}")
    if loaded.broken:
        click.echo(f"# the settings of the site do not fit and are left out: {loaded.broken}")
    click.echo(to_yaml(dump(loaded.config)), nl=False)


@config.command("worker-network")
@config_option
@json_option
def worker_network(config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Print the systemd drop-in that lets the worker reach the KServe server, and nothing else."""
    from appliance.health.worker_network import DROP_IN_PATH, worker_drop_in

    section = read_config(config_path, site).kserve
    if section is None:
        msg = f"{config_path} has no 'kserve': the worker needs no network; delete {DROP_IN_PATH} if there is one"
        raise ConfigError(msg)
    text = worker_drop_in(section.address)
    if as_json:
        print_json({"path": DROP_IN_PATH, "text": text})
    else:
        click.echo(text, nl=False)
