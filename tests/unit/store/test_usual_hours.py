"""A source that sends nothing when it usually does is missed; nights, weekends and closed sites are not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import Config
from appliance.health.checks import SilenceCheck
from appliance.store.usual_hours import UsualHours, usual_of

pytestmark = pytest.mark.req("R-FLEET-33")
#: A Monday, four weeks before the present.
BEGIN = datetime(2026, 2, 2, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
#: A Monday too.
NOW = BEGIN + timedelta(weeks=4)


def site(days=range(5), hours=range(8, 18), every=timedelta(minutes=20), weeks=4, end=NOW):
    """When a site that works on weekdays from eight to six sends its studies."""
    at, out = end - timedelta(weeks=weeks), []
    while at < end:
        if at.weekday() in days and at.hour in hours:
            out.append(at)
        at += every
    return out


def test_a_morning_without_a_study_is_missed_and_a_quiet_hour_is_not():
    usual = usual_of(site(), NOW)
    assert usual.studies == 4 * 5 * 10 * 3
    last = NOW - timedelta(hours=54)  # Friday evening
    assert not usual.is_silent(last, NOW.replace(hour=8))
    assert usual.expected(last, NOW.replace(hour=10)) == pytest.approx(6.0)
    assert not usual.is_silent(last, NOW.replace(hour=10))
    assert usual.is_silent(last, NOW.replace(hour=10, minute=40))
    assert not usual.is_silent(NOW.replace(hour=9), NOW.replace(hour=11))


@given(st.integers(0, 7 * 24 * 60 - 1), st.integers(0, 40 * 24 * 60))
def test_a_closed_site_adds_nothing(start, minutes):
    """Whatever lies between Friday six and Monday eight, or any evening and morning, expects nothing."""
    usual = usual_of(site(), NOW)
    since = NOW + timedelta(minutes=start)
    until = since + timedelta(minutes=minutes)
    at, open_minutes = max(since, until - timedelta(weeks=4)), 0.0
    while at < until:
        end = min(at.replace(minute=0) + HOUR, until)
        if at.weekday() < 5 and 8 <= at.hour < 18:
            open_minutes += (end - at) / timedelta(minutes=1)
        at = end
    assert usual.expected(since, until) == pytest.approx(open_minutes / 20, abs=1e-6)


def test_what_is_not_known_yet_is_never_missed():
    few = usual_of(site(days={0}, hours={9}, every=HOUR), NOW)
    assert few.studies == 4
    assert not few.is_silent(NOW - timedelta(weeks=3), NOW)
    young = usual_of(site(weeks=1), NOW)
    assert young.studies == 150
    assert not young.is_silent(NOW - timedelta(days=6), NOW)
    assert not usual_of([], NOW).is_silent(NOW - timedelta(weeks=3), NOW)
    ahead = usual_of([at + timedelta(weeks=9) for at in site()], NOW)
    assert ahead.studies == 0, "of a clock that was set back"


def test_a_week_of_silence_does_not_teach_that_silence_is_usual():
    assert usual_of(site(), NOW + timedelta(days=7)).expected(NOW, NOW + timedelta(hours=18)) == pytest.approx(30)


@pytest.fixture
def sent(store, scenes):
    """``sent(source, times)``: a study each."""

    def make(source, times):
        with store.db.write() as tx:
            for at in times:
                scenes.add_study(tx, source=source, ago_s=(tx.now - at).total_seconds())

    return make


def test_a_silent_source_is_an_issue_until_it_sends_again(store, clock, sent, tmp_path):
    clock.jump((NOW - clock.now()).total_seconds())
    for source in ("CT-1", "DX-1", "OLD"):
        sent(source, site())
    config = Config.model_validate(
        {"state_path": tmp_path, "sources": [{"name": name, "ae_title": name} for name in ("CT-1", "DX-1", "NEW")]}
    )
    check = SilenceCheck(store, config, clock)
    check.run()
    assert store.issues.open() == []
    clock.advance(10 * 3600)
    check.run()
    assert [issue.subject for issue in store.issues.open()] == [], "two hours of work, six studies"
    sent("DX-1", [clock.now()])
    clock.advance(3600)
    check.run()
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject, issue.severity) == ("SOURCE_SILENT", "CT-1", "warning")
    sent("CT-1", [clock.now()])
    clock.advance(59)
    check.run()
    assert len(store.issues.open()) == 1, "it looks once a minute"
    clock.advance(1)
    check.run()
    assert store.issues.open() == []


def test_learning_reads_studies_by_source_and_leaves_test_studies_out(store, clock, sent):
    clock.jump((NOW - clock.now()).total_seconds())
    sent("CT-1", site()[:30])
    sent("self test", site()[:30])
    learned = UsualHours(store.db).learn(clock.now())
    assert {name: usual.studies for name, usual in learned.items()} == {"CT-1": 30}
