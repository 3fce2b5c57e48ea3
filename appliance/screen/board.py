"""What the alert screen shows: a pure rule from the state of the store to one board.

The biggest place belongs to what a person must act on first; everything else stays in the list beside it. Technical
trouble has its own place and never hides a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from appliance.records import Severity
from appliance.screen.cards import Cards
from appliance.screen.model import Board, Card, Facts, Level, Mark, State
from appliance.screen.packages import PackageText
from appliance.store.readmodels import AI_UNAVAILABLE

#: How long something new keeps the biggest place.
NOT_ANALYSED_HOLD = timedelta(seconds=120)
SEEN_HOLD = timedelta(seconds=120)
NOTHING_FLAGGED_HOLD = timedelta(seconds=60)
WITHDRAWN_HOLD = timedelta(minutes=10)
NOTICE_HOLD = timedelta(minutes=30)
LIST_ROWS = 5


def compose(facts: Facts, packages: Mapping[str, PackageText]) -> Board:
    """The board of this moment.

    Args:
        facts: The store's state.
        packages: Texts by package name.
    """
    cards = Cards(facts, packages)
    alerts = cards.alerts(facts.open_alerts)
    recent = [cards.study(study) for study in facts.recent]
    analysing = tuple(cards.analysing())
    receiving = tuple(cards.receiving())
    state, hero = _first(facts, alerts, recent, busy=bool(analysing), arriving=bool(receiving))
    rows = _rows(alerts, cards.alerts(facts.withdrawn), recent, hero)
    faults = tuple(i for i in facts.box.issues if i.severity is Severity.FAULT and i.code != AI_UNAVAILABLE)
    return Board(
        state=state,
        hero=hero,
        open_alerts=len(alerts),
        items=tuple(rows[:LIST_ROWS]),
        receiving=receiving,
        analysing=analysing,
        queued=facts.box.queued,
        ai_down_since=facts.box.ai_down_since,
        faults=faults,
        warnings=sum(i.severity is Severity.WARNING for i in facts.box.issues),
        counts=dict(facts.counts),
        last=recent[0] if recent else None,
        chime=tuple(a.id for a in facts.open_alerts if a.chime and a.active and a.category == 1),
        names=facts.names,
        looked_for=tuple(package.looked_for for package in tuple(packages.values()) if package.live),
        notice=facts.notice if facts.notice and facts.now - facts.notice.at < NOTICE_HOLD else None,
    )


def _first(
    facts: Facts, alerts: list[Card], recent: list[Card], *, busy: bool, arriving: bool
) -> tuple[State, Card | None]:
    """What comes first: alerts that call, then what was not analysed, then what goes on, then what is merely told."""
    now = facts.now
    calling = next((card for card in alerts if card.level is not Level.NOTE), None)
    if calling is not None:
        return State(calling.level.value), calling
    fresh = [card for card in recent if Mark.LATE not in card.marks]
    missed = next((c for c in fresh if c.level is Level.NOT_ANALYSED and now - c.at < NOT_ANALYSED_HOLD), None)
    if missed is not None:
        return State.NOT_ANALYSED, missed
    seen = [
        card
        for card in recent
        if card.level in {Level.URGENT, Level.PRIORITY} and card.seen_at and now - card.seen_at < SEEN_HOLD
    ]
    if seen:
        return State.SEEN, max(seen, key=lambda card: card.seen_at or card.at)
    if facts.box.ai_down_since is not None:
        return State.AI_DOWN, None
    if busy:
        return State.ANALYSING, None
    if arriving:
        return State.RECEIVING, None
    if alerts:
        return State.NOTE, alerts[0]
    quiet = next((c for c in fresh if c.level is Level.NOTHING_FLAGGED and now - c.at < NOTHING_FLAGGED_HOLD), None)
    return (State.NOTHING_FLAGGED, quiet) if quiet is not None else (State.IDLE, None)


def _rows(alerts: list[Card], withdrawn: list[Card], recent: list[Card], hero: Card | None) -> list[Card]:
    """The list: open alerts, withdrawn ones, what was not analysed, then the rest; each study once."""
    rows: list[Card] = []
    shown = {(hero.study_id, hero.alert_id)} if hero else set()
    studies = {hero.study_id} if hero else set()
    missed = [card for card in recent if card.level is Level.NOT_ANALYSED]
    rest = [card for card in recent if card.level is not Level.NOT_ANALYSED]
    for card in (*alerts, *withdrawn):
        if (card.study_id, card.alert_id) not in shown:
            shown.add((card.study_id, card.alert_id))
            rows.append(card)
    # A withdrawn alert is about what was told; the study's present result has its own row.
    studies |= {card.study_id for card in alerts}
    rows += [c for c in (*missed, *rest) if c.study_id not in studies and (c.study_id, c.alert_id) not in shown]
    return rows
