"""A whole box for tests: the real daemon and worker on free ports, a storage SCP as its PACS, scanners that call it."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from appliance.config import Config
from appliance.daemon import Daemon
from appliance.simulate.pacs import Pacs
from appliance.simulate.scanner import Scanner

DEADLINE_S = 90.0


def box_config(
    state, pacs_port=None, *, mode="parallel", packages=("head-ct-hyperdensity",), outcomes=None, **sections
):
    """A configuration: sources CT-1, CT-2 and DX-1, one PACS of purpose test."""
    destinations = []
    if pacs_port is not None:
        destinations = [
            {
                "kind": "dicom",
                "name": "PACS",
                "purpose": "test",
                "host": "127.0.0.1",
                "port": pacs_port,
                "ae_title": "PACS",
                "send": ["original", "sr"],
                "timeout_s": 30,
                **({"outcomes": outcomes} if outcomes else {}),
            }
        ]
    document = {
        "state_path": state,
        "dicom": {"port": 0},
        "sources": [{"name": name, "ae_title": name, "mode": mode} for name in ("CT-1", "CT-2", "DX-1")],
        "destinations": destinations,
        "packages": [{"name": name, "role": "live"} for name in packages],
        "disk": {"reserve_bytes": 0, "reserve_fraction": 0},
        "screen": {"port": 0},
        # Longer than a busy machine holds up a scanner: a series taken as whole too early has two results.
        "completeness": {"quiet_min_s": 3.0},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    return Config.model_validate(document)


class Box:
    """A running daemon with shorthands."""

    def __init__(self, config, trusted_folders=(), wait_ready=True):
        self.config = config
        self._folders = trusted_folders
        self._wait_ready = wait_ready

    def __enter__(self):
        self.daemon = Daemon(self.config, trusted_folders=self._folders)
        self.store = self.daemon.store
        self.daemon.start()
        if self._wait_ready and len(self.daemon.packages):
            self.wait(lambda: self.daemon.link.is_ready, "a ready worker")
        return self

    def __exit__(self, *_):
        self.daemon.stop()

    def scanner(self, ae_title="CT-1", **kwargs):
        return Scanner(ae_title, self.config.dicom.ae_title, "127.0.0.1", self.daemon.dicom_port, **kwargs)

    def send(self, items, ae_title="CT-1"):
        statuses = {sent.status for sent in self.scanner(ae_title).send(list(items))}
        assert statuses == {0}, statuses

    def wait(self, predicate, what, timeout_s=DEADLINE_S):
        """Poll until ``predicate`` holds; a hang is a failure that names what was awaited."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while True:
            found = predicate()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {timeout_s:g} s; facts: {self.kinds()[-30:]}")
            pause.wait(0.02)

    def kinds(self):
        return [str(fact.kind) for fact in self.store.journal.after(0, limit=100_000)]

    def study(self, uid):
        # By id: a poll that reads every study would keep the daemon, which is in this process, from its work.
        found = self.store.views.some(self.store.views.find(str(uid)), deliveries=True).values()
        return max(found, key=lambda one: (one.last_at, one.id), default=None)

    def ended(self, uid, timeout_s=DEADLINE_S):
        """The study once it has an outcome and nothing of it is open."""

        def over():
            view = self.study(uid)
            is_over = view is not None and view.outcome is not None and not self.store.revisions.open_series()
            return view if is_over and not self.store.revisions.studies_to_route() else None

        return self.wait(over, f"outcome of study {uid}", timeout_s)


@contextlib.contextmanager
def box_with_pacs(folder: Path, trusted_folders=(), **changes):
    """A box and its PACS; yields (box, pacs)."""
    with Pacs(folder / "pacs") as pacs, Box(box_config(folder / "state", pacs.port, **changes), trusted_folders) as box:
        yield box, pacs
