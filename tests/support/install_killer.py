"""Installs a package and is killed at one line of it: ``install_killer.py STATE PACKAGE KEY FROM EVERY``.

The parent process loads everything once and forks a child for each line, each on a fresh copy of the state. It prints
one JSON line per child: the line number, what the store and the folders hold afterwards, and after a recovery.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from forked_death import in_child, killed_at
from package_rows_kit import NAME, PERSON, nothing_owed

from appliance.clock import SystemClock
from appliance.store import Store, installing, package_files, packages
from appliance.store.installing import Site, install_package
from appliance.triage.packages import recover_packages
from engines.gate import GateReport
from engines.package import load_package
from engines.signing import load_public
from engines.trial import TrialReport

#: Files whose lines count.
WATCHED = {installing.__file__, package_files.__file__, packages.__file__}


def gate(folder, keys):
    """In the place of the gate's child: what it would say of a sound package."""
    package = load_package(folder, keys=keys)
    return GateReport(package.name, package.version, package.digest, package.signed_by, package.files, ())


def install(state, package, key):
    """Install and activate, as a person would."""
    store = Store.open(state, SystemClock(), reserve_bytes=0)
    site = Site(
        keys=[load_public(key)],
        ct_deadline_s=180,
        xray_deadline_s=30,
        gate=gate,
        trial=lambda *_: TrialReport(1.0, 2.0, 3.0, 4),
    )
    install_package(store, package, site, PERSON)
    store.packages.activate(NAME, packages.Terms(days=0, studies=0), clinical=False, owed=nothing_owed, actor=PERSON)
    store.close()


def look(store, state):
    """What the store and the folders hold."""
    root = state / "packages"
    folders = sorted(str(p.relative_to(root)) for p in root.glob("*/*")) if root.exists() else []
    halves = sorted(p.name for p in root.glob(".*-*")) if root.exists() else []
    return {
        "states": {row.version: str(row.state) for row in store.packages.all(NAME)},
        "known": sorted(store.packages.folders()),
        "folders": folders,
        "halves": halves,
        "chain": store.journal.verify(),
    }


def main():
    """Kill at every so many lines until one child comes through."""
    state, package, key = (Path(text) for text in sys.argv[1:4])
    first, every = int(sys.argv[4]), int(sys.argv[5])
    line, killed = first, True
    while killed:
        copy = state.with_name(f"{state.name}-{line}")
        shutil.copytree(state, copy)
        killed = in_child(lambda at=line, on=copy: killed_at(at, WATCHED, lambda: install(on, package, key)))
        told = {"line": line, "killed": killed}

        def after(on=copy, told=told):
            store = Store.open(on, SystemClock(), reserve_bytes=0)
            told["left"] = look(store, on)
            recover_packages(store)
            told["recovered"] = look(store, on)
            store.close()
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()

        in_child(after)
        shutil.rmtree(copy)
        line += every


if __name__ == "__main__":
    main()
