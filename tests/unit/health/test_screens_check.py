"""Screens and escalation as configured, held against the screens that are paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import Config, Escalation, Screen, Site, Source, WebhookSink
from appliance.health.checks import ScreensCheck
from appliance.records import SYSTEM, Severity

PAGER = WebhookSink(kind="webhook", name="pager", url="http://127.0.0.1:1/x", secret_path=Path("nowhere"))
NOBODY = "alert_sinks, screen.escalation.screens"


@pytest.fixture
def pair(store):
    """``pair(name, *sources)``: a screen that a browser is paired as; its id."""

    def paired(name, *sources):
        screen_id = store.screens.offer(name, sources, name, SYSTEM)
        store.screens.pair(name)
        return screen_id

    return paired


def standing(store):
    return {(issue.code, issue.subject) for issue in store.issues.open()}


@pytest.mark.req("R-ACCESS-04")
def test_a_screen_whose_source_is_renamed_is_loud_until_it_is_right_again(store, pair):
    pair("ct-room", "CT-1", "DX-2")
    pair("office")
    both = tuple(Source(name=name, ae_title=name) for name in ("CT-1", "DX-2"))
    ScreensCheck(store, Config(sources=both)).run()
    assert standing(store) == set()
    for _ in range(2):
        ScreensCheck(store, Config(sources=(Source(name="CT-A", ae_title="CT-1"), both[1]))).run()
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject, issue.severity) == ("SCREEN_SOURCE_GONE", "ct-room", Severity.FAULT)
    assert issue.detail == {"sources": ["CT-1"]}
    pair("ct-room", "CT-A", "DX-2")
    ScreensCheck(store, Config(sources=(Source(name="CT-A", ae_title="CT-1"), both[1]))).run()
    assert standing(store) == set()


@pytest.mark.req("R-ALERT-03")
def test_an_escalation_that_reaches_nobody_is_said_in_clinical_mode_alone(store, pair):
    room = pair("reading room")
    store.screens.offer("never paired", (), "654321", SYSTEM)

    def look(*screens, mode="clinical", sinks=()):
        screen = Screen(escalation=Escalation(screens=screens))
        ScreensCheck(store, Config(site=Site(mode=mode), screen=screen, alert_sinks=sinks)).run()
        return {subject for code, subject in standing(store) if code == "ESCALATION_NOWHERE"}

    assert look() == {NOBODY}
    assert look(sinks=(PAGER,)) == set()
    assert look("reading room", "unknown") == {"unknown"}
    assert look("never paired") == {"never paired", NOBODY}
    assert look("reading room") == set()
    store.screens.revoke(room, SYSTEM)
    assert look("reading room", sinks=(PAGER,)) == {"reading room"}
    assert look("reading room", mode="evaluation") == set()
