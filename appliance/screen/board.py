"""What the alert screen shows: a pure rule from the state of the store to one board.

The biggest place belongs to what a person must act on first; everything else stays in the list beside it. Technical
trouble has its own place and never hides a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

from appliance.records import AlertState, AlertStep, Issue, Severity, SourceMode
from appliance.screen.cards import Cards
from appliance.screen.model import Board, Card, Facts, ImagePath, Level, Mark, State
from appliance.screen.packages import PackageText
from appliance.store.fleet_jobs import APPROVAL
from appliance.store.readmodels import AI_UNAVAILABLE, REJECTED

#: How long something new keeps the biggest place.
NOT_ANALYSED_HOLD = timedelta(seconds=120)
SEEN_HOLD = timedelta(seconds=120)
#: A patient is gone then; what nobody decided stays listed.
QUALITY_HOLD = timedelta(minutes=10)
NOTHING_FLAGGED_HOLD = timedelta(seconds=60)
WITHDRAWN_HOLD = timedelta(minutes=10)
NOTICE_HOLD = timedelta(minutes=30)
LIST_ROWS = 5


#: Open alerts beyond these are counted, and not drawn: nobody would see them.
DRAWN = 12

#: Issues under which a destination gets nothing.
_GETS_NOTHING = ("DESTINATION_UNREACHABLE", "DESTINATION_PAUSED")
#: Issues under which no image is taken from a scanner, so that none can be passed on.
_TAKES_NOTHING = ("DISK_RESERVE", "DISK_FAULT")


def compose(
    facts: Facts, packages: Mapping[str, PackageText], withholds: Callable[[str], bool] = lambda _: False
) -> Board:
    """The board of this moment.

    Args:
        facts: The store's state, as far as the reader may see it.
        packages: Texts by package name.
        withholds: Of which packages the reader is told only that a radiologist must look.
    """
    cards = Cards(facts, packages, withholds)
    alerts = cards.alerts(facts.open_alerts[:DRAWN])
    recent = [cards.study(study) for study in facts.recent]
    warnings = cards.warnings(facts.warned)
    urging = [card for card in warnings if Mark.LATE not in card.marks and facts.now - card.at < QUALITY_HOLD]
    analysing = tuple(cards.analysing())
    receiving = tuple(cards.receiving())
    withdrawn = cards.alerts(facts.withdrawn)
    taken_back = [card for card in withdrawn if card.withdrawn_why == REJECTED and card.level is not Level.NOTE]
    state, hero = _first(facts, alerts, taken_back, urging, recent, busy=bool(analysing), arriving=bool(receiving))
    old = [card for card in warnings if card not in urging]
    rows = _rows(alerts, withdrawn, urging, old, recent, hero)
    sounding = [a for a in facts.open_alerts if a.chime and a.active and a.category == 1]
    faults = tuple(i for i in facts.box.issues if i.severity is Severity.FAULT and i.code != AI_UNAVAILABLE)
    return Board(
        state=state,
        hero=hero,
        open_alerts=len(facts.open_alerts),
        open_warnings=len(warnings),
        items=tuple(rows[:LIST_ROWS]),
        receiving=receiving,
        analysing=analysing,
        queued=facts.box.queued,
        ai_down_since=facts.box.ai_down_since,
        faults=faults,
        warnings=sum(i.severity is Severity.WARNING for i in facts.box.issues),
        approvals=sum(i.code == APPROVAL for i in facts.box.issues),
        counts=dict(facts.counts),
        last=recent[0] if recent else None,
        chime=(*(str(a.id) for a in sounding), *(f"t{test.id}" for test in facts.tests)),
        repeat=tuple(str(a.id) for a in sounding if AlertStep.REPEAT in facts.steps.get(a.id, {})),
        overdue=tuple(cards.overdue(a.id for a in facts.open_alerts)),
        overdue_more=facts.overdue_more,
        tests=facts.tests,
        image_path=facts.image_path,
        pacs_down_since=facts.pacs_down_since,
        names=facts.names,
        looked_for=tuple(package.looked_for for package in tuple(packages.values()) if package.live),
        notice=facts.notice if facts.notice and facts.now - facts.notice.at < NOTICE_HOLD else None,
    )


def way_of_images(
    modes: Iterable[SourceMode], takers: Collection[str], issues: Iterable[Issue]
) -> tuple[ImagePath, datetime | None]:
    """How images come to the PACS; whether the AI works has no say in it.

    Args:
        modes: Of the sources shown. One that is inline depends on this box.
        takers: Names of the destinations of originals.
        issues: Those that are open.

    Returns:
        The way, and where it is ``STOPPED`` since when.
    """
    modes = frozenset(modes)
    if SourceMode.INLINE not in modes:
        return (ImagePath.ITSELF if modes else ImagePath.UNKNOWN), None
    stopping = {(code, taker) for code in _GETS_NOTHING for taker in takers}
    stopping |= {("STAGE_FAILING", f"deliver {taker}") for taker in takers}
    away = [one.since_at for one in issues if one.code in _TAKES_NOTHING or (one.code, one.subject) in stopping]
    return (ImagePath.STOPPED, min(away)) if away else (ImagePath.FORWARDED, None)


def _first(
    facts: Facts,
    alerts: list[Card],
    taken_back: list[Card],
    urging: list[Card],
    recent: list[Card],
    *,
    busy: bool,
    arriving: bool,
) -> tuple[State, Card | None]:
    """What comes first.

    Alerts that call, then tests of them, then what was not analysed, then findings whose images were rejected, then
    what to look at before the patient leaves, then what goes on, then what is merely told.
    """
    now = facts.now
    warned = {card.study_id for card in (*urging, *taken_back)}
    calling = next((card for card in alerts if card.level is not Level.NOTE), None)
    if calling is not None:
        return State(calling.level.value), calling
    if facts.tests:
        return State.TEST, None
    fresh = [card for card in recent if Mark.LATE not in card.marks]
    missed = [card for card in fresh if card.level is Level.NOT_ANALYSED and now - card.at < NOT_ANALYSED_HOLD]
    # A warning of the same study says more of what to do; its card says that the study was not analysed, too.
    told = next((card for card in missed if card.study_id not in warned), None)
    if told is not None:
        return State.NOT_ANALYSED, told
    if taken_back:
        return State.WITHDRAWN, taken_back[0]
    if urging:
        return State.QUALITY, urging[0]
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


def _rows(
    alerts: list[Card],
    withdrawn: list[Card],
    urging: list[Card],
    old: list[Card],
    recent: list[Card],
    hero: Card | None,
) -> list[Card]:
    """The list: open alerts, withdrawn ones, new quality warnings, what was not analysed, then the rest by time.

    A study has one row for its result. A quality warning is no result and has a row of its own.
    """
    rows: list[Card] = []
    if hero is not None and hero.level is Level.QUALITY:
        urging = [card for card in urging if card is not hero]
        hero = None
    shown = {(hero.study_id, hero.alert_id)} if hero else set()
    studies = {hero.study_id} if hero and hero.alert_state is not AlertState.WITHDRAWN else set()
    for card in (*alerts, *withdrawn):
        if (card.study_id, card.alert_id) not in shown:
            shown.add((card.study_id, card.alert_id))
            rows.append(card)
    # A withdrawn alert is about what was told; the study's present result has its own row.
    studies |= {card.study_id for card in alerts}
    results = [c for c in recent if c.study_id not in studies and (c.study_id, c.alert_id) not in shown]
    missed = [card for card in results if card.level is Level.NOT_ANALYSED]
    rest = [card for card in results if card.level is not Level.NOT_ANALYSED]
    return [*rows, *urging, *missed, *sorted((*old, *rest), key=lambda card: card.at, reverse=True)]
