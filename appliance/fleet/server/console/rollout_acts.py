"""What people do with a roll-out on its page: what each act is called, does, and where it is offered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from appliance.fleet.server.registry import Scope, write_audit
from appliance.fleet.server.rollout import acts
from appliance.fleet.server.rollout.plan import NEXT, RollOutState
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.i18n import N_


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Who does it, to which, and why."""

    scope: Scope
    ident: str
    why: str
    account: int
    actor: str
    now: datetime
    keys: ServerKeys
    threshold: int


NAMES: dict[str, str] = {
    "submit": N_("Send for approval"),
    "approve": N_("Approve"),
    "start": N_("Start"),
    "pause": N_("Stop for now"),
    "resume": N_("Go on"),
    "abort": N_("Break off"),
    "revert": N_("Take back"),
    "discard": N_("Throw away"),
}
DOES: dict[str, str] = {
    "submit": N_("From then on it does not change. Somebody else approves it, and release keys sign it."),
    "approve": N_(
        "You say, as a second person, that this version may go to these boxes in these waves. It begins only when it"
        " has the release signatures too."
    ),
    "start": N_("The first wave is told. Nothing is changed on a box outside its window, nor while it is busy."),
    "pause": N_("No further box is told. Boxes that have begun go on."),
    "resume": N_(
        "Further boxes are told. Where a gate could not judge, you say with this that you have seen it and go on."
    ),
    "abort": N_("No further box is told, and what has not begun is taken back. Boxes that have it keep it."),
    "revert": N_("Every box that has this version by this roll-out goes back to the one before."),
    "discard": N_("The draft is gone. Nothing was told to any box."),
}
#: What is confirmed by typing the version.
TYPED = frozenset({"start", "abort", "revert"})


def do(connection: Connection, act: str, deed: Deed) -> None:
    """Do it; the reason stands in the audit.

    Raises:
        NotFoundError: No such roll-out in the scope.
        ConflictError: It is not to be done now, or not by this person.
    """
    who: dict[str, Any] = {"account": deed.account, "actor": deed.actor, "now": deed.now}
    scope, ident = deed.scope, deed.ident
    row = acts.find(connection, scope, ident)
    if act == "submit":
        acts.submit(connection, scope, ident, **who)
    elif act == "discard":
        acts.discard(connection, scope, ident, **who)
    elif act == "approve":
        acts.approve(connection, scope, ident, threshold=deed.threshold, **who)
    elif act == "start":
        acts.start(connection, scope, ident, **who)
    elif act == "pause":
        acts.pause(connection, scope, ident, why=deed.why, **who)
    elif act == "resume":
        acts.resume(connection, deed.keys, scope, ident, why=deed.why, **who)
    elif act == "abort":
        acts.abort(connection, scope, ident, why=deed.why, **who)
    else:
        acts.revert(connection, scope, ident, why=deed.why, **who)
    if act in _SAYS_NO_WHY:
        detail = {"act": act, "why": deed.why}
        write_audit(
            connection, act="rollout.why", subject=ident, actor=deed.actor, account=deed.account,
            tenant_id=row.tenant, now=deed.now, detail=detail,
        )  # fmt: skip


def offered(state: RollOutState) -> list[str]:
    """Acts that are possible now."""
    return [act for act, (begins, ends) in _WHEN.items() if state in begins and ends in {None, *NEXT[state]}]


_SAYS_NO_WHY = frozenset({"submit", "discard", "approve", "start"})
_LIVE = frozenset({RollOutState.RUNNING, RollOutState.PAUSED})
#: From which states, and to which.
_WHEN: dict[str, tuple[frozenset[RollOutState], RollOutState | None]] = {
    "submit": (frozenset({RollOutState.DRAFT}), RollOutState.WAITING_APPROVAL),
    "approve": (frozenset({RollOutState.WAITING_APPROVAL}), RollOutState.READY),
    "start": (frozenset({RollOutState.READY}), RollOutState.RUNNING),
    "pause": (frozenset({RollOutState.RUNNING}), RollOutState.PAUSED),
    "resume": (frozenset({RollOutState.PAUSED}), RollOutState.RUNNING),
    "abort": (_LIVE | {RollOutState.WAITING_APPROVAL, RollOutState.READY}, RollOutState.ABORTED),
    "revert": (_LIVE | {RollOutState.FINISHED, RollOutState.ABORTED}, RollOutState.REVERTING),
    "discard": (frozenset({RollOutState.DRAFT}), None),
}
