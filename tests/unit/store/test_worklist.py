"""Which studies the worklist shows, in which order, and what it says of those that it does not show."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.records import Outcome
from appliance.store import worklist
from appliance.store.worklist import OPEN, WAITS, Wanted


@pytest.fixture
def study_of(store):
    """``study_of(alert)``: the study that it is about."""
    return lambda alert: store.views.alert(alert).study_id


@pytest.fixture
def ids(store):
    """``ids(after="", **wanted)``: what one page shows."""
    return lambda after="", limit=50, **wanted: (
        store.worklist.page(Wanted(**wanted), after=after, limit=limit).study_ids
    )


@pytest.mark.req("R-STUDIES-01")
def test_unacknowledged_category_1_stands_first_then_2_then_all_others_by_arrival(write, scenes, study_of, ids):
    oldest = study_of(write(scenes.urgent, study_values={"ago_s": 9000.0}))
    quiet = write(scenes.nothing_flagged, ago_s=20.0)
    second = study_of(write(scenes.priority))
    seen = study_of(
        write(
            scenes.urgent,
            study_values={"ago_s": 40.0},
            state="acknowledged",
            acknowledged_at="2026-01-01T00:00:00.000000Z",
        )
    )
    newer = study_of(write(scenes.urgent, study_values={"ago_s": 60.0}))
    passive = study_of(write(scenes.urgent, study_values={"ago_s": 30.0}, active=0))
    open_ = write(scenes.add_study, is_open=True, ago_s=1.0)
    assert ids() == (newer, oldest, second, open_, quiet, passive, seen)


@pytest.mark.req("R-STUDIES-01")
def test_pages_hold_every_study_once_though_new_ones_come_meanwhile(store, write, scenes, ids):
    write(scenes.many, 130)
    seen, after = [], ""
    for _ in range(20):
        page = store.worklist.page(Wanted(), limit=25, after=after)
        seen += page.study_ids
        after = page.after
        write(scenes.nothing_flagged, ago_s=0.0)
        if not after:
            break
    assert sorted(seen) == list(range(1, 131))
    # The flagged ones of the last quarter of an hour first, though far from the newest.
    assert seen[:3] == [121, 101, 81]
    assert ids(after="9.nonsense.1") == ids()
    assert ids(after="' OR 1=1") == ids()


@pytest.mark.req("R-STUDIES-01")
def test_a_page_may_end_among_the_unacknowledged(store, write, scenes, study_of):
    expected = [study_of(write(scenes.urgent, study_values={"ago_s": 100.0 * n})) for n in range(1, 5)]
    expected += [study_of(write(scenes.priority)) for _ in range(2)][::-1]
    expected.append(write(scenes.nothing_flagged, ago_s=1.0))
    seen, after = [], ""
    for _ in expected:
        page = store.worklist.page(Wanted(), limit=1, after=after)
        seen += page.study_ids
        after = page.after
    assert seen == expected
    assert after == ""


@pytest.mark.req("R-STUDIES-02")
def test_what_a_filter_leaves_out_is_counted_and_an_unacknowledged_study_among_it_is_named(store, write, scenes):
    write(scenes.urgent)
    write(scenes.nothing_flagged, source="DX-2")
    write(scenes.nothing_flagged, source="DX-2")
    write(scenes.not_analysed, source="DX-2")
    page = store.worklist.page(Wanted(state="NOTHING_FLAGGED"))
    assert (page.rows, page.matching, page.urgent_elsewhere) == (4, 2, 1)
    assert page.sources == ("CT-1", "DX-2")
    old = store.worklist.page(Wanted(until=store.db.clock.now() - timedelta(days=1)))
    assert (old.rows, old.matching, old.urgent_elsewhere) == (0, 0, 1)
    everything = store.worklist.page(Wanted())
    assert (everything.rows, everything.matching, everything.urgent_elsewhere) == (4, 4, 0)


@pytest.mark.req("R-STUDIES-02")
def test_filters_by_time_source_result_urgency_and_words(store, write, scenes, study_of, ids):
    urgent = study_of(write(scenes.urgent, study_values={"ago_s": 10.0}))
    seen = study_of(write(scenes.priority, state="acknowledged", acknowledged_at="2026-01-01T00:00:00.000000Z"))
    withdrawn = study_of(write(scenes.urgent, state="withdrawn", study_values={"ago_s": 30.0}))
    old = write(scenes.nothing_flagged, scenes.LI, ago_s=90_000.0, source="DX-9")
    missed = write(scenes.not_analysed, ago_s=40.0)
    coming = write(scenes.add_study, is_open=True, ago_s=1.0)
    now = store.db.clock.now()
    assert set(ids(since=now - timedelta(hours=1))) == {urgent, seen, withdrawn, missed, coming}
    assert ids(until=now - timedelta(hours=1)) == (old,)
    assert ids(source="DX-9") == (old,)
    assert ids(state=str(Outcome.NOT_ANALYSED)) == (missed,)
    assert ids(state=OPEN) == (coming,)
    assert set(ids(urgent=True)) == {urgent, seen}
    assert set(ids(text="li na")) == {old, missed}
    assert set(ids(text="李娜")) == {old, missed}
    assert set(ids(text="Li, Na")) == {old, missed}
    assert ids(text="10027766") == (seen,)
    assert set(ids(text="acc20260100475208")) == {old, missed}
    assert ids(text="%") == ids(text="_") == ids(text="wang jane") == ()


def test_an_accession_number_that_only_the_ris_knows_is_found(write, scenes, ids):
    study = write(scenes.nothing_flagged, replace(scenes.DOE, accession_number=""))
    write(
        lambda tx: tx.insert(
            "study_order", study_id=study, state="found", asked=1, asked_at=tx.at, identity_revision=1,
            accession_number="RIS-7781",
        )
    )  # fmt: skip
    assert ids(text="ris-7781") == (study,)


@pytest.mark.req("R-STUDIES-03")
def test_who_is_bound_to_sources_sees_and_counts_no_other(store, write, scenes):
    write(scenes.urgent)
    mine = write(scenes.nothing_flagged, source="DX-2")
    wanted = Wanted(bound_to=("DX-2",))
    page = store.worklist.page(wanted)
    assert (page.study_ids, page.rows, page.urgent_elsewhere, page.sources) == ((mine,), 1, 0, ("DX-2",))
    assert store.worklist.matching(wanted, [1, mine]) == {mine}
    assert [row.study.id for row in store.worklist.rows([1, mine], bound_to=("DX-2",))] == [mine]
    assert store.worklist.last_image(("DX-2",))[1] == "DX-2"
    assert store.worklist.last_image(("CT-9",)) is None


def test_a_row_tells_part_and_view_of_the_series_that_count_and_whether_images_still_come(store, write, scenes):
    study = write(scenes.nothing_flagged)
    with store.db.write() as tx:
        tx.execute(
            "UPDATE series SET body_part = 'CHEST', open = 1, header = json_set(header, '$.view_position', 'PA')"
            " WHERE study_id = ?",
            (study,),
        )
        scout = dict(tx.one("SELECT * FROM series WHERE study_id = ?", (study,)))
        scout |= {"id": None, "series_instance_uid": "9.9", "left_out": "localizer", "body_part": "ABDOMEN", "open": 0}
        tx.insert("series", **scout)
    (row,) = store.worklist.rows([study, 999])
    assert (row.body_parts, row.view_positions, row.is_receiving) == (("CHEST",), ("PA",), True)


def test_the_state_of_the_review_is_told(store, write, scenes):
    waiting, signed = write(scenes.nothing_flagged), write(scenes.nothing_flagged)
    with store.db.write() as tx:
        for study in (waiting, signed):
            tx.insert("review_request", study_id=study, asked_at=tx.at, asked_by="Li Wei")
        for version, decision in ((1, "agree"), (2, "amend")):
            tx.insert(
                "review", study_id=signed, version=version, decision=decision, note="", basis="[]", seen="{}",
                opinion="", signed_at=tx.at, signed_by="Rada", role="radiologist", organization="",
            )  # fmt: skip
    assert [row.review for row in store.worklist.rows([waiting, signed])] == [WAITS, "amend"]


@pytest.mark.req("R-STUDIES-04")
def test_a_box_of_many_years_is_looked_at_up_to_a_bound_and_says_so(store, write, scenes, monkeypatch):
    monkeypatch.setattr(worklist, "LOOKED_AT", 40)
    write(scenes.many, 100)
    page = store.worklist.page(Wanted(text="wang"), limit=100)
    assert page.is_cut
    assert page.rows == 41
    assert min(page.study_ids) > 58
    assert not store.worklist.page(Wanted(since=store.db.clock.now() - timedelta(seconds=300))).is_cut


@pytest.mark.req("R-STUDIES-04")
def test_a_page_reads_its_own_rows_and_no_whole_table_of_results(store, monkeypatch):
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(store.db, "all", lambda sql, parameters=(): asked.append((sql, parameters)) or [])
        patch.setattr(store.db, "one", lambda sql, parameters=(): asked.append((sql, parameters)))
        store.worklist.page(Wanted(since=store.db.clock.now(), urgent=True, text="x", state="FINDING"))
        store.worklist.matching(Wanted(), [1])
        store.timings.of_study(1)
        store.timings.usual("head")
    plan = [row["detail"] for sql, values in asked for row in store.db.all(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert plan
    assert [line for line in plan if line.startswith("SCAN") and "INDEX" not in line and "CONSTANT" not in line] == []
