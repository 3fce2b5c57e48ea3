"""How far the set-up of a box is, and the one-time code that begins it."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.errors import ConflictError
from appliance.records import SYSTEM, Actor, ActorKind, UserRole
from appliance.store.accounts import has_administrator, must_be_free
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.facts.access import AccountChanged
from appliance.store.facts.admin import SetupCodeMade, SetupStepDone
from appliance.store.hashing import secret_digest

_CODE, _TRIES = "setup_code", "setup_code_tries"
#: Without what looks like another sign.
_SIGNS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
_LENGTH = 10
#: So many wrong codes, and a new one must be made.
MAX_TRIES = 10
CLOSED = "the set-up has begun already, and its code is used up; sign in as administrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A step that ended, for the acceptance sheet."""

    step: str
    done_at: datetime
    actor: str
    detail: Mapping[str, Any]


class Setup:
    """Acts of the set-up; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def is_open(self) -> bool:
        """Whether the first step waits: the box has no administrator."""
        return not has_administrator(self._db)

    def new_code(self) -> str:
        """A new one-time code; an older one holds no more. Only its digest is kept.

        Raises:
            ConflictError: There is an administrator: the set-up goes on with a password.
        """
        if not self.is_open():
            raise ConflictError("this box has an administrator already; sign in as administrator and open /setup")
        code = "".join(secrets.choice(_SIGNS) for _ in range(_LENGTH))
        with self._db.write() as tx:
            for key, value in ((_CODE, secret_digest(code)), (_TRIES, "0")):
                tx.execute(
                    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (key, value),
                )
            tx.journal(SetupCodeMade())
        return f"{code[:5]}-{code[5:]}"

    def check(self, code: str) -> None:
        """Whether the code opens the set-up; a wrong one is counted. It is not used up.

        Raises:
            ConflictError: The code is not the one that was made last, was used, or was guessed at too often.
        """
        with self._db.write() as tx:
            refusal = _refusal(tx, code)
        if refusal:
            raise ConflictError(refusal)

    def begin(self, code: str, name: str, full_name: str, password: str) -> int:
        """The first administrator, by the code, which is used up.

        Args:
            code: As it was printed; blanks, dashes and case do not matter.
            name: What the person types.
            full_name: What stands on screens and in the journal.
            password: Argon2id hash.

        Returns:
            The account's id.

        Raises:
            ConflictError: The code is not the one that was made last, was used, or was guessed at too often; or
                somebody is called so already.
        """
        with self._db.write() as tx:
            refusal = _refusal(tx, code)
            if not refusal:
                must_be_free(tx, name, full_name)
                account_id = tx.insert(
                    "account",
                    name=name,
                    full_name=full_name,
                    role=str(UserRole.ADMINISTRATOR),
                    password=password,
                    must_change=0,
                    made_at=tx.at,
                )
                tx.execute("DELETE FROM meta WHERE key IN (?, ?)", (_CODE, _TRIES))
                actor = Actor(kind=ActorKind.PERSON, name=full_name, role=str(UserRole.ADMINISTRATOR))
                tx.journal(AccountChanged(account=name, change="added", role=UserRole.ADMINISTRATOR), actor=actor)
                return account_id
        # Only now: the try that was counted stays counted.
        raise ConflictError(refusal)

    def steps(self) -> dict[str, StepDone]:
        """The steps that ended, by name."""
        return {
            row["step"]: StepDone(
                step=row["step"],
                done_at=from_iso(row["done_at"]),
                actor=row["actor"],
                detail=json.loads(row["detail"]),
            )
            for row in self._db.all("SELECT * FROM setup_step")
        }

    def done(self, step: str, detail: Mapping[str, Any], actor: Actor = SYSTEM) -> None:
        """A step has ended; one that is done again writes its row anew."""
        with self._db.write() as tx:
            tx.execute(
                "INSERT INTO setup_step VALUES (?, ?, ?, ?) ON CONFLICT (step) DO UPDATE SET"
                " done_at = excluded.done_at, actor = excluded.actor, detail = excluded.detail",
                (step, tx.at, actor.name, json.dumps(dict(detail), ensure_ascii=False, sort_keys=True)),
            )
            tx.journal(SetupStepDone(step=step), subject=step, actor=actor)

    def callers(self, limit: int = 12) -> list[dict[str, Any]]:
        """AE titles that called this box and from where, newest first: what a new source is made of."""
        rows = self._db.all(
            "SELECT calling_ae, address, source, max(opened_at) AS at, count(*) AS n, sum(images) AS images"
            " FROM association WHERE id > (SELECT coalesce(max(id), 0) - 5000 FROM association)"
            " GROUP BY calling_ae, address, source ORDER BY at DESC LIMIT ?",
            (limit,),
        )
        return [{**dict(row), "at": from_iso(row["at"])} for row in rows]

    def protocols(self) -> dict[str, list[tuple[str, int]]]:
        """Protocol names that each source has sent, the most frequent first."""
        out: dict[str, list[tuple[str, int]]] = {}
        for row in self._db.all(
            "SELECT source, value, count FROM source_fact WHERE fact = 'protocol' ORDER BY source, count DESC, value"
        ):
            out.setdefault(row["source"], []).append((row["value"], row["count"]))
        return out


def _refusal(tx: Transaction, code: str) -> str:
    """Why this code opens nothing, and then the try is counted; empty: it does. Blanks, dashes, case do not matter."""
    if has_administrator(tx):
        return CLOSED
    row = tx.one("SELECT value FROM meta WHERE key = ?", (_CODE,))
    tries = tx.one("SELECT value FROM meta WHERE key = ?", (_TRIES,))
    count = int(tries["value"]) if tries else 0
    given = "".join(sign for sign in code.upper() if sign.isalnum())
    if row is not None and count < MAX_TRIES and hmac.compare_digest(row["value"], secret_digest(given)):
        return ""
    tx.execute("UPDATE meta SET value = ? WHERE key = ?", (str(count + 1), _TRIES))
    if row is None or count >= MAX_TRIES:
        return "this code holds no more; make a new one on the box with 'scanside setup-code'"
    return "this is not the code that the box printed last; 'scanside setup-code' prints a new one"
