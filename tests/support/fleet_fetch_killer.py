"""Installs a model over HTTPS and is killed at one line of it: ``fleet_fetch_killer.py FOLDER URL FIRST EVERY``.

FOLDER/box is a box with one version live, FOLDER/*.job what its server has for it. For every so many lines a fork works
on a fresh copy of the box and is killed before that line; another fork then is the box's next start. It prints one
JSON line per death: what the box held right after it, and in the end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

from forked_death import in_child, killed_at
from tuf_box_kit import TufJobBox

from appliance.fleet.device import download, fetcher, files, install, jobs, roots, stick_files, tasks, tuf_trust
from appliance.fleet.wire import WireError
from appliance.store import fleet_jobs

#: Files whose lines count.
WATCHED = {
    module.__file__
    for module in (download, fetcher, files, install, jobs, roots, stick_files, tasks, tuf_trust, fleet_jobs)
}


def deed(box, mail):
    """All of it."""
    for envelope in mail:
        with contextlib.suppress(WireError):
            box.inbox.take_job(envelope)
    box.run()


def look(box):
    """What the box holds."""
    left = [path.relative_to(box.folder).as_posix() for path in (box.folder / "downloads").rglob("*")]
    facts = [str(fact.kind) for fact in box.store.journal.after(0, 10_000)]
    return {
        "jobs": sorted([row.op, row.state, row.code] for row in box.store.fleet_jobs.all()),
        "packages": box.packages(),
        "left": left,
        "live": facts.count("package_live"),
        "trusts": facts.count("fleet_trust"),
        "chain": box.store.journal.verify(),
    }


def main():
    """Kill at every so many lines until one child comes through."""
    root, url = Path(sys.argv[1]), sys.argv[2]
    line, every = int(sys.argv[3]), int(sys.argv[4])
    mail = [path.read_bytes() for path in sorted(root.glob("*.job"))]
    killed = True
    while killed:
        copy = root / f"copy-{line}"
        shutil.copytree(root / "box", copy, symlinks=True)

        def do(at=line, on=copy):
            made = TufJobBox(on, url)
            killed_at(at, WATCHED, lambda: deed(made, mail))

        killed = in_child(do)

        def after(at=line, on=copy, was_killed=killed):
            made = TufJobBox(on, url)
            at_once = look(made)
            deed(made, mail)
            made.restart()
            made.run()
            told = {"line": at, "killed": was_killed, "at_once": at_once, "ended": look(made)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()

        in_child(after)
        shutil.rmtree(copy)
        line += every


if __name__ == "__main__":
    main()
