"""What the commands of roll-outs share: whose act it is, and how a roll-out is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click
from sqlalchemy import Connection, select

from appliance.commands import F
from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.rollout import query
from appliance.fleet.server.rollout.plan import BoxWord, Verdict


def as_option(*, required: bool = True) -> Callable[[F], F]:
    """``--as``: whose act it is, as an account of the console."""
    return click.option("--as", "name", required=required, metavar="NAME", help="Your account: who does this.")


def why_option(function: F) -> F:
    """``--why``: for the audit."""
    return click.option("--why", required=True, help="Stands in the audit.")(function)


def account_of(connection: Connection, name: str) -> int:
    """The number of an account.

    Raises:
        NotFoundError: There is none of that name.
    """
    c = t.account.c
    found = connection.execute(select(c.number).where(c.name == name, c.is_active.is_(True))).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"there is no account {name!r}; 'scanside-fleet user list' shows them")
    return int(found)


def document(page: query.RollOutPage) -> dict[str, Any]:
    """For ``--json``."""
    waves = [
        {
            **{name: getattr(one, name) for name in ("number", "name", "state", "began_at", "ended_at")},
            "counts": {str(word): n for word, n in one.counts.items()},
            "verdicts": [verdict.model_dump(mode="json") for verdict in one.verdicts],
        }
        for one in page.waves
    ]
    chosen, plan = (one.model_dump(mode="json") for one in (page.chosen, page.plan))
    return {**row_document(page.row), "chosen": chosen, "plan": plan, "waves": waves}


def row_document(one: query.RollOut) -> dict[str, Any]:
    """For ``--json``, of a list."""
    return {**asdict(one), "counts": {str(word): n for word, n in one.counts.items()}}


def stands(one: query.RollOut) -> str:
    """Its state, and why it stands still."""
    return f"{one.state} ({one.paused_why})" if one.paused_why else str(one.state)


def counted(counts: dict[BoxWord, int]) -> str:
    """As ``3 soaking, 7 succeeded``."""
    return ", ".join(
        f"{n} {word}".replace("_", " ") for word, n in sorted(counts.items(), key=lambda pair: str(pair[0]))
    )


def verdict(one: Verdict) -> str:
    """As ``alerts: not judged (120 of 3200)``."""
    told = one.word.replace("_", " ") + (", accepted" if one.accepted else "")
    figures = f"{one.n} of {one.needed}" if one.word == "not_judged" else f"n {one.n}"
    value = "" if one.value is None else f", {one.value:.3g} against {one.bound:.3g}" if one.bound is not None else ""
    codes = "".join(f", {n} {code}" for code, n in sorted(one.codes.items()))
    return f"{one.gate}: {told} ({figures}{value}{codes})"


def say_gaps(page: query.RollOutPage) -> None:
    """What no canary covers, and how many boxes get nothing."""
    for kind in page.plan.not_covered:
        click.echo(f"  not covered by a canary: {kind}", err=True)
    for why, n in sorted(page.plan.left_out.items()):
        click.echo(f"  left out: {n} ({why})", err=True)
