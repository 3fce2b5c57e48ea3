"""What a stage asks in every step must not grow with the years of the box: SQLite's own plans say so."""

from __future__ import annotations

import pytest

from appliance.store.escalations import flagged_before
from appliance.store.orphans import has_orphans, withdraw_analyses
from appliance.store.steps import listed_images

#: Tables that are never emptied, by the names that queries give them.
GROWING = {"a", "analysis", "r", "revision", "i", "analysis_input", "journal", "st", "study", "s", "series"} | {
    "version",
    "o",
    "instance",
    "p",
    "performed_image",
    "study_order",
    "e",
    "escalation",
    "alert",
    "n",
    "alert_notice",
    "t",
    "test_alert",
    "c",
    "communication",
    "d",
    "delivery",
}
ASKED = {
    "analyses that wait for a version that no longer runs": lambda store: has_orphans(store.db),
    "analyses that wait": lambda store: store.analyses.open(),
    "backlog": lambda store: store.analyses.has_late_open(),
    "what was in a worker": lambda store: store.analyses.recover(),
    "studies to route": lambda store: store.revisions.studies_to_route(),
    "what the box does now": lambda store: store.views.box(),
    "versions to compare": lambda store: store.studies.to_compare(),
    "open series": lambda store: store.revisions.open_series(),
    "what steps list of a series": lambda store: listed_images(store.db, 1, "1.2.3"),
    "orders to ask for": lambda store: store.orders.to_ask(),
    "alerts that nobody has acknowledged": lambda store: store.escalations.waiting(),
    "what a sink is owed": lambda store: store.escalations.owed("pager", store.db.clock.now()),
    "alerts that went to further targets": lambda store: store.escalations.told_since(store.db.clock.now()),
    "test alerts": lambda store: store.alert_tests.open(),
    "lines of the register": lambda store: store.communications.between(store.db.clock.now(), store.db.clock.now(), 10),
    "earlier alerts of a patient": lambda store: flagged_before(store.db, [1]),
    "images not in the PACS": lambda store: store.views.originals_owed([1]),
    "what the box does now at some sources": lambda store: store.views.box(["CT-1"]),
}


@pytest.fixture
def plans(store, monkeypatch):
    """``plans(ask)``: SQLite's plan of each query that ``ask`` makes of the store, a line a step."""

    def explain(ask):
        asked = []
        with monkeypatch.context() as patch:
            patch.setattr(store.db, "all", lambda sql, parameters=(): asked.append((sql, parameters)) or [])
            patch.setattr(store.db, "one", lambda sql, parameters=(): asked.append((sql, parameters)))
            ask(store)
        return [row["detail"] for query in asked for row in store.db.all(f"EXPLAIN QUERY PLAN {query[0]}", query[1])]

    return explain


def whole_tables(plan):
    """Steps that read a growing table from end to end; an index of the open rows alone is short."""
    scans = [line.split() for line in plan if line.startswith("SCAN ")]
    return [" ".join(words) for words in scans if words[1] in GROWING and "INDEX" not in words]


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_in_every_step_reads_no_whole_table(plans, what):
    plan = plans(ASKED[what])
    assert plan
    assert whole_tables(plan) == []


def test_a_withdrawal_reads_no_whole_table_while_it_holds_the_writers_lock(plans):
    assert whole_tables(plans(lambda store: withdraw_analyses(store.db, "", lambda *_: (), "head", "1.0.0"))) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.commitments.due("pacs", store.db.clock.now(), 300),
        lambda store: store.commitments.recover("pacs"),
        lambda store: store.commitment_requests.decide("CT-1", lambda _: ("pacs",)),
        lambda store: store.commitment_requests.next_report("CT-1"),
        lambda store: store.retention.studies_due(store.db.clock.now(), ("pacs",)),
        lambda store: store.retention.results_due(store.db.clock.now(), ("pacs",)),
    ],
)
def test_custody_and_retention_read_what_is_open_and_not_what_was_ever_sent(plans, ask):
    plan = plans(ask)
    assert plan
    assert [line for line in plan if line.startswith("SCAN ") and "INDEX" not in line] == []
