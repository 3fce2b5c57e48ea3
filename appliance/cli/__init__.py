"""The command line ``scanside``: one file per command group. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import click

from appliance import __version__
from appliance.commands import Group


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  scanside demo                                   scanners, AI and PACS on this machine, no set-up
  scanside run --config /etc/scanside/appliance.yaml
  scanside study list --json
""",
)
@click.version_option(__version__, prog_name="scanside")
def main() -> None:
    """The AI box beside a CT or X-ray scanner. Not for clinical use."""


# Commands import the parts that they need when they are called, so that --help and completion are quick.
main.add_lazy(
    {
        "run": "appliance.cli.run:run",
        "demo": "appliance.cli.demo:demo",
        "status": "appliance.cli.status:status",
        "setup-code": "appliance.cli.setup_code:setup_code",
        "doctor": "appliance.cli.doctor:doctor",
        "config": "appliance.cli.config:config",
        "study": "appliance.cli.study:study",
        "alert": "appliance.cli.alert:alert",
        "review": "appliance.cli.review:review",
        "model": "appliance.cli.model:model",
        "engine": "appliance.cli.engine:engine",
        "gpu-accept": "appliance.cli.gpu_accept:gpu_accept",
        "dest": "appliance.cli.dest:dest",
        "fleet": "appliance.cli.fleet:fleet",
        "user": "appliance.cli.user:user",
        "screen": "appliance.cli.screen:screen",
        "token": "appliance.cli.token:token",
        "audit": "appliance.cli.audit:audit",
        "issue": "appliance.cli.issue:issue",
        "send": "appliance.cli.send:send",
        "phantom": "appliance.cli.phantom:phantom",
        "completion": "appliance.cli.completion:completion",
    }
)
