"""A box without any network and its server, by files: the box's own store on one side, both databases on the other."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pytest
from click.testing import CliRunner
from fleet_jobs_kit import DIGEST, NAME, JobBox
from fleet_kit import HOSPITAL, NOW, FleetCa, PaperBox, add_box, add_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from appliance.clock import FakeClock
from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.desk import tuf_fetcher
from appliance.fleet.device.identity import Broker, Enrolment, Identity, Trust
from appliance.fleet.device.stick import Exporter, bring, ended_well
from appliance.fleet.device.stick_files import take_stick
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import approve_job, make_job, set_desired
from appliance.fleet.server.cli import main
from appliance.fleet.server.ingest import Ingest
from appliance.fleet.server.repository import TUF, Repository
from appliance.fleet.server.server_keys import ServerKeys, add_key
from appliance.fleet.server.stick_answer import write_answer
from appliance.fleet.server.sticks import take_file
from appliance.fleet.wire import Desired, JobArgs, Op, Window, WireError
from appliance.fleet.wire_stick import EXPORT_TYPE, Export, Letter, open_stick, seal, unseal
from appliance.store.facts.fleet import FleetTold
from engines.signing import generate, parse_strict

pytestmark = pytest.mark.req("R-FLEET-84")
POSTGRES_IS_LONG = True

EVERYTHING = registry.Scope.everything()
DEVICE = "box-00000001"
GAP = {"k": "gap", "skipped": "health", "first_seq": 1, "last_seq": 2, "n": 1}
TARGET = f"models/{NAME}/2.0.0.zip"


class StickBox(JobBox):
    """A box without a line, whose jobs install what a stick brought."""

    def make_fetcher(self):
        made = tuf_fetcher(self.config, self.store, self.clock, lambda: self.inbox)
        made.wait, made.free, made.stall_s = (lambda _: True), (lambda _: 100 * 1024**3), 0.1
        return made


class Village:
    """A server, a box far from any line, and who carries files between them."""

    def __init__(self, engine, folder, *, clk="rtc"):
        self.engine, self.folder = engine, folder
        self.clock = FakeClock(NOW)
        self.keys = ServerKeys.open(folder / "server" / "keys")
        self.release = generate("approver")
        self.key = DeviceKey.generate()
        folder.joinpath("ca").mkdir()
        ca = FleetCa(folder / "ca")
        with db.write(engine) as connection:
            add_tree(connection)
            add_box(connection, PaperBox(DEVICE, key=self.key), ca)
            add_key(connection, self.keys.online.public, "online", "server", now=NOW)
            add_key(connection, self.release.public, "release", "approver", now=NOW)
        issued = (folder / "ca" / f"{DEVICE}.crt").read_bytes()
        # Nobody listens there: whatever it gets, it gets by stick.
        enrolment = Enrolment(
            tenant=HOSPITAL, device=DEVICE, server_url="https://127.0.0.1:9", brokers=(Broker(host="localhost"),)
        )
        trust = Trust(online=(self.keys.online.public.pem(),), release=(self.release.public.pem(),))
        where = folder / "box" / "state" / "fleet"
        Identity.save(where, enrolment, trust, key=self.key, chain=issued, ca=ca.path.read_bytes())
        self.box = StickBox(folder / "box", clock=self.clock, clk=clk)
        self.files = 0

    # At the box

    def tell(self, n=1):
        with self.box.store.db.write() as tx:
            for _ in range(n):
                tx.journal(FleetTold(record=GAP))

    def write(self, **more):
        """``scanside fleet export``."""
        self.files += 1
        path = self.folder / f"{self.files}.json"
        contents = Contents(self.box.store, self.box.config, self.clock, quality=lambda _: self.box.clk)
        Exporter(self.box.store, contents, self.box.inbox).write(path, **more)
        return path.read_bytes()

    def read(self, answer):
        """``scanside fleet import``."""
        with open_stick(answer) as stick:
            take_stick(self.box.folder, stick, lambda _: 100 * 1024**3)
            found = bring(stick.envelopes(), self.box.store, self.box.inbox)
        self.box.run()
        return found

    @property
    def cursor(self):
        return self.box.store.fleet.place().cursor

    # At the server

    def take(self, data, **more):
        return take_file(self.engine, self.keys, data, now=self.clock.now(), **more)

    def answer(self, data, repository=None, **more):
        path = self.folder / "answer.zip"
        taken = self.take(data, **more)
        write_answer(path, taken, repository)
        return path

    def make(self, op=Op.PING, args=None, **more):
        with db.write(self.engine) as connection:
            return make_job(connection, self.keys, EVERYTHING, DEVICE, op, args, now=self.clock.now(), **more)

    def approve(self, job):
        with db.write(self.engine) as connection:
            return approve_job(
                connection, self.keys, EVERYTHING, job.id, self.release, now=self.clock.now(), actor="test"
            )

    def rows(self, table, **where):
        with db.read(self.engine) as connection:
            asked = select(table).where(*(table.c[name] == value for name, value in where.items()))
            return connection.execute(asked.order_by(*table.primary_key)).all()

    def seqs(self):
        return [row.seq for row in self.rows(t.record)]

    def job(self, made):
        (row,) = self.rows(t.job, id=made.id)
        return row.state


@pytest.fixture
def village(engine, tmp_path):
    made = Village(engine, tmp_path)
    yield made
    made.box.close()


@pytest.fixture
def timeless(engine, tmp_path):
    made = Village(engine, tmp_path, clk="none")
    yield made
    made.box.close()


def told_of(box):
    """Rows of the box's journal that leave it."""
    contents = Contents(box.store, box.config, box.clock, quality=lambda _: box.clk)
    return [fact.seq for fact in box.store.journal.after(0, 100_000) if contents.record(fact) is not None]


# There and back ------------------------------------------------------------------------------------------------------


def test_a_box_and_its_server_tell_each_other_everything_by_two_files(village):
    village.tell(250)
    job = village.make(Op.SELF_TEST)
    with db.write(village.engine) as connection:
        set_desired(connection, village.keys, EVERYTHING, DEVICE, Desired(health_every_s=30), now=NOW)
    data = village.write()
    taken = village.take(data)
    assert village.seqs() == told_of(village.box)
    assert (taken.records, taken.again, taken.acknowledged, taken.jobs, taken.has_document) == (
        len(village.seqs()),
        0,
        3,
        (job.id,),
        True,
    )
    assert not taken.refused
    (health,), (status,) = village.rows(t.health_now), village.rows(t.status)
    assert (health.mode, status.online, status.clk, bool(status.agent)) == ("evaluation", False, "rtc", True)
    last = told_of(village.box)[-1]
    found = village.read(village.answer(data))
    assert [(one.kind, one.result) for one in found] == [("ack", "TAKEN"), ("twin", "APPLIED"), ("job", "ACCEPTED")]
    assert village.cursor == last
    assert village.box.acts.calls == ["self_test"]
    assert village.box.inbox.desired().health_every_s == 30
    # What became of it comes with the next file.
    village.take(village.write())
    (twin,) = village.rows(t.twin)
    assert (village.job(job), twin.applied_dv) == ("SUCCEEDED", 1)
    assert village.seqs() == told_of(village.box)


def test_a_model_comes_by_stick_with_what_proves_it_and_serves(village, tmp_path):
    repository = Repository(tmp_path / "server" / TUF)
    trust = Trust(online=(village.keys.online.public.pem(),), release=(village.release.public.pem(),))
    present = dt.datetime.now(dt.timezone.utc)  # python-tuf has no other clock
    repository.create(trust, [village.release], village.keys.online, present)
    source = tmp_path / "package.zip"
    source.write_text(DIGEST["2.0.0"])
    custom = {"package": NAME, "version": "2.0.0", "digest": DIGEST["2.0.0"], "min_agent": "", "markets": []}
    repository.publish([village.release], village.keys.online, present, add=[repository.put(source, TARGET, custom)])
    args = JobArgs(package=NAME, version="2.0.0", digest=DIGEST["2.0.0"], target=TARGET, role="silent", soak_h=0)
    job = village.make(Op.MODEL_INSTALL, args)
    with db.write(village.engine) as connection:
        always = Desired(window=Window(begin="00:00", end="00:00"))
        set_desired(connection, village.keys, EVERYTHING, DEVICE, always, now=NOW)
    data = village.write()
    assert village.take(data).jobs == ()  # nobody with a release key has signed
    assert village.approve(job)
    taken = village.take(data)
    assert (taken.jobs, taken.targets) == ((job.id,), (TARGET,))
    found = village.read(village.answer(data, repository))
    assert [(one.kind, one.result) for one in found if one.kind == "job"] == [("job", "ACCEPTED")]
    assert village.box.packages() == {"2.0.0": "silent"}
    row = village.box.store.fleet_jobs.get(job.id)
    assert row.state in {"SOAKING", "SUCCEEDED"}, row.code
    village.take(village.write())
    assert village.job(job) == row.state


def test_without_the_models_the_answer_says_which_are_missing_and_a_target_that_is_gone_is_told(village, tmp_path):
    repository = Repository(tmp_path / "server" / TUF)
    args = JobArgs(package=NAME, version="2.0.0", digest=DIGEST["2.0.0"], target=TARGET)
    village.approve(village.make(Op.MODEL_INSTALL, args))
    data = village.write()
    with pytest.raises(NotFoundError, match="no repository of models"):
        village.answer(data, repository)
    trust = Trust(online=(village.keys.online.public.pem(),), release=(village.release.public.pem(),))
    repository.create(trust, [village.release], village.keys.online, NOW)
    with pytest.raises(NotFoundError, match=f"{TARGET}, which no box may fetch"):
        village.answer(data, repository)
    assert village.take(data).targets == (TARGET,)


def test_keys_that_changed_come_by_stick(village, tmp_path):
    repository = Repository(tmp_path / "server" / TUF)
    other = generate("other")
    before = Trust(online=(village.keys.online.public.pem(),), release=(village.release.public.pem(),))
    after = Trust(online=before.online, release=(other.public.pem(),))
    present = dt.datetime.now(dt.timezone.utc)
    repository.create(before, [village.release], village.keys.online, present)
    repository.publish([village.release, other], village.keys.online, present, trust=after)
    village.approve(village.make(Op.ROOT_UPDATE))
    data = village.write()
    assert village.take(data).targets == ("trust.json",), "with the job alone it would wait for a server for ever"
    village.read(village.answer(data, repository))
    assert village.box.inbox.identity.trust == after


def test_the_command_takes_a_file_and_writes_the_answer_beside_it(village, engine, tmp_path):
    village.clock.advance((dt.datetime.now(dt.timezone.utc) - NOW).total_seconds())  # the command's
    village.tell(2)
    village.make(Op.SELF_TEST)
    config = tmp_path / "fleet.yaml"
    url = engine.url.render_as_string(hide_password=False)
    config.write_text(f"folder: {tmp_path / 'server'}\ndatabase: {url}\n")
    file = tmp_path / "box.json"
    file.write_bytes(village.write())

    def call(*words):
        return CliRunner().invoke(main, ["stick", "take", *map(str, words), "--config", str(config)])

    told = json.loads(call(file, "--json").stdout)
    assert (told["records"], len(told["jobs"]), told["acknowledged"]) == (len(told_of(village.box)), 1, 1)
    assert told["answer"] == f"{file}.answer.zip"
    done = call(file, "--out", tmp_path / "again.zip")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'again.zip'}\n"), done.output
    assert f"0 new records, {told['records']} that were here" in done.stderr
    assert ended_well(village.read(tmp_path / "again.zip"))
    assert village.box.acts.calls == ["self_test"]
    assert call(file, "--models").exit_code == 4  # nobody made a repository
    assert call(tmp_path / "none.json").exit_code == 78
    file.write_bytes(b"{}")
    assert "no export of a box" in call(file).output


# A box that cannot tell the time -------------------------------------------------------------------------------------


def test_a_box_that_cannot_tell_the_time_is_answered_with_the_nonce_of_its_file(timeless):
    harmless, earlier = timeless.make(Op.PING), timeless.make(Op.SELF_TEST)
    assert earlier.nonce == ""  # nobody had heard of the box
    data = timeless.write()
    found = timeless.read(timeless.answer(data))
    assert (
        sorted((one.kind, one.result, one.code) for one in found if one.kind == "job") == [("job", "ACCEPTED", "")] * 2
    )
    timeless.take(timeless.write())
    assert (timeless.job(harmless), timeless.job(earlier)) == ("SUCCEEDED", "SUCCEEDED")
    later = timeless.make(Op.SELF_TEST)
    assert later.nonce == timeless.box.inbox.nonce()  # known from the file


def test_what_a_release_key_signed_without_the_nonce_is_signed_again_and_goes_then(timeless):
    args = JobArgs(package=NAME, version="1.0.0")
    job = timeless.make(Op.MODEL_WITHDRAW, args)
    timeless.approve(job)
    data = timeless.write()
    assert timeless.take(data).jobs == ()
    assert timeless.approve(job)
    found = timeless.read(timeless.answer(data))
    assert [(one.result, one.code) for one in found if one.kind == "job"] == [("ACCEPTED", "")]


# What gets lost ------------------------------------------------------------------------------------------------------


def test_an_answer_that_was_lost_is_written_again_from_the_same_file_and_nothing_is_done_twice(village):
    village.tell(3)
    job = village.make(Op.SELF_TEST)
    data = village.write()
    first = village.take(data)
    again = village.take(data)
    assert (again.records, again.again, again.jobs) == (0, first.records, first.jobs)
    for _ in range(2):
        village.read(village.answer(data))
    assert village.box.acts.calls == ["self_test"]
    assert village.seqs() == told_of(village.box)[: first.records]
    (row,) = village.rows(t.job)
    assert (row.id, row.ctr) == (job.id, job.ctr)


@settings(
    max_examples=settings.default.max_examples // 8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    trips=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans()), max_size=6)
)
def test_whichever_file_is_lost_or_late_all_is_told_once_and_done_once(trips, sqlite_template, tmp_path):
    root = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    root.mkdir()
    (root / "fleet.db").write_bytes(sqlite_template.read_bytes())
    engine = db.open_engine(f"sqlite:///{root / 'fleet.db'}")
    village = Village(engine, root)
    held, made = [], 0
    for n, asks, arrives, comes_back, everything in trips:
        village.tell(n)
        if asks:
            village.make(Op.SELF_TEST)
            made += 1
        data = village.write(everything=everything)
        if not arrives:
            held.append(data)  # found in a drawer, perhaps
            continue
        answer = village.answer(data)
        if comes_back:
            village.read(answer)
        while held:
            try:
                village.take(held.pop())
            except ConflictError as error:
                assert "a newer file" in str(error)  # noqa: PT017 - one of two good ends
    for _ in range(3):
        village.read(village.answer(village.write(everything=True)))
    assert village.seqs() == told_of(village.box)
    assert village.box.acts.calls == ["self_test"] * made
    assert {row.state for row in village.rows(t.job)} <= {"SUCCEEDED"}
    assert village.cursor >= told_of(village.box)[-1] if told_of(village.box) else True
    village.box.close()
    engine.dispose()


def test_a_server_restored_from_before_asks_for_what_it_lacks_and_counts_on_above_the_box(village):
    village.tell(3)
    village.make()
    village.read(village.answer(village.write()))
    village.tell(2)
    village.read(village.answer(village.write()))
    with db.write(village.engine) as connection:  # as it was before all that
        for table in (t.record, t.job, t.device_counter):
            connection.execute(table.delete())
        connection.execute(update(t.stream).values(top=0, cursor=0, floor=0, stick=0))
    village.tell(1)
    job = village.make()
    assert job.ctr == 1
    village.read(village.answer(village.write()))
    assert len(village.seqs()) < len(told_of(village.box))
    for _ in range(2):
        village.read(village.answer(village.write()))
    assert village.seqs() == told_of(village.box)
    (row,) = village.rows(t.job, id=job.id)
    assert (row.state, row.ctr > 1) == ("SUCCEEDED", True)


# What is not taken ---------------------------------------------------------------------------------------------------


def test_an_older_file_brings_its_records_and_turns_nothing_back(village):
    village.tell(2)
    first = village.write()
    with db.write(village.engine) as connection:
        set_desired(connection, village.keys, EVERYTHING, DEVICE, Desired(held=True), now=NOW)
    village.clock.advance(3600)
    village.tell(2)
    second = village.write()
    newer = village.take(second)

    def stands():
        (status,) = village.rows(t.status)
        return village.rows(t.health_now), status[:-2], village.rows(t.twin), village.rows(t.stream)[0].cursor

    before = stands()
    village.clock.advance(3600)
    older = village.take(first)
    assert (older.is_older, older.jobs, older.has_document) == (True, (), False)
    assert newer.records + older.records == len(told_of(village.box))
    assert stands() == before
    # Played again it brings nothing at all.
    with pytest.raises(ConflictError, match="a newer file"):
        village.take(first)
    assert village.take(second).again == newer.records


def test_a_file_of_a_database_that_the_box_no_longer_has_is_an_older_one(village):
    village.tell(2)
    data = village.write()
    village.take(data)
    box = PaperBox(DEVICE, stream="01ARZ3NDEKTSV4RRFFQ69G5FAV", sess=9, key=village.key)
    with db.write(village.engine) as connection:
        Ingest().apply(connection, [box.birth(), box.get()], NOW)
    with pytest.raises(ConflictError, match="a newer file"):
        village.take(data)
    (status,) = village.rows(t.status)
    assert (status.stream, status.online) == (box.stream, True)


def test_of_a_box_that_is_on_the_line_the_file_does_not_say_that_it_is_not(village):
    village.tell(2)
    box = PaperBox(DEVICE, stream=village.box.store.db.stream, sess=3, key=village.key)
    with db.write(village.engine) as connection:
        Ingest().apply(connection, [box.birth(), box.health(backlog_s=5)], NOW)
    assert village.take(village.write()).records == len(told_of(village.box)) > 2
    (status,), (health,) = village.rows(t.status), village.rows(t.health_now)
    assert (status.online, status.sess, health.backlog_s) == (True, 3, 5)


def forgeries(village, data):
    """Name, file, error, words."""
    envelope = json.loads(data)
    payload = base64.b64decode(envelope["payload"])
    export = Export.model_validate(parse_strict(payload))

    def signed(key=village.key, **changes):
        return seal(export.model_copy(update=changes), key)

    stranger = DeviceKey.generate()
    other = PaperBox("box-00000002", key=stranger)
    foreign = other.health()
    letter = Letter(
        topic=foreign.topic, properties=dict(foreign.properties), payload=base64.b64encode(foreign.payload).decode()
    )
    yield "no file of ours", b"{}", WireError, "no export of a box"
    yield "no JSON", data[:-50], WireError, "damaged"
    changed = {**envelope, "payload": base64.b64encode(payload.replace(b'"clk":"rtc"', b'"clk":"ntp"')).decode()}
    yield "changed", json.dumps(changed).encode(), WireError, "not signed by this device"
    yield "a stranger's key", signed(stranger), WireError, "not signed by this device"
    yield "of a box that is not here", signed(device="box-99999999"), NotFoundError, "no device"
    yield "another box's name", signed(device=other.device), WireError, "not signed by this device"
    yield "another tenant", signed(tenant="hospital-02"), ConflictError, "another tenant"
    yield "letters of another box", signed(letters=(*export.letters, letter)), WireError, "letter of another box"
    yield "nothing of what it has", signed(letters=export.letters[2:]), WireError, "does not say what the box has"
    yield "another type", data.replace(EXPORT_TYPE.encode(), b"application/x"), WireError, "no export"


def test_somebody_elses_a_changed_and_a_foreign_file_are_refused_whole(village, ca, engine):
    other = PaperBox("box-00000002")
    with db.write(engine) as connection:
        add_box(connection, other, ca)
    village.tell(3)
    data = village.write()
    for what, forged, error, words in forgeries(village, data):
        with pytest.raises(error, match=words):
            village.take(forged)
        assert village.rows(t.record) == village.rows(t.status) == [], what
    assert [row.act for row in village.rows(t.audit)] == []
    assert village.take(data).records == len(told_of(village.box)) > 3


def test_a_letter_that_was_signed_by_nobody_is_refused_though_the_file_is_the_boxs(village):
    village.tell(1)
    export = unseal(village.write(), village.key._key.public_key())
    bare = tuple(
        one.model_copy(update={"properties": {k: v for k, v in one.properties.items() if k != "sig"}})
        for one in export.letters
    )
    taken = village.take(seal(export.model_copy(update={"letters": bare}), village.key))
    assert {str(reason): n for reason, n in taken.refused.items()} == {"signature": 2}
    assert (taken.records, taken.acknowledged) == (0, 0)


def test_a_box_that_is_heard_no_more_and_one_of_another_tenant_is_refused(village, engine):
    data = village.write()
    with db.write(engine) as connection:
        registry.add_tenant(connection, "hospital-02", "x", registry.TenantKind.HOSPITAL, parent="dealer-001", now=NOW)
        other = registry.Scope.of(connection, "hospital-02")
    with pytest.raises(NotFoundError, match="no device"):
        village.take(data, scope=other)
    with db.write(engine) as connection:
        registry.disable_device(connection, EVERYTHING, DEVICE, now=NOW)
    with pytest.raises(ConflictError, match="disabled"):
        village.take(data)
    with db.write(engine) as connection:
        registry.enable_device(connection, EVERYTHING, DEVICE)
        registry.revoke_certificates(connection, DEVICE, now=NOW)
    with pytest.raises(WireError, match="no certificate"):
        village.take(data)


def test_an_envelope_of_another_box_does_nothing_at_this_one(village):
    village.make(Op.SELF_TEST)
    data = village.write()
    answer = village.answer(data)
    with open_stick(answer) as stick:
        found = bring(stick.envelopes(), village.box.store, village.box.inbox)
    assert ended_well(found)
