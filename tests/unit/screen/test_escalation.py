"""What follows where nobody acknowledges an alert, on a clock that the test moves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from appliance.config import Config, Escalation, LightSink, Screen, Site, WebhookSink
from appliance.records import Actor, ActorKind
from appliance.screen.escalation import EscalationStage
from appliance.screen.feed import Feed
from appliance.screen.history import sentence_of
from appliance.screen.model import Scope, State
from appliance.store import Store
from appliance.store.database import iso
from appliance.store.facts import Kind

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
LIGHT = LightSink(kind="light", name="lamp", device_path="/dev/null")
PAGER = WebhookSink(kind="webhook", name="pager", url="http://127.0.0.1:1/x", secret_path=Path("nowhere"))
CLINICAL = Config(site=Site(mode="clinical"), alert_sinks=(LIGHT, PAGER))


@pytest.fixture
def escalate(store, clock):
    """``escalate(config)``: the stage's step, and how often it rang for the sinks."""

    def make(config=CLINICAL, opened=None):
        rung = []
        stage = EscalationStage(opened or store, config, clock, wake_sinks=lambda: rung.append(1))
        return stage.step, rung

    return make


@pytest.fixture
def steps(store):
    return lambda alert: [str(step) for step in sorted(store.escalations.steps([alert]).get(alert, {}), key=str)]


@pytest.fixture
def owed(store, clock):
    return lambda sink: [str(notice.step) for notice in store.escalations.owed(sink, clock.now())]


@pytest.mark.req("R-ALERT-03")
@pytest.mark.req("R-FAULT-T45")
@pytest.mark.fault("T45")
def test_category_1_is_escalated_at_60_180_and_600_seconds(escalate, steps, owed, store, write, scenes, clock):
    step, rung = escalate()
    alert = write(scenes.urgent)
    step()
    assert (steps(alert), owed("lamp"), owed("pager")) == (["raised"], ["raised"], [])
    for until, expected in (
        (59, ["raised"]),
        (60, ["raised", "repeat"]),
        (179, ["raised", "repeat"]),
        (180, ["raised", "repeat", "tell"]),
        (599, ["raised", "repeat", "tell"]),
        (600, ["overdue", "raised", "repeat", "tell"]),
    ):
        clock.advance(until - (clock.monotonic() - 1000.0))
        step()
        step()
        assert steps(alert) == expected, until
    assert owed("pager") == ["tell", "overdue"]
    assert owed("lamp") == ["raised", "tell"]
    assert len(rung) == 3
    facts = store.journal.after(0, 100, (Kind.ALERT_ESCALATED,))
    assert [(fact.body["step"], fact.mono_ms - facts[0].mono_ms) for fact in facts] == [
        ("raised", 0), ("repeat", 60_000), ("tell", 180_000), ("overdue", 600_000),
    ]  # fmt: skip


@pytest.mark.req("R-ALERT-03")
@pytest.mark.fault("T45")
def test_an_acknowledgement_stops_it_for_good(escalate, steps, store, write, scenes, clock):
    step, _ = escalate()
    alert = write(scenes.urgent)
    clock.advance(61)
    step()
    store.alerts.acknowledge(alert, LI)
    clock.advance(10_000)
    step()
    assert steps(alert) == ["raised", "repeat"]


@pytest.mark.req("R-ALERT-03")
@pytest.mark.req("R-RESULT-02")
def test_in_evaluation_mode_nothing_is_ever_escalated(escalate, steps, owed, write, scenes, clock):
    step, rung = escalate(Config(alert_sinks=(LIGHT, PAGER)))
    alert = write(scenes.urgent)
    clock.advance(10_000)
    step()
    assert (steps(alert), owed("lamp"), owed("pager"), rung) == ([], [], [], [])


def test_category_2_is_only_reminded_of_and_others_never(escalate, steps, owed, write, scenes, clock):
    step, _ = escalate()
    second, third, passive = (write(scenes.priority, **more) for more in ({}, {"category": 3}, {"active": 0}))
    clock.advance(3599)
    step()
    assert steps(second) == []
    clock.advance(1)
    step()
    assert (steps(second), steps(third), steps(passive)) == (["remind"], [], [])
    assert owed("pager") == []


def test_a_late_result_rings_nobody_up_and_is_overdue_all_the_same(escalate, steps, owed, write, scenes, clock):
    """A hundred of them come at once after an outage, or from a rebuilt database."""
    step, _ = escalate()
    late = write(scenes.urgent, chime=0)
    clock.advance(601)
    step()
    assert (steps(late), owed("pager"), owed("lamp")) == (["overdue"], ["overdue"], [])


@pytest.mark.req("R-ALERT-03")
@pytest.mark.fault("T45")
def test_a_box_that_was_killed_goes_on_where_it_was_and_misses_nothing(escalate, steps, store, write, scenes, clock):
    step, _ = escalate()
    alert = write(scenes.urgent)
    clock.advance(61)
    step()
    clock.advance(3600)
    reopened = Store.open(store.db.path.parent, clock)
    try:
        again, _ = escalate(opened=reopened)
        again()
        again()
    finally:
        reopened.close()
    assert steps(alert) == ["overdue", "raised", "repeat", "tell"]
    assert len(store.journal.after(0, 100, (Kind.ALERT_ESCALATED,))) == 4


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_wall_clock_that_is_set_neither_hurries_nor_delays_a_step(escalate, steps, write, scenes, clock, jump_s):
    step, _ = escalate()
    alert = write(scenes.urgent)
    step()
    clock.jump(jump_s)
    step()
    assert steps(alert) == ["raised"]
    clock.advance(60)
    step()
    assert steps(alert) == ["raised", "repeat"]


def test_the_times_are_the_sites(escalate, steps, write, scenes, clock):
    times = {"repeat_after_s": 5, "tell_after_s": 10, "overdue_after_s": 20}
    step, _ = escalate(Config(site=Site(mode="clinical"), screen=Screen(escalation=times)))
    alert = write(scenes.urgent)
    clock.advance(11)
    step()
    assert steps(alert) == ["repeat", "tell"], "without a light there is no first step"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"screen": {"escalation": {"repeat_after_s": 200}}}, "correct their order"),
        (
            {"site": {"mode": "clinical"}, "alert_sinks": [PAGER.model_dump() | {"url": "http://pager.x/y"}]},
            "by https only",
        ),
        ({"alert_sinks": [LIGHT.model_dump(), LIGHT.model_dump()]}, "two alert sinks"),
        ({"alert_sinks": [LIGHT.model_dump() | {"on": "xyz"}]}, "pattern"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Config.model_validate(wrong)


# The boards -------------------------------------------------------------------------------------------------------


@pytest.fixture
def board(store, clock, scenes):
    """``board(sources, escalated)``: as a screen of these sources sees the store now."""
    feed = Feed(store, scenes.packages(), clock, CLINICAL)
    return lambda *sources, **more: feed._look(1, Scope(sources=sources, **more)).board


@pytest.mark.req("R-ALERT-03")
def test_the_sound_repeats_where_the_step_was_taken_and_overdue_stands_on_every_screen(
    board, escalate, write, scenes, clock
):
    step, _ = escalate()
    alert = write(scenes.urgent)
    newer = write(scenes.urgent, scenes.LI)
    write(lambda tx: tx.execute("UPDATE alert SET raised_at = ? WHERE id = ?", (_later(clock, 500), newer)))
    assert board().repeat == ()
    clock.advance(601)
    step()
    mine, theirs = board("CT-1"), board("DX-2")
    assert set(mine.repeat) == {str(alert), str(newer)}
    assert [(one.alert_id, one.is_mine) for one in mine.overdue] == [(alert, True)]
    (other,) = theirs.overdue
    assert (other.source, other.is_mine, other.person.name["zh_Hans"]) == ("CT-1", False, "王*明")
    assert (theirs.state, theirs.hero, theirs.open_alerts, theirs.repeat) == (State.IDLE, None, 0, ())
    overdue = next(card for card in mine.items if card.alert_id == alert)
    assert overdue.overdue
    assert not mine.hero.overdue


@pytest.mark.req("R-ALERT-03")
def test_a_further_screen_gets_the_alert_at_180_seconds_and_keeps_it_after_the_answer(
    board, escalate, store, write, scenes, clock
):
    step, _ = escalate()
    alert = write(scenes.urgent)
    clock.advance(179)
    step()
    assert board("DX-2", escalated=True).open_alerts == 0
    clock.advance(1)
    step()
    shown = board("DX-2", escalated=True)
    assert (shown.state, shown.hero.alert_id, shown.chime) == (State.URGENT, alert, (str(alert),))
    assert board("DX-2").open_alerts == 0
    store.alerts.acknowledge(alert, LI)
    assert board("DX-2", escalated=True).state is State.SEEN


@pytest.mark.req("R-ALERT-03")
def test_the_history_says_that_further_places_are_told_only_where_there_are_some(escalate, store, write, scenes, clock):
    store.screens.offer("reading room", (), "123456", LI)
    store.screens.pair("123456")
    store.screens.offer("never paired", (), "654321", LI)
    told, nobody = "further places are told", "Nobody has acknowledged the alert: there is no further place to tell"
    for sinks, screens, is_told in (
        ((), (), False),
        ((), ("unknown", "never paired"), False),
        ((PAGER,), (), True),
        ((), ("reading room",), True),
    ):
        further = Screen(escalation=Escalation(screens=screens))
        step, _ = escalate(Config(site=Site(mode="clinical"), alert_sinks=sinks, screen=further))
        alert = write(scenes.urgent)
        step()
        clock.advance(181)
        step()
        store.alerts.acknowledge(alert, LI)
        fact = store.journal.after(0, 1000, (Kind.ALERT_ESCALATED,))[-1]
        said = sentence_of(fact.kind, fact.body)
        assert (said.words.get("step") == told, said.text == nobody) == (is_told, not is_told), (sinks, screens)
    before = {"alert": 1, "step": "tell", "sinks": []}
    assert sentence_of(Kind.ALERT_ESCALATED, before).words["step"] == told


def test_a_priority_that_waits_too_long_is_said_to(board, escalate, write, scenes, clock):
    step, _ = escalate()
    write(scenes.priority)
    clock.advance(3601)
    step()
    shown = board()
    assert (shown.state, shown.hero.reminded, shown.chime, shown.repeat) == (State.PRIORITY, True, (), ())


def _later(clock, seconds):
    return iso(clock.now() + timedelta(seconds=seconds))
