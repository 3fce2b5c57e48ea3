"""A signed model goes from the server's TUF repository over HTTPS into a running box, and serves."""

from __future__ import annotations

import json
import ssl
import stat
import threading
import zipfile

import pytest
from box_kit import Box, box_config
from fleet_jobs_kit import ALWAYS, JobBox, enrol
from package_kit import make_signed_package, make_unsigned_package
from toy_packages import make_toy_xray_package
from tuf_box_kit import TufJobBox, TufServer, ca, repository

from appliance.box_acts import BoxActs
from appliance.clock import SystemClock
from appliance.fleet.device.desk import inbox_of
from appliance.fleet.wire import Op
from appliance.records import Outcome
from appliance.simulate.scenarios import SCENARIOS
from engines.archive import pack
from engines.package import load_package, sign_package
from engines.signing import generate

NAME = "toy-bright-blob"
OLD = {"1.0.0": "live"}


class Server(JobBox):
    """Only its part of a server: it signs."""

    def __init__(self):
        self.clock, self.ctr = SystemClock(), 0


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A repository with version 2 behind HTTPS; an enrolled box, which no broker reaches, with version 1 live."""
    root = tmp_path_factory.mktemp("install")
    maker = generate("maker")
    (root / "maker.pub").write_text(maker.public.pem())
    make_signed_package(root / "two", maker, version="2.0.0")
    digest = load_package(root / "two", keys=[maker.public]).digest
    make_toy_xray_package(root / "one")
    kit = repository(root / "tuf")
    target = kit.add_model(pack(root / "two", root / "two.zip"), NAME, "2.0.0", digest, min_agent="0.1.0")
    _, issued = ca()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issued.certificate, issued.key)
    with kit.serve(tls=tls) as url:
        enrol(root / "state" / "fleet", url=url, ca=ca()[0].path.read_bytes())
        config = box_config(root / "state", packages=(NAME,), fleet={}, trusted_keys=[str(root / "maker.pub")])
        with Box(config, [root / "one"]) as box:
            box.server, box.args = Server(), {"package": NAME, "version": "2.0.0", "digest": digest, "target": target}
            yield box


@pytest.mark.req("R-FLEET-69")
def test_model_comes_over_https_into_the_idle_slot_is_tried_serves_and_the_server_hears_each_step(life):
    inbox = inbox_of(life.config, life.store, SystemClock(), lambda *_: (), lambda: "ntp")
    inbox.take_twin(life.server.twin(1, window=ALWAYS, bytes_per_s=10_000_000))
    job = inbox.take_job(life.server.job(Op.MODEL_INSTALL, **life.args, soak_h=0, soak_studies=1))
    life.wait(lambda: life.store.fleet_jobs.get(job.id).state == "SOAKING", "activation")
    items = list(next(one for one in SCENARIOS if one.name == "chest_xray").build("1"))
    life.send(items, "DX-1")
    ended = life.ended(items[0].StudyInstanceUID)
    assert ended.outcome in {Outcome.FINDING, Outcome.NOTHING_FLAGGED}
    assert {row.version: str(row.state) for row in life.store.packages.all(NAME)} == {
        "1.0.0": "retired",
        "2.0.0": "live",
    }
    used = life.store.db.one("SELECT package_version FROM analysis ORDER BY id DESC LIMIT 1")
    assert used["package_version"] == "2.0.0"
    steps = [fact.body for fact in life.store.journal.after(0, 10_000) if fact.kind == "fleet_job_step"]
    order = list(dict.fromkeys(one["state"] for one in steps))
    assert order[:8] == [
        *("ACCEPTED", "DOWNLOADING", "VERIFIED", "STAGED", "SELFTEST", "WAIT_IDLE", "ACTIVATING", "SOAKING"),
    ]
    golden = next(one["figures"] for one in steps if one["state"] == "WAIT_IDLE")
    assert golden["runs"] >= 2, json.dumps(golden)
    assert [one["percent"] for one in steps if one["percent"] is not None][-1] == 100.0
    assert life.store.journal.verify() == 0


# What is signed by the service team and yet no package for this box --------------------------------------------------


class RealBox(TufJobBox):
    """Its packages go through the real gate and trial."""

    def make_acts(self):
        config = self.config.model_copy(update={"trusted_keys": (self.root / "maker.pub",)})
        return BoxActs(config, self.store, None, threading.Event())


def swapped_file(folder):
    (folder / "CARD.md").write_text("another text")


def added_file(folder):
    (folder / "more.txt").write_text("more")


def wrong_goldens(folder):
    cases = json.loads((folder / "golden" / "golden.json").read_text())
    cases[1]["scores"] = cases[0]["scores"]
    (folder / "golden" / "golden.json").write_text(json.dumps(cases))


def nothing(_):
    pass


def hostile(name, data, mode=stat.S_IFREG | 0o644):
    def make(path):
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as made:
            member = zipfile.ZipInfo(name)
            member.external_attr, member.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            made.writestr(member, data)

    return make


#: By what is wrong: done before the signature, to the folder, to the archive, and what the log says of it.
BAD = {
    "wrong key": (nothing, nothing, nothing, "trusted are"),
    "swapped file": (nothing, swapped_file, nothing, "CARD.md"),
    "added file": (nothing, added_file, nothing, "more.txt"),
    "golden mismatch": (wrong_goldens, nothing, nothing, "plain.npz"),
    "older version under a new name": (nothing, nothing, nothing, "another package than the job names"),
    "path traversal": (nothing, nothing, hostile("../../evil", b"evil"), "evil"),
    "symlink": (nothing, nothing, hostile("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "is a link"),
    "bomb": (nothing, nothing, hostile("bomb", bytes(200_000_000)), "bomb"),
}


@pytest.mark.long
@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-69")
@pytest.mark.parametrize("bad", BAD)
def test_bad_package_is_refused_the_old_one_goes_on_and_the_audit_says_so(tmp_path, bad, caplog):
    early, to_folder, to_archive, said = BAD[bad]
    maker, signer = generate("maker"), generate("stranger")
    signer = signer if bad == "wrong key" else maker
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "maker.pub").write_text(maker.public.pem())
    make_unsigned_package(tmp_path / "two", version="1.9.0" if "older" in bad else "2.0.0")
    early(tmp_path / "two")
    sign_package(tmp_path / "two", [signer])
    digest = load_package(tmp_path / "two", keys=[signer.public]).digest
    to_folder(tmp_path / "two")
    archive = pack(tmp_path / "two", tmp_path / "two.zip")
    to_archive(archive)
    kit = repository(tmp_path / "tuf")
    target = kit.add_model(archive, NAME, "2.0.0", digest)
    with TufServer(kit.folder) as server:
        box = RealBox(tmp_path / "box", server.url)
        box.serve("1.0.0")
        job = box.install_job(package=NAME, target=target, digest=digest)
        box.run()
        assert box.state(job) == ("FAILED", "PACKAGE_REFUSED"), caplog.text
        assert said in caplog.text
        assert (box.packages(), box.steps(job)[-2:]) == (OLD, ["VERIFIED", "FAILED"])
        (last,) = [fact for fact in box.store.journal.after(0, 10_000) if fact.body.get("state") == "FAILED"]
        assert (last.body["code"], last.actor["kind"]) == ("PACKAGE_REFUSED", "fleet")
        assert not list(tmp_path.rglob("evil"))
        box.close()
