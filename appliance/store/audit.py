"""What people looked at: a fact of the journal, like what they did."""

from __future__ import annotations

from datetime import timedelta

from appliance.records import Actor
from appliance.store.database import Database, iso
from appliance.store.facts import Kind
from appliance.store.facts.access import AccessDenied, Accessed, SignInFailed

#: The same person looking at the same thing again within this is one look.
_ONE_LOOK = timedelta(minutes=10)


class Audit:
    """Writes who saw what, and who was refused."""

    def __init__(self, db: Database) -> None:
        """Write to ``db``."""
        self._db = db

    def accessed(self, what: str, actor: Actor, *, study_id: int | None = None) -> None:
        """Somebody saw ``what``: identity, study, images, worklist, audit, export, ..."""
        since = iso(self._db.clock.now() - _ONE_LOOK)
        if study_id is not None and self._db.one(
            "SELECT 1 FROM journal WHERE study_id = ? AND kind = ? AND at >= ? AND json_extract(body, '$.what') = ?"
            " AND json_extract(actor, '$.name') = ? AND json_extract(actor, '$.role') = ?",
            (study_id, str(Kind.ACCESSED), since, what, actor.name, actor.role),
        ):
            return
        with self._db.write() as tx:
            tx.journal(Accessed(what=what), study_id=study_id, actor=actor)

    def sign_in_failed(self, how: str, account: str = "") -> None:
        """Somebody was not let in by password, oidc, pairing or token.

        ``account`` only where there is one of that name: people type secrets into the wrong field. The caller bounds
        how often this is told: whoever can reach the page could fill the journal.
        """
        with self._db.write() as tx:
            tx.journal(SignInFailed(how=how, account=account))

    def denied(self, route: str, actor: Actor) -> None:
        """Somebody asked for what their role does not have."""
        with self._db.write() as tx:
            tx.journal(AccessDenied(route=route), actor=actor)
