"""A fleet of paper for roll-outs: boxes that are rows, people, keys, and a clock that tests turn."""

from __future__ import annotations

import datetime as dt

from fleet_kit import HOSPITAL, NOW, PLATFORM, VENDOR, add_tree
from sqlalchemy import insert, select, update

from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import acts, holds, query
from appliance.fleet.server.rollout.drive import Driver
from appliance.fleet.server.rollout.plan import Chosen, Gates, Plan
from appliance.fleet.server.server_keys import ServerKeys, add_key
from appliance.fleet.wire import JOB_TYPE, Job
from engines.signing import generate, verify

MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
EVERYTHING = Scope.everything()
PACKAGE, OLD, NEW = "ich-ct", "1.0.0", "2.0.0"
DIGEST = {OLD: "aa" * 32, NEW: "bb" * 32}
RELEASE, RELEASE_2, STRANGER = (generate(name) for name in ("release", "release-2", "stranger"))
#: By name, where they are service.
PEOPLE = {"maker": PLATFORM, "checker": PLATFORM, "vendor": VENDOR, "vendor-2": VENDOR, "visitor": None}
#: Nothing but the ends of boxes counts: what results say has tests of its own.
BARE = Gates(min_ended=1, failed_from=1)


class PaperFleet:
    """``boxes`` boxes at sites of two, the old version in service."""

    def __init__(self, engine, folder, boxes=12, *, threshold=1):
        self.engine, self.now, self.threshold = engine, NOW, threshold
        self.keys = ServerKeys.open(folder / "keys")
        self.driver = Driver(self.keys, threshold, look_s=0)
        self.devices = [f"box-{n:07}" for n in range(1, boxes + 1)]
        self.accounts = {name: number for number, name in enumerate(PEOPLE, 1)}
        with write(engine) as connection:
            if connection.execute(select(t.tenant.c.id)).first():
                return  # a copy of one that was made before
            add_tree(connection)
            add_key(connection, self.keys.online.public, "online", "server", now=NOW)
            for key in (RELEASE, RELEASE_2):
                add_key(connection, key.public, "release", key.name, now=NOW)
            for number, (name, tenant) in enumerate(PEOPLE.items(), 1):
                row = {"number": number, "name": name, "full_name": name, "must_change": False, "is_active": True}
                connection.execute(insert(t.account).values(**row, made_at=NOW))
                if tenant:
                    connection.execute(insert(t.account_role).values(account=number, tenant=tenant, role="service"))
            for n, device in enumerate(self.devices):
                self.add_box(connection, device, f"site-1{n // 2:03}")

    def add_box(self, connection, device, site, tenant=HOSPITAL, *, serves=OLD):
        """One that is online, with a CT beside it."""
        if not connection.execute(select(t.site.c.id).where(t.site.c.id == site)).first():
            registry.add_site(connection, site, tenant, site, now=NOW)
        registry.add_device(connection, device, site, f"SN-{device}", now=NOW)
        self.put_online(connection, device)
        gear = {"device": device, "source": 1, "modality": "CT", "make": "Acme", "model": "One", "kernels": []}
        connection.execute(insert(t.equipment).values(**gear, at=NOW, stream=1, seq=1))
        if serves:
            self.serves(connection, device, serves)

    def put_online(self, connection, device, *, online=True):
        row = {"online": online, "sess": 1, "since_at": NOW, "last_seen_at": NOW, "due_at": NOW + 365 * DAY}
        if not connection.execute(update(t.status).where(t.status.c.device == device).values(online=online)).rowcount:
            connection.execute(insert(t.status).values(device=device, clk="ntp", **row))

    def serves(self, connection, device, version, role="live"):
        row = {"device": device, "package": PACKAGE, "version": version, "digest": DIGEST[version], "serves": True}
        connection.execute(insert(t.package_state).values(**row, role=role, points={}, stream=1, seq=1))

    # People ----------------------------------------------------------------------------------------------------

    def make(self, *, who="maker", tenant=VENDOR, chosen=None, gates=BARE, scope=EVERYTHING, role="live", **plan):
        with write(self.engine) as connection:
            return acts.make(
                connection,
                scope,
                tenant=tenant,
                package=PACKAGE,
                version=NEW,
                digest=DIGEST[NEW],
                target=f"models/{PACKAGE}/{NEW}.zip",
                role=role,
                chosen=chosen or Chosen(canaries=2),
                plan=Plan(gates=gates, **plan),
                account=self.accounts[who],
                actor=who,
                now=self.now,
            )

    def act(self, name, ident, *, who="maker", scope=EVERYTHING, **more):
        """Any of ``acts`` by its name."""
        if name in {"pause", "resume", "abort", "revert"}:
            more.setdefault("why", "because")
        if name in {"approve", "put_grant"}:
            more.setdefault("threshold", self.threshold)
        first = (self.keys, scope) if name == "resume" else (scope,)
        account = self.accounts[who]
        with write(self.engine) as connection:
            return getattr(acts, name)(
                connection, *first, ident, *more.pop("given", ()), account=account, actor=who, now=self.now, **more
            )

    def ready(self, **more):
        """Made, submitted and approved."""
        ident = self.make(**more)
        self.act("submit", ident)
        self.act("approve", ident, who="checker", release=RELEASE)
        return ident

    def running(self, **more):
        ident = self.ready(**more)
        self.act("start", ident)
        return ident

    def hold(self, kind, subject, **more):
        with write(self.engine) as connection:
            return holds.add_hold(
                connection, self.keys, EVERYTHING, kind, subject, why="freeze", actor="t", now=self.now, **more
            )

    def lift(self, number, scope=EVERYTHING):
        with write(self.engine) as connection:
            holds.lift_hold(connection, self.keys, scope, number, why="over", actor="t", now=self.now)

    # The server ------------------------------------------------------------------------------------------------

    def step(self, later=dt.timedelta(seconds=2)):
        """One step of the driver, a moment later."""
        self.now += later
        with write(self.engine) as connection:
            return self.driver.step(connection, self.now)

    def settle(self, steps=20):
        """Step until nothing changes."""
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError("the roll-out does not come to rest")

    def page(self, ident, scope=EVERYTHING):
        with read(self.engine) as connection:
            return query.get_roll_out(connection, scope, ident, self.now)

    def row(self, ident):
        return self.page(ident).row

    def state(self, ident):
        row = self.row(ident)
        return (str(row.state), row.paused_why) if row.paused_why else str(row.state)

    def boxes(self, ident, **more):
        with read(self.engine) as connection:
            return query.list_boxes(connection, EVERYTHING, ident, self.now, most=10_000, **more)

    def words(self, ident, wave=None):
        """device: word."""
        return {one.device: str(one.word) for one in self.boxes(ident, wave=wave)}

    def verdicts(self, ident):
        """gate: word, of the wave that runs."""
        page = self.page(ident)
        return {str(one.gate): one.word for one in page.waves[page.row.wave - 1].verdicts}

    def jobs(self, ident=None, op=None):
        with read(self.engine) as connection:
            rows = connection.execute(select(t.job).order_by(t.job.c.made_at, t.job.c.ctr)).all()
        return [one for one in rows if ident in (None, one.roll_out) and op in (None, one.op)]

    def opened(self, row):
        """What stands in a job's envelope."""
        return Job.unpack(verify(row.envelope, JOB_TYPE, [self.keys.online.public]).payload)

    def audit(self, act=None):
        with read(self.engine) as connection:
            rows = connection.execute(select(t.audit).order_by(t.audit.c.number)).all()
        return [one for one in rows if act in (None, one.act)]

    # Boxes -----------------------------------------------------------------------------------------------------

    def say(self, job, state, code=""):
        """A box told a step of its job."""
        with write(self.engine) as connection:
            c = t.job.c
            values = {"state": state, "code": code, "state_version": c.state_version + 1, "state_at": self.now}
            connection.execute(update(t.job).where(c.id == job).values(**values, sent_at=self.now))

    def answer(self, ident, state="SUCCEEDED", code="", *, wave=None, but=()):
        """All boxes of a wave (that which runs) with a job that has not ended say so; returns which."""
        wave = wave or self.row(ident).wave
        told = [
            one
            for one in self.boxes(ident, wave=wave)
            if one.job and one.state not in {"SUCCEEDED", "FAILED", "ROLLED_BACK"} and one.device not in but
        ]
        for one in told:
            self.say(one.job, state, code)
        return [one.device for one in told]

    def results(self, device, version, *, n, flagged, at=None, p95=800.0, role="live", **more):
        """An hour of them."""
        hour = (at or self.now).replace(minute=0, second=0, microsecond=0)
        row = {"device": device, "package": PACKAGE, "version": version, "role": role, "hour": hour, "hours": 1, "n": n}
        row |= {"flagged": {"ich": flagged}, "nothing_flagged": n - flagged, "not_analysed": {}, "suppressed": 0}
        row |= {"reviewed": 0, "agreed": 0, "p95_ms": p95, "psi": {}, "stream": 1, "seq": 1}
        with write(self.engine) as connection:
            connection.execute(insert(t.results_hour).values(**{**row, **more}))
