"""A box whose fleet server gives it jobs: an enrolled store, keys of both roles, acts that a test decides."""

from __future__ import annotations

import functools
from pathlib import Path

from fleet_link_kit import BROKERS, DEVICE, TENANT, Authority
from package_rows_kit import NAME, Acts, new

from appliance.clock import FakeClock
from appliance.config import Config
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.desk import job_desk
from appliance.fleet.device.identity import Enrolment, Identity, Trust
from appliance.fleet.device.logs import LogTail
from appliance.fleet.keys import DeviceKey
from appliance.fleet.wire import (
    ACK_TYPE,
    JOB_TYPE,
    TWIN_TYPE,
    TWO_SIGNATURES,
    Ack,
    Desired,
    Job,
    JobArgs,
    Op,
    Twin,
    Window,
)
from appliance.store import Store
from appliance.store.database import new_ulid
from appliance.store.facts.box import DaemonStarted
from engines import signing

ALWAYS = Window(begin="00:00", end="00:00")
DIGEST = {"1.0.0": "aa" * 32, "2.0.0": "bb" * 32, "3.0.0": "cc" * 32, "4.0.0": "dd" * 32}


@functools.cache
def keys():
    """One server's, made once: its online key, two release keys, and a stranger's."""
    return {name: signing.generate(name) for name in ("online", "online-2", "release", "release-2", "stranger")}


@functools.cache
def authority():
    return Authority()


def enrol(folder, *, url="https://localhost:8443", ca=None, threshold=1, release=("release",)):
    """An enrolled box."""
    key = DeviceKey.generate()
    chain = authority().certify(key.csr(DEVICE))
    trust = Trust(
        online=(keys()["online"].public.pem(),),
        release=tuple(keys()[name].public.pem() for name in release),
        release_threshold=threshold,
    )
    enrolment = Enrolment(tenant=TENANT, device=DEVICE, server_url=url, brokers=BROKERS)
    return Identity.save(folder, enrolment, trust, key=key, chain=chain, ca=ca or authority().pem)


class FakeActs:
    """What the daemon would do. ``fail``: by name, what an act raises; ``calls``: in order."""

    def __init__(self, store):
        self._store = store
        self.calls = []
        self.fail = {}
        self.archive = b""

    def _called(self, name):
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def restart(self):
        self._called("restart")

    def self_test(self):
        self._called("self_test")
        return {"result_s": 3.5}

    def bundle(self):
        self._called("bundle")
        return self.archive

    def install(self, source, name, version, digest):
        self._called("install")
        found = Path(source).read_text().strip()
        if found != digest:
            raise ActRefused("DIGEST")
        put(self._store, version, name)

    def golden(self, name, version):
        self._called("golden")
        return {"p95_ms": 12.0}

    def owed(self, _package, _result):
        return ()


class FakeFetcher:
    """Gives files that hold nothing but a digest."""

    def __init__(self, folder):
        self.folder = folder
        self.calls, self.gone = [], []
        self.smalls = {}
        self.fail = None

    def fetch(self, target, digest, told):
        self.calls.append(target)
        if self.fail is not None:
            raise self.fail
        for percent in (0.0, 4.0, 50.0, 100.0):
            told(percent)
        path = self.folder / target
        path.write_text(digest)
        return path

    def small(self, target):
        self.calls.append(target)
        if self.fail is not None:
            raise self.fail
        return self.smalls[target]

    def done(self, target):
        self.gone.append(target)

    def tidy(self):
        pass


def put(store, version, name=NAME, **changes):
    """A version lies in a slot."""
    given = new(version, name=name, **changes)
    object.__setattr__(given, "digest", DIGEST[version])
    store.packages.install(given)


class JobBox:
    """A box with an inbox and both stages of jobs."""

    def __init__(self, root, *, clock=None, clk="ntp", mode="evaluation", approval="vendor", fetch=True, **trust):
        self.root = Path(root)
        self.clock = clock or FakeClock()
        self.clk = clk
        self.config = Config.model_validate(
            {"state_path": self.root / "state", "site": {"mode": mode}, "fleet": {"approval": approval}}
        )
        self.folder = self.config.state_path / "fleet"
        if not (self.folder / "identity.json").exists():
            enrol(self.folder, **trust)
        self._fetch = fetch
        self.renewals = 0
        self.ctr = 0
        self.open()

    def open(self):
        """The daemon's part of it, as after a start."""
        self.store = Store.open(self.config.state_path, self.clock, reserve_bytes=0)
        with self.store.db.write() as tx:
            tx.journal(DaemonStarted(version="1", mode="evaluation"))
        self.acts = self.make_acts()
        self.fetcher = self.make_fetcher()
        self.tail = LogTail()

        def renew():
            self.renewals += 1

        desk = job_desk(
            self.config,
            self.store,
            self.clock,
            self.acts,
            lambda: self.clk,
            renew=renew,
            tail=self.tail,
            fetcher=self.fetcher if self._fetch else None,
        )
        self.inbox, (self.quick, self.slow) = desk.inbox, desk.stages

    def make_acts(self):
        """What the daemon would do."""
        return FakeActs(self.store)

    def make_fetcher(self):
        """Where packages come from."""
        return FakeFetcher(self.root)

    def restart(self):
        """End and start again."""
        self.store.close()
        self.open()

    def close(self):
        self.store.close()

    # The server's part -----------------------------------------------------------------------------------------

    def ms(self, hours=0.0):
        return int((self.clock.now().timestamp() + hours * 3600) * 1000)

    def job(self, op=Op.PING, *, sign=None, **changes):
        """An envelope. ``sign``: names of keys; as the op needs."""
        if "ctr" not in changes:
            self.ctr += 1
        args = {name: changes.pop(name) for name in tuple(changes) if name in JobArgs.model_fields}
        given = {
            "id": new_ulid(self.clock.now()),
            "aud": DEVICE,
            "ctr": self.ctr,
            "nbf": self.ms(-0.2),
            "exp": self.ms(24),
            "op": op,
            "args": JobArgs(**args),
        }
        job = Job(**{**given, **changes})
        who = sign or (("online", "release") if op in TWO_SIGNATURES else ("online",))
        data = job.model_dump_json(exclude_none=True).encode()
        return signing.sign(JOB_TYPE, data, [keys()[name] for name in who])

    def give(self, op=Op.PING, **changes):
        """A job comes; its row."""
        return self.inbox.take_job(self.job(op, **changes))

    def install_job(self, version="2.0.0", **changes):
        """A job that installs a version of the toy package."""
        given = {"package": NAME, "version": version, "digest": DIGEST[version], "target": f"toy-{version}.zip"}
        return self.give(Op.MODEL_INSTALL, **{**given, **changes})

    def twin(self, dv, *, sign="online", aud=DEVICE, **desired):
        data = Twin(aud=aud, dv=dv, desired=Desired(**desired)).model_dump_json(exclude_none=True).encode()
        return signing.sign(TWIN_TYPE, data, [keys()[sign]])

    def ack(self, ids, *, aud=DEVICE, st=1, **more):
        ack = Ack(aud=aud, stream=self.store.db.stream, b=tuple(ids), st=st, **more)
        return signing.sign(ACK_TYPE, ack.model_dump_json(exclude_none=True).encode(), [keys()["online"]])

    # What it does ----------------------------------------------------------------------------------------------

    def run(self, steps=50):
        """Step both stages until neither moves."""
        for _ in range(steps):
            if not (self.quick.step() | self.slow.step()):
                return
        raise AssertionError("the jobs do not come to rest")

    def row(self, job):
        return self.store.fleet_jobs.get(job.id)

    def state(self, job):
        """State and code."""
        row = self.row(job)
        return (row.state, row.code) if row.code else row.state

    def steps(self, job):
        """The states that the server hears of, in order."""
        facts = self.store.journal.after(0, 10_000)
        return [f.body["state"] for f in facts if f.kind == "fleet_job_step" and f.body["job"] == job.id]

    def packages(self):
        """version: state."""
        return {row.version: str(row.state) for row in self.store.packages.all(NAME)}

    def issues(self):
        return {issue.code for issue in self.store.issues.open()}

    def serve(self, *versions):
        """These versions come into service one after the other."""
        for version in versions:
            put(self.store, version)
            Acts(self.store).activate(version)
            if hasattr(self.clock, "advance"):
                self.clock.advance(1)
