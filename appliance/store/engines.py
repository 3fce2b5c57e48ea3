"""Acts and facts of engines. The engines themselves lie in files of their own; here is only what the journal tells."""

from __future__ import annotations

import json

from appliance.records import SYSTEM, Actor
from appliance.store.database import Database
from appliance.store.facts import Body, Kind
from appliance.store.facts.packages import EngineBuildAsked, EngineCancelAsked


class EngineFacts:
    """Asks for builds, and tells what became of them."""

    def __init__(self, db: Database) -> None:
        """Write to ``db``."""
        self._db = db

    def ask_build(self, package: str, flavour: str, precision: str, actor: Actor) -> None:
        """Ask the daemon for an engine; it has the worker build it."""
        self._tell(EngineBuildAsked(package=package, flavour=flavour, precision=precision), package, actor)

    def ask_cancel(self, actor: Actor) -> None:
        """Ask the daemon to end the build that runs."""
        self._tell(EngineCancelAsked(), "", actor)

    def serving(self) -> set[str]:
        """Digests of the engines that serve, or did until the box was stopped, one of each package."""
        rows = self._db.all(
            "SELECT max(seq), body FROM journal WHERE study_id IS NULL AND kind IN (?, ?) GROUP BY subject",
            (str(Kind.ENGINE_SERVES), str(Kind.ENGINE_FALLBACK)),
        )
        return {json.loads(row["body"])["engine_digest"] for row in rows}

    def tell(self, package: str, body: Body) -> None:
        """Journal what happened to an engine of a package."""
        self._tell(body, package, SYSTEM)

    def _tell(self, body: Body, subject: str, actor: Actor) -> None:
        with self._db.write() as tx:
            tx.journal(body, subject=subject, actor=actor)
