"""Whose keys a box obeys, changed by a job: at once, for good, and never to nobody."""

from __future__ import annotations

import json

import pytest
from fleet_jobs_kit import ALWAYS, JobBox, keys
from package_rows_kit import NAME
from tuf_box_kit import TufJobBox, TufServer, put_models, repository
from tuf_kit import trust_of

from appliance.errors import TransientError
from appliance.fleet.device import roots
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.stick import bring
from appliance.fleet.wire import Op
from appliance.fleet.wire_stick import bundle
from engines.errors import SignatureError

NEW = {"sign": ("online-2", "release-2")}


@pytest.fixture
def life(tmp_path):
    kit = repository(tmp_path / "tuf")
    with TufServer(kit.folder) as server:
        box = TufJobBox(tmp_path / "box", server.url)
        box.kit, box.server = kit, server
        yield box
        box.close()


def facts(box):
    return [fact.body for fact in box.store.journal.after(0, 10_000) if fact.kind == "fleet_trust"]


@pytest.mark.req("R-FLEET-67")
def test_after_a_rotation_only_the_new_keys_are_obeyed_and_nobody_had_to_visit(life):
    life.serve("1.0.0")
    life.kit.rotate(release=[keys()["release-2"]], online=[keys()["online"], keys()["online-2"]])
    first = life.give(Op.ROOT_UPDATE)
    life.run()
    assert life.state(first) == "SUCCEEDED"
    # The old online key goes in a second step: a box that slept meanwhile still hears of the first.
    life.kit.online = keys()["online-2"]
    life.kit.rotate(online=[keys()["online-2"]])
    second = life.give(Op.ROOT_UPDATE, sign=("online", "release-2"))
    life.run()
    assert life.state(second) == "SUCCEEDED"
    assert [one["release"] for one in facts(life)] == [[keys()["release-2"].public.keyid]] * 2
    assert [len(one["online"]) for one in facts(life)] == [2, 1]

    with pytest.raises(SignatureError):
        life.give(Op.PING, sign=("online",))
    with pytest.raises(SignatureError):
        life.inbox.take_twin(life.twin(1))
    (told,) = bring(bundle([life.ack([])]), life.store, life.inbox)
    assert told.result == "FORGED", "a stick obeys the same keys"
    args = {"package": NAME, "version": "1.0.0"}
    old = life.give(Op.MODEL_WITHDRAW, **args, sign=("online-2", "release"))
    assert life.state(old) == ("REJECTED", "SIGNATURES")
    life.inbox.take_twin(life.twin(1, sign="online-2", window=ALWAYS))
    put_models(life.kit, "2.0.0")
    new = life.install_job(soak_h=0, soak_studies=0, **NEW)
    life.run()
    assert life.state(new) == "SUCCEEDED"
    life.restart()
    assert life.inbox.identity.trust == life.kit.trust


@pytest.mark.req("R-FLEET-67")
def test_nothing_new_is_no_fact(life):
    job = life.give(Op.ROOT_UPDATE)
    life.run()
    assert (life.state(job), facts(life)) == (("SUCCEEDED", "ALREADY"), [])


@pytest.mark.req("R-FLEET-67")
def test_keys_that_the_known_release_keys_have_not_signed_change_nothing(life, tmp_path):
    before = life.inbox.identity.trust
    life.server.folder = repository(tmp_path / "evil", release=("stranger",)).folder
    job = life.give(Op.ROOT_UPDATE)
    life.run()
    assert life.state(job) == ("FAILED", "TUF_FORGED")
    life.server.folder = life.kit.folder
    life.server.twist[life.kit.blob().name] = life.kit.blob().read_bytes().replace(b'"online"', b'"onlines"')
    job = life.give(Op.ROOT_UPDATE)
    life.run()
    assert life.state(job) == ("FAILED", "TUF_DAMAGED")
    assert life.inbox.identity.trust == before


def _trust(**changes):
    document = json.loads(trust_of([keys()["online"]], [keys()["release"], keys()["release-2"]], 2).model_dump_json())
    return json.dumps({**document, **changes}).encode()


@pytest.mark.req("R-FLEET-67")
@pytest.mark.parametrize(
    "data",
    [
        _trust(online=[]),
        _trust(release=[]),
        _trust(release_threshold=3),
        _trust(release_threshold=0),
        _trust(release=[keys()["release"].public.pem()] * 2),
        _trust(release=[keys()["online"].public.pem(), keys()["release"].public.pem()]),
        _trust(online=["no key"]),
        _trust(more=1),
        b"[]",
        b"",
        b"\xff",
    ],
    ids=range(11),
)
def test_document_that_would_leave_nobody_to_obey_is_refused(tmp_path, data):
    box = JobBox(tmp_path)
    before = box.inbox.identity.trust
    box.fetcher.smalls["trust.json"] = data
    job = box.give(Op.ROOT_UPDATE)
    box.run()
    assert box.state(job) == ("FAILED", "TRUST_UNFIT")
    assert box.inbox.identity.trust == before
    box.close()
    with pytest.raises(ActRefused):
        roots.read_trust(data)


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.req("R-FLEET-67")
@pytest.mark.parametrize("where", ["save_trust", "after save_trust", "FleetTrust", "read_trust"])
def test_killed_on_the_way_the_keys_change_once_and_are_told_once(tmp_path, monkeypatch, where):
    box = JobBox(tmp_path)
    trust = trust_of([keys()["online"]], [keys()["release-2"]])
    box.fetcher.smalls["trust.json"] = trust.model_dump_json().encode()
    job = box.give(Op.ROOT_UPDATE)
    name = where.removeprefix("after ")
    real = getattr(roots, name)

    def killed(*args, **more):
        if where != name:
            real(*args, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(roots, name, killed)
        with pytest.raises(Killed):
            box.run()
    box.restart()
    box.fetcher.smalls["trust.json"] = trust.model_dump_json().encode()
    box.run()
    assert box.state(job) == "SUCCEEDED"
    assert [one["release"] for one in facts(box)] == [[keys()["release-2"].public.keyid]]
    assert box.inbox.identity.trust == trust
    box.close()


@pytest.mark.req("R-FLEET-67")
def test_server_that_does_not_answer_is_asked_again(tmp_path):
    box = JobBox(tmp_path)
    box.fetcher.fail = TransientError("no line")
    job = box.give(Op.ROOT_UPDATE)
    box.run()
    assert box.state(job) == "ACCEPTED"
    box.fetcher.fail, box.fetcher.smalls["trust.json"] = None, box.inbox.identity.trust.model_dump_json().encode()
    box.clock.advance(40)
    box.run()
    assert box.state(job) == ("SUCCEEDED", "ALREADY")
    box.close()
