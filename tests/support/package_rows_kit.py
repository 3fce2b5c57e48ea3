"""Packages for tests of the store: rows without files, and acts with their arguments filled in."""

from __future__ import annotations

import yaml
from toy_packages import manifest

from appliance.records import Actor, ActorKind, Role
from appliance.store.package_rules import Terms
from appliance.store.package_sync import Choice
from appliance.store.packages import NewPackage

PERSON = Actor(kind=ActorKind.PERSON, name="Kim", role="service")
NAME = "toy-bright-blob"
NOW = Terms(days=0, studies=0)


def nothing_owed(_package, _result):
    return ()


def model_yaml(version="1.0.0", **changes):
    return yaml.safe_dump(manifest(version=version, **changes))


def new(version, **changes):
    """What an installation hands to the store."""
    name = changes.get("name", NAME)
    return NewPackage(
        name=name,
        version=version,
        digest=f"digest of {version}",
        folder=f"{name}/{version}-folder",
        manifest=model_yaml(version, **changes),
        signed_by=("0011223344556677",),
        p95_ms=12.0,
    )


def choice(version="1.0.0", role=Role.LIVE, points=None, **changes):
    """What the configuration names, of the version that came with the software."""
    return Choice(
        name=changes.get("name", NAME),
        version=version,
        digest=f"digest of {version}",
        manifest=model_yaml(version, **changes),
        role=role,
        operating_points=points or {},
    )


class Acts:
    """The acts of ``Packages`` as a test wants them: in evaluation mode, by one person."""

    def __init__(self, store):
        self.store = store

    def install(self, version, **changes):
        return self.store.packages.install(new(version, **changes), PERSON)

    def activate(self, version="", terms=NOW, *, clinical=False):
        return self.store.packages.activate(
            NAME, terms, version=version, clinical=clinical, owed=nothing_owed, actor=PERSON, why="test"
        )

    def withdraw(self, version="", why="it missed a bleed"):
        return self.store.packages.withdraw(NAME, why, version=version, owed=nothing_owed, actor=PERSON)

    def roll_back(self):
        return self.store.packages.roll_back(NAME, "worse than before", owed=nothing_owed, actor=PERSON)

    def point(self, finding="bright-blob", point="sensitive", *, clinical=False, reason="too few found"):
        return self.store.packages.choose_point(NAME, finding, point, reason, clinical=clinical, actor=PERSON)

    def sync(self, *choices, clinical=False):
        self.store.packages.sync(choices, clinical=clinical, owed=nothing_owed)

    def states(self):
        """version: state."""
        return {row.version: str(row.state) for row in self.store.packages.all(NAME)}

    def facts(self):
        """Kinds of the facts about packages, oldest first."""
        mine = ("package_", "operating_point", "shadow")
        return [str(f.kind) for f in self.store.journal.after(0, limit=10_000) if str(f.kind).startswith(mine)]
