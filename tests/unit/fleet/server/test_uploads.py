"""Logs that a box brings: by the token of its job alone, once, whole, a zip file, kept for a while."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import io
import zipfile

import httpx
import pytest
from fleet_kit import DEALER, HOSPITAL, NOW, PaperBox, add_box
from sqlalchemy import select

from appliance.clock import FakeClock
from appliance.errors import NotFoundError
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import registry, upload_door
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import make_job
from appliance.fleet.server.db import read, write
from appliance.fleet.server.door import device_app
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.server.upload_door import Uploads
from appliance.fleet.server.uploads import list_uploads, open_upload, path_of, remove_uploads
from appliance.fleet.wire import JOB_TYPE, Job, JobArgs, Op
from appliance.web.pool import Pool
from engines.signing import verify

pytestmark = pytest.mark.req("R-FLEET-83")
POSTGRES_IS_LONG = True

EVERYTHING = registry.Scope.everything()
DAY = dt.timedelta(days=1)


def packed(text="{}"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("log.jsonl", text)
    return out.getvalue()


class Counter:
    """The server's HTTPS, and boxes that bring something."""

    def __init__(self, engine, box, folder):
        self.engine, self.box, self.folder = engine, box, folder
        self.clock = FakeClock(NOW)
        self.keys = ServerKeys.open(folder / "keys")
        self.pool = Pool(2, "test-uploads")
        self.app = device_app(Uploads(engine, folder, self.pool, self.clock).routes())

    def ask(self, **more):
        """A job for logs as the box reads it."""
        with write(self.engine) as connection:
            made = make_job(
                connection, self.keys, EVERYTHING, self.box.device, Op.COLLECT_LOGS, now=self.clock.now(), **more
            )
            envelope = connection.execute(select(t.job.c.envelope).where(t.job.c.id == made.id)).scalar_one()
        return Job.unpack(verify(envelope, JOB_TYPE, [self.keys.online.public]).payload)

    def bring(self, *files, token, device=None, key=None, signature=None):
        """Statuses and answers."""

        async def go():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="https://fleet.test") as client:
                found = []
                for data in files:
                    made = (key or self.box.key).sign(f"scanside/upload/v1/{token}", data)
                    told = made if signature is None else signature
                    headers = {"X-Scanside-Device": device or self.box.device, "X-Scanside-Signature": told}
                    found.append(await client.put(f"/v1/upload/{token}", content=data, headers=headers))
                return found

        answers = asyncio.run(go())
        return [answer.status_code for answer in answers], [answer.json() for answer in answers]

    def kept(self):
        folder = self.folder / "uploads"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def listed(self, scope=EVERYTHING):
        with read(self.engine) as connection:
            return list_uploads(connection, scope, self.box.device)

    def take(self, job, scope=EVERYTHING):
        with write(self.engine) as connection:
            found, file = open_upload(connection, scope, self.folder, job, now=self.clock.now(), actor="test")
        with file:
            return found, file.read()


@pytest.fixture
def counter(engine, box, tmp_path):
    made = Counter(engine, box, tmp_path)
    yield made
    made.pool.close()


def test_a_file_comes_by_the_token_of_its_job_and_is_taken_as_it_came(counter):
    job, data = counter.ask(), packed()
    statuses, answers = counter.bring(data, data, token=job.args.upload)
    sha256 = hashlib.sha256(data).hexdigest()
    assert (statuses, answers) == ([200, 200], [{"sha256": sha256}] * 2)  # an answer that was lost comes again
    found, taken = counter.take(job.id)
    assert (taken, found.sha256, found.size, found.received_at) == (data, sha256, len(data), NOW)
    assert counter.kept() == [f"{job.id}.zip"]
    assert path_of(counter.folder, job.id).stat().st_mode & 0o777 == 0o600
    with read(counter.engine) as connection:
        acts = [row.act for row in connection.execute(select(t.audit).order_by(t.audit.c.number))]
        kept = str(connection.execute(select(t.upload)).one())
    assert acts == ["job.make", "upload.keep", "upload.take"]
    assert job.args.upload not in kept


def test_each_job_has_a_token_of_its_own_and_no_other_job_has_any(counter):
    first, second = counter.ask(), counter.ask()
    assert first.args.upload != second.args.upload
    with write(counter.engine) as connection:
        ping = make_job(connection, counter.keys, EVERYTHING, counter.box.device, Op.PING, now=NOW)
    assert ping.args == JobArgs()
    assert {one.job for one in counter.listed()} == {first.id, second.id}


def test_other_bytes_by_the_same_token_are_refused_and_change_nothing(counter):
    job, data = counter.ask(), packed()
    statuses, _ = counter.bring(data, packed("other"), token=job.args.upload)
    assert statuses == [200, 409]
    assert counter.take(job.id)[1] == data


def refusals(counter, other):
    job, good = counter.ask(), packed()
    token = job.args.upload
    yield "no such token", {"token": "0" * 32}, good, 404
    yield "another box", {"token": token, "device": other.device, "key": other.key}, good, 404
    yield "a stranger's key", {"token": token, "key": DeviceKey.generate()}, good, 403
    yield "unsigned", {"token": token, "signature": ""}, good, 403
    elsewhere = counter.box.key.sign("scanside/upload/v1/" + "0" * 32, good)
    yield "signed for another token", {"token": token, "signature": elsewhere}, good, 403
    yield "no zip", {"token": token}, b"PK\x03\x04" + b"x" * 2000, 422
    yield "cut off", {"token": token}, good[:-10], 422
    yield "too large", {"token": token}, good + b"\0" * upload_door.MOST_BYTES, 413


def test_what_does_not_hold_is_refused_and_leaves_nothing(counter, ca, engine):
    other = PaperBox("box-0000002")
    with write(engine) as connection:
        add_box(connection, other, ca)
    for what, how, data, status in refusals(counter, other):
        assert counter.bring(data, **how)[0] == [status], what
        assert counter.kept() == [], what
    (row,) = counter.listed()
    assert row.received_at is None
    with pytest.raises(NotFoundError, match="no logs"):
        counter.take(row.job)


def test_a_revoked_or_disabled_box_brings_nothing(counter, engine):
    job, data = counter.ask(), packed()
    with write(engine) as connection:
        registry.disable_device(connection, EVERYTHING, counter.box.device, now=NOW)
    assert counter.bring(data, token=job.args.upload)[0] == [403]
    with write(engine) as connection:
        registry.enable_device(connection, EVERYTHING, counter.box.device)
        registry.revoke_certificates(connection, counter.box.device, now=NOW)
    assert counter.bring(data, token=job.args.upload)[0] == [403]


def test_the_token_ends_with_its_job_but_an_answer_that_was_lost_is_given_still(counter):
    first, second, data = counter.ask(), counter.ask(life=DAY / 2), packed()
    assert counter.bring(data, token=first.args.upload)[0] == [200]
    counter.clock.advance(25.5 * 3600)
    assert counter.bring(data, token=second.args.upload)[0] == [410]
    assert counter.bring(data, token=first.args.upload)[0] == [200]


def test_who_guesses_tokens_waits(counter):
    statuses, _ = counter.bring(*[packed()] * 25, token="0" * 32)
    assert statuses[:20] == [404] * 20
    assert set(statuses[20:]) == {429}


def test_a_disk_that_is_full_is_no_refusal(counter, monkeypatch):
    job, data = counter.ask(), packed()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(upload_door.os, "fsync", full)
        assert counter.bring(data, token=job.args.upload)[0] == [503]
    assert counter.kept() == []
    assert counter.bring(data, token=job.args.upload)[0] == [200]


def test_only_who_may_see_the_box_sees_and_takes_its_logs(counter, engine):
    job = counter.ask()
    counter.bring(packed(), token=job.args.upload)
    with write(engine) as connection:
        registry.add_tenant(connection, "hospital-02", "Other", registry.TenantKind.HOSPITAL, parent=DEALER, now=NOW)
        other = registry.Scope.of(connection, "hospital-02")
        own = registry.Scope.of(connection, HOSPITAL)
    assert len(counter.listed(own)) == 1
    assert counter.take(job.id, own)[1]
    for asked in (lambda: counter.listed(other), lambda: counter.take(job.id, other)):
        with pytest.raises(NotFoundError):
            asked()


def test_what_was_kept_long_enough_goes_and_is_told_to_be_gone(counter, engine):
    old, data = counter.ask(), packed()
    counter.bring(data, token=old.args.upload)
    counter.clock.advance(31 * 86400)
    new = counter.ask()
    counter.bring(data, token=new.args.upload)
    stray = counter.folder / "uploads" / "x.part"
    stray.write_bytes(b"x")
    now = counter.clock.now()
    with write(engine) as connection:
        assert remove_uploads(connection, counter.folder, before=now - 30 * DAY, now=now) == 1
        assert remove_uploads(connection, counter.folder, before=now - 30 * DAY, now=now) == 0
    assert counter.kept() == [f"{new.id}.zip", "x.part"]  # a part of just now may still be written
    with write(engine) as connection:
        remove_uploads(connection, counter.folder, before=now - 30 * DAY, now=dt.datetime.now(dt.timezone.utc) + DAY)
    assert counter.kept() == [f"{new.id}.zip"]
    assert [one.removed_at is None for one in counter.listed()] == [True, False]
    with pytest.raises(NotFoundError, match="no logs"):
        counter.take(old.id)
    assert counter.bring(data, token=old.args.upload)[0] == [200]  # told, not written again
    assert counter.kept() == [f"{new.id}.zip"]
