"""That the settings of the site changed: written to the journal in the act that changes the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.errors import ConflictError
from appliance.records import Actor
from appliance.store.database import Database
from appliance.store.facts.admin import RestartAsked, SettingsChanged

BROKEN = "SETTINGS_BROKEN"


class SiteSettings:
    """Acts around the settings' file; the file itself is written by ``appliance.settings``."""

    def __init__(self, db: Database) -> None:
        """Write to ``db``."""
        self._db = db

    def change(
        self, sections: Sequence[str], reason: str, before: str, digest: str, write: Callable[[], None], actor: Actor
    ) -> None:
        """Replace the file and tell of it: without the file there is no fact, without the fact no file.

        Args:
            sections: Names of those that change.
            reason: What the person said, without patient data.
            before: Digest of the file before.
            digest: And after.
            write: Replaces the file.
            actor: Who.

        Raises:
            ConflictError: No reason is given, or nothing changes.
        """
        if not reason.strip():
            raise ConflictError("settings are changed for a reason; give one")
        if not sections:
            raise ConflictError("nothing changes")
        with self._db.write() as tx:
            tx.journal(
                SettingsChanged(sections=tuple(sections), reason=reason, before=before, digest=digest), actor=actor
            )
            write()

    def restart_asked(self, actor: Actor) -> None:
        """Somebody restarts the box."""
        with self._db.write() as tx:
            tx.journal(RestartAsked(), actor=actor)
