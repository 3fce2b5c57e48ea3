"""What is too old goes, a bounded part at a time, and is neither asked for again nor counted twice."""

from __future__ import annotations

import datetime as dt

import pytest
from fleet_kit import NOW, PaperBox, add_box, add_tree, ulid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from appliance.fleet.server import db, prune, query, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.acks import AckDesk
from appliance.fleet.server.config import KeepConfig
from appliance.fleet.server.ingest import Ingest
from appliance.fleet.server.prune import Pruner, fold
from appliance.fleet.wire import ACK_TYPE, Ack
from appliance.fleet.wire_records import HealthRollup, Machine, ResultsHour
from engines.signing import generate, verify

pytestmark = pytest.mark.req("R-FLEET-85")

DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
EVERYTHING = registry.Scope.everything()


class Archive:
    """A server of which time passes."""

    def __init__(self, engine, folder, **keep):
        self.engine, self.folder, self.now = engine, folder, NOW
        self.keep = KeepConfig(**keep)
        self.key = generate("online")
        self.desk = AckDesk([self.key])
        self.mono = 0.0

    def take(self, *uplinks):
        with db.write(self.engine) as connection:
            outcome = Ingest().apply(connection, uplinks, self.now)
        assert not outcome.refused
        self.desk.add(outcome)
        return outcome

    def told(self):
        """Acknowledgements as the box reads them."""
        self.mono += 10
        due = self.desk.due(self.mono, self.now)
        return [Ack.unpack(verify(one.payload, ACK_TYPE, [self.key.public]).payload) for one in due]

    def prune(self, days=0):
        """A whole round, ``days`` later; returns its steps."""
        self.now += days * DAY
        pruner = Pruner(self.engine, self.keep, self.folder)
        steps = 1
        while pruner.step(self.now):
            steps += 1
            assert steps < 1000
        return steps

    def rows(self, table, *columns):
        with db.read(self.engine) as connection:
            asked = select(*columns) if columns else select(table)
            return connection.execute(asked.order_by(*table.primary_key)).all()

    def seqs(self):
        return [row.seq for row in self.rows(t.record)]


@pytest.fixture
def archive(engine, tmp_path):
    return Archive(engine, tmp_path)


def resend(outcome):
    return [owed.resend_after for owed in outcome.owed.values()]


def health(box, minutes, **machine):
    told = HealthRollup(minutes=5, machine=Machine(**machine), studies=2, oldest_owed_s=minutes)
    return box.record(told, at=NOW + minutes * MINUTE)


# Records -------------------------------------------------------------------------------------------------------------


def test_records_go_after_their_time_and_what_says_how_something_is_now_stays(archive, box):
    told = ResultsHour(package="chest", version="1.0", role="live", hour="2026-03-02T08Z", n=3)
    archive.take(box.birth(), box.batch(box.record(), box.record(told))[0])
    archive.take(box.get(seq=2))
    archive.take(box.get(seq=2))  # what it said to be acknowledged before is here for sure
    archive.prune(60)
    archive.take(box.batch(box.record())[0])
    archive.prune(31)
    assert archive.seqs() == [3]
    assert [(row.top, row.pruned) for row in archive.rows(t.stream)] == [(3, 2)]
    assert [row.n for row in archive.rows(t.results_hour)] == [3]
    assert [row.act for row in archive.rows(t.audit)] == []


def test_what_is_sent_again_of_what_is_gone_is_acknowledged_and_makes_no_hole(archive, box):
    old = [box.batch(box.record(), health(box, 0))[0] for _ in range(3)]
    archive.take(*old)
    archive.take(box.get(seq=6), box.get(seq=6))
    archive.told()
    archive.prune(100)
    assert archive.seqs() == []
    points = archive.rows(t.health_hour)
    outcome = archive.take(*old)  # a job re-send, or a box that was put back to an older disk
    assert (resend(outcome), outcome.records, outcome.again) == ([None], 0, 6)
    (ack,) = archive.told()
    assert (len(ack.b), ack.resend_after) == (3, None)
    assert archive.seqs() == []
    assert archive.rows(t.health_hour) == points
    assert archive.rows(t.health_point) == []
    outcome = archive.take(box.get(seq=2))
    assert resend(outcome) == [None]
    new, _ = box.batch()
    assert resend(archive.take(new)) == [None]
    assert archive.seqs() == [7]


def test_a_server_restored_from_before_the_pruning_asks_for_what_it_lacks_alone(archive, box, engine):
    for _ in range(3):
        archive.take(box.batch(box.record(), box.record())[0])
    archive.take(box.get(seq=6), box.get(seq=6))
    archive.prune(100)
    archive.take(box.get(seq=2), box.get(seq=2))  # said long ago, and held up by a broker
    # As it was before rows 7 to 9 came.
    later = [box.batch()[0] for _ in range(3)]
    box.sess += 1
    assert resend(archive.take(box.get(seq=9))) == [6]
    outcome = archive.take(later[2])
    assert resend(outcome) == [6]  # not from where nothing is kept
    assert archive.take(*later).records == 2


def test_of_a_box_that_speaks_nothing_goes_up_to_which_something_may_still_come(archive, box):
    (first, _), (second, _), (third, _) = box.batch(), box.batch(), box.batch()
    archive.take(first, third)
    archive.take(box.get(seq=1), box.get(seq=1))
    archive.prune(100)
    assert archive.seqs() == [3]  # the second may be on its way, below a row that is here
    outcome = archive.take(second)
    assert (outcome.records, archive.seqs()) == (1, [2, 3])
    archive.take(box.get(seq=3), box.get(seq=3))
    archive.prune(100)
    assert archive.seqs() == []


def test_of_a_database_that_a_box_no_longer_has_and_of_a_replaced_box_all_goes(archive, box, engine, ca):
    archive.take(box.batch()[0])
    box.stream, box.sess, box.seq = ulid(2), 2, 0
    archive.take(box.birth(), box.batch()[0])
    archive.prune(100)
    assert [(row.stream, row.seq) for row in archive.rows(t.record)] == [(ulid(2), 1)]
    other = PaperBox("box-0000002")
    with db.write(engine) as connection:
        add_box(connection, other, ca)
        registry.replace_device(connection, EVERYTHING, box.device, other.device, now=NOW)
    archive.prune()
    assert archive.rows(t.record) == []


@settings(
    max_examples=settings.default.max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    acts=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 11)),
            st.tuples(st.just("get"), st.none()),
            st.tuples(st.just("prune"), st.sampled_from([0, 30, 91])),
        ),
        max_size=25,
    )
)
def test_whatever_comes_when_each_row_is_kept_the_first_time_and_never_asked_for(acts, sqlite_template, tmp_path, ca):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    path.write_bytes(sqlite_template.read_bytes())
    engine = db.open_engine(f"sqlite:///{path}")
    box = PaperBox("box-0000001")
    with db.write(engine) as connection:
        add_tree(connection)
        add_box(connection, box, ca)
    archive = Archive(engine, tmp_path)
    batches = [box.batch(box.record(), health(box, 5 * n))[0] for n in range(12)]
    acked = set()
    for what, which in [("send", 0), *acts, *(("send", n) for n in range(12))]:
        if what == "send":
            outcome = archive.take(batches[which])
            assert outcome.records == (0 if which in acked else 2)
            assert resend(outcome) == [None]
            acked.add(which)
        elif what == "get":
            # The cursor of a box moves over what was acknowledged without a hole.
            done = next((n for n in range(12) if n not in acked), 12)
            assert resend(archive.take(box.get(seq=2 * done))) == [None]
        else:
            archive.prune(which)
    with db.read(engine) as connection:
        points = connection.execute(select(func.count()).select_from(t.health_point)).scalar_one()
        folded = connection.execute(select(func.coalesce(func.sum(t.health_hour.c.n), 0))).scalar_one()
    assert points + folded == 12
    engine.dispose()


# Health --------------------------------------------------------------------------------------------------------------


def test_points_of_an_hour_become_their_mean_and_plots_go_on(archive, box, engine):
    # NOW is half past nine.
    records = [health(box, 5 * n, cpu=n, temperature_c=40 + n) for n in range(12)]
    archive.now += HOUR
    archive.take(box.batch(*records)[0])
    archive.prune(13)
    assert len(archive.rows(t.health_point)) == 12
    archive.prune(2)
    assert archive.rows(t.health_point) == []
    first, second = archive.rows(t.health_hour)
    assert (first.n, first.hour) == (6, NOW - 30 * MINUTE)
    assert first.body["machine"] == {"cpu": 2.5, "temperature_c": 45}  # a mean, and the highest
    assert (first.body["minutes"], first.body["studies"], first.body["oldest_owed_s"]) == (30, 12, 25)
    assert second.body["machine"]["cpu"] == 8.5
    archive.take(box.batch(health(box, 15 * 24 * 60, cpu=1))[0])
    with db.read(engine) as connection:
        drawn = query.points(connection, EVERYTHING, box.device, since=NOW - DAY, until=NOW + 20 * DAY)
    assert [(row.at - NOW, row.body["machine"]["cpu"]) for row in drawn] == [
        (0 * MINUTE, 2.5),
        (60 * MINUTE, 8.5),
        (15 * DAY, 1),
    ]


def test_a_point_that_comes_late_joins_its_hour_once(archive, box):
    early, late = health(box, 0, cpu=10), health(box, 5, cpu=40)
    (sent, _), (held, _) = box.batch(early), box.batch(late)
    archive.take(sent)
    archive.prune(20)
    for _ in range(2):
        archive.take(held, sent)
        archive.prune()
    (row,) = archive.rows(t.health_hour)
    assert (row.n, row.body["machine"]["cpu"]) == (2, 25)


def test_a_mean_is_of_those_that_have_the_figure_and_states_are_never_averaged():
    mean = {}
    for n, body in enumerate([{"machine": {"cpu": 10}}, {"machine": {"throttled": False}}, {"ms": {"p95": 4.0}}]):
        mean = fold(mean, n, body)
    assert mean == {"machine": {"cpu": 10, "throttled": False}, "ms": {"p95": 4.0}}
    assert fold(mean, 3, {"machine": {"throttled": True}})["machine"]["throttled"] is True


# The rest ------------------------------------------------------------------------------------------------------------


def test_results_means_refusals_and_sessions_go_after_their_own_time_and_the_audit_never(archive, box, engine):
    told = {"package": "chest", "version": "1.0", "role": "live", "n": 1}
    batch, _ = box.batch(box.record(ResultsHour(hour="2026-03-02T08Z", **told)), health(box, 0, cpu=1))
    archive.take(batch)
    with db.write(engine) as connection:
        Ingest().apply(connection, [box.raw("up/rec", b"{}")], NOW)
        account = {"name": "ada", "full_name": "Ada", "must_change": False, "is_active": True, "made_at": NOW}
        connection.execute(insert(t.account).values(**account))
        times = {"made_at": NOW, "seen_at": NOW, "proved_at": NOW}
        connection.execute(insert(t.session).values(digest="0" * 64, account=1, **times))
        registry.write_audit(connection, act="test", subject="x", actor="test", now=NOW)
    counted = []
    for days in (0, 2, 90, 640, 70):
        archive.prune(days)
        tables = (t.session, t.refusal, t.health_hour, t.results_hour, t.audit)
        counted.append(tuple(len(archive.rows(table)) for table in tables))
    assert counted == [(1, 1, 0, 1, 1), (0, 1, 0, 1, 1), (0, 0, 1, 1, 1), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1)]


def test_a_round_is_cut_into_parts_each_of_which_is_bounded(archive, box, engine, ca, monkeypatch):
    monkeypatch.setattr(prune, "_ROWS", 10)
    monkeypatch.setattr(prune, "_BOXES", 2)
    boxes = [box, *(PaperBox(f"box-000001{n}") for n in range(5))]
    with db.write(engine) as connection:
        for one in boxes[1:]:
            add_box(connection, one, ca)
    for one in boxes:
        archive.take(one.batch(*(one.record() for _ in range(25)))[0])
        archive.take(one.get(seq=25), one.get(seq=25))
    gone, calls = [], prune.prune_records
    monkeypatch.setattr(prune, "prune_records", lambda *a, **k: gone.append(calls(*a, **k)) or gone[-1])
    steps = archive.prune(100)
    assert archive.rows(t.record) == []
    assert max(gone) <= 10
    assert sum(gone) == 25 * 6
    assert steps > 6 * 2  # each box took more than one
    assert len(archive.rows(t.stream)) == 6
