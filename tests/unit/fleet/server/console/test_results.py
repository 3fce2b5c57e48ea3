"""Results by model and by site: counts beside what they are of, shares that stand on enough, a tame file."""

from __future__ import annotations

import csv
import datetime as dt
import io

import pytest
from console_kit import DAY, HOUR, OTHER, OTHER_SITE, OURS, THEIRS, add_box, add_results
from fleet_kit import HOSPITAL, NOW, SITE, VENDOR, add_tree
from sqlalchemy import select, update

from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.figures import Period, Wanted, first_hour, newest_first
from appliance.fleet.server.console.sums import by_site, over_all
from appliance.fleet.server.registry import Scope, TenantKind

pytestmark = pytest.mark.req("R-FLEET-78")
ALL = Scope.everything()


@pytest.fixture
def told(engine):
    """Three boxes at two sites: two clinical, one in evaluation mode; on both databases."""
    with db.write(engine) as connection:
        add_tree(connection)
        registry.add_tenant(connection, OTHER, "Other hospital", TenantKind.HOSPITAL, parent=VENDOR, now=NOW)
        registry.add_site(connection, OTHER_SITE, OTHER, "Casualty", now=NOW)
        registry.add_site(connection, "site-0003", OTHER, "Empty ward", now=NOW)
        for device, site in ((OURS, SITE), ("box-0000003", SITE), (THEIRS, OTHER_SITE)):
            add_box(connection, device, site)
        add_results(connection, OURS, days=7)
        add_results(connection, "box-0000003", days=1, flagged={"hemorrhage": 4}, psi={"hemorrhage": 0.4}, p95_ms=None)
        add_results(connection, THEIRS, days=1, n=4, mode="evaluation", not_analysed={}, flagged={"hemorrhage": 1})
    return engine


def test_sums_are_those_of_the_hours_and_trials_are_told_apart(told):
    with db.write(told) as connection:
        c = t.results_hour.c
        connection.execute(update(t.results_hour).where(c.hour < NOW - 2 * DAY).values(psi={"hemorrhage": 3.0}))
        clinical, trial = over_all(connection, ALL, Wanted(), now=NOW)
    assert (clinical.mode, clinical.boxes, clinical.n, clinical.analysed) == ("clinical", 2, 24 * 12, 24 * 10)
    assert clinical.flagged == {"hemorrhage": 21 + 12, "fracture": 0}
    assert clinical.not_analysed == {"quality": 48}
    assert clinical.psi == {"hemorrhage": 0.4}, "the highest of what the boxes told last"
    assert (clinical.typical_ms, clinical.slowest_ms) == (9000.0, 9000.0), "hours without a time weigh nothing"
    assert (trial.mode, trial.boxes, trial.n) == ("evaluation", 1, 12)


def test_a_share_has_its_interval_and_none_stands_on_too_few(told):
    with db.read(told) as connection:
        clinical, trial = over_all(connection, ALL, Wanted(), now=NOW)
    rate = clinical.flag_rate("hemorrhage")
    assert (rate.numerator, rate.denominator) == (33, 240)
    assert rate.low < 33 / 240 < rate.high
    assert trial.flag_rate("hemorrhage") is None, "12 are too few"
    assert (clinical.agreement.numerator, clinical.agreement.denominator) == (24, 24)
    assert trial.agreement is None


def test_filters_leave_what_was_asked_for(told):
    with db.read(told) as connection:
        for wanted, n in (
            (Wanted(version="3.1.0"), 2),
            (Wanted(version="9"), 0),
            (Wanted(role="silent"), 0),
            (Wanted(site="casu"), 1),
            (Wanted(package="ich-ct", site=SITE), 1),
            (Wanted(site="%"), 0),
        ):
            assert len(over_all(connection, ALL, wanted, now=NOW)) == n, wanted
        own = over_all(connection, Scope.of(connection, HOSPITAL), Wanted(), now=NOW)
        assert [one.mode for one in own] == ["clinical"]


def test_a_day_is_a_day_of_the_site(told):
    hour = dt.datetime(2026, 2, 23, 15, 30, tzinfo=dt.timezone.utc)  # 23:30 of that day in Shanghai, so a day too early
    assert first_hour("Asia/Shanghai", Period.WEEK, NOW) == dt.datetime(2026, 2, 23, 16, tzinfo=dt.timezone.utc)
    assert first_hour("Asia/Shanghai", Period.WEEK, NOW + 8 * HOUR) == dt.datetime(
        2026, 2, 24, 16, tzinfo=dt.timezone.utc
    )
    assert first_hour("No/Where", Period.WEEK, NOW) == dt.datetime(2026, 2, 24, tzinfo=dt.timezone.utc)
    with db.write(told) as connection:
        before = over_all(connection, ALL, Wanted(), now=NOW)[0].n
        row = connection.execute(select(t.results_hour).where(t.results_hour.c.device == OURS)).first()
        extra = row._asdict() | {"seq": 900, "n": 1000}
        connection.execute(t.results_hour.insert(), [extra | {"hour": hour}, extra | {"hour": hour + HOUR, "n": 100}])
        assert over_all(connection, ALL, Wanted(), now=NOW)[0].n == before, "UTC begins later"
        connection.execute(update(t.site).where(t.site.c.id == SITE).values(zone="Asia/Shanghai"))
        assert over_all(connection, ALL, Wanted(), now=NOW)[0].n == before + 100


def test_a_site_without_results_is_told_as_such_and_pages_lose_none(told):
    with db.read(told) as connection:
        whole, further = by_site(connection, ALL, Wanted(), now=NOW)
        assert not further
        assert [(one.site.name, one.boxes, len(one.sums)) for one in whole] == [
            ("Casualty", 1, 1),
            ("Empty ward", 0, 0),
            ("Radiology", 2, 1),
        ]
        assert [one.in_evaluation for one in whole] == [1, 0, 0]
        seen, after = [], ""
        while True:
            page, after = by_site(connection, ALL, Wanted(), now=NOW, after=after, limit=1)
            seen += [one.site.id for one in page]
            if not after:
                break
        assert seen == [one.site.id for one in whole]


def test_versions_are_in_the_order_of_their_numbers():
    assert sorted(["1.9.0", "1.10.0", "2.0.0-rc1", "2.0.0"], key=newest_first)[-2:] == ["1.10.0", "1.9.0"]


def test_the_page_says_counts_too_few_and_evaluation(fleet, visit):
    with db.write(fleet) as connection:
        add_results(connection)
        add_results(connection, THEIRS, mode="evaluation", days=1, n=4, not_analysed={})
    text = visit("operator").get("/results").text
    for told in ("21 of 210", "10.0 % (6.6 to 14.8)", "42 of 252", "too few to say (n = 12)", "image quality: 42"):
        assert told in text, told
    assert "Evaluation, not for patient care" in text
    assert "Evaluation" not in visit("hospital").get("/results").text.partition('data-testid="all"')[2]
    for word in ("accura", "sensitivity", "normal", "negative", "healthy"):
        assert word not in text.partition("<body")[2].lower()


def test_the_file_has_a_row_for_each_finding_runs_nothing_and_stands_in_the_audit(fleet, visit):
    with db.write(fleet) as connection:
        add_results(connection)
        connection.execute(update(t.site).where(t.site.c.id == SITE).values(name="=cmd|'/c calc'!A1"))
    answer = visit("hospital").get("/results.csv?days=28&package=ich-ct")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["Finding"] for row in rows] == ["fracture", "hemorrhage"]
    assert {row["Site"] for row in rows} == {"'=cmd|'/c calc'!A1"}
    assert (rows[1]["Suspected"], rows[1]["Of those analysed"], rows[1]["Analyses"]) == ("60", "600", "720")
    assert rows[1]["From"] == f"{NOW - 27 * DAY:%Y-%m-%d}"
    with db.read(fleet) as connection:
        row = connection.execute(select(t.audit).where(t.audit.c.act == "results.export")).one()
    assert (row.actor, row.detail, row.tenant) == ("hospital", {"package": "ich-ct"}, HOSPITAL)
