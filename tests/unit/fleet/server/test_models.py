"""Which models boxes can fetch, and the command lines ``scanside-fleet model`` and ``scanside-fleet key``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import package_kit
import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, update
from tuf_kit import DAY, FolderFetcher, TufKit

from appliance.clock import SystemClock
from appliance.errors import ConfigError, ConflictError, NotFoundError
from appliance.fleet.device.identity import Trust
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.cli import main
from appliance.fleet.server.config import ServerConfig
from appliance.fleet.server.db import read, write
from appliance.fleet.server.models import Signers, bring_model, list_model, list_models, withdraw_model
from appliance.fleet.server.premises import KEYS, PLATFORM, database_of
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_watch import RepositoryCollector, RepositoryWatch
from appliance.fleet.server.server_keys import ServerKeys, add_key
from appliance.fleet.wire import JOB_TYPE
from engines.archive import pack, unpack
from engines.gate import GateReport
from engines.package import load_package
from engines.signing import generate, load_private, verify

pytestmark = pytest.mark.req("R-TUF-06")

MAKER = generate("maker")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maker") / "package"
    package_kit.make_signed_package(folder, MAKER)
    return folder


def no_gate(folder, keys):
    """The gate's answer without its child."""
    found = load_package(folder, keys=keys)
    return GateReport(found.name, found.version, found.digest, found.signed_by, found.files, ())


@pytest.fixture
def kit(tmp_path):
    return TufKit(tmp_path / "tuf")


@pytest.fixture
def signers(kit):
    return Signers(kit.release, kit.online)


def bring(kit, source, **more):
    return bring_model(kit.repository, source, [MAKER.public], gate=no_gate, **more)


def changed(package, folder, **changes):
    shutil.rmtree(folder, ignore_errors=True)
    package_kit.make_signed_package(folder, MAKER, **changes)
    return folder


# Brought in ----------------------------------------------------------------------------------------------------------


def test_a_box_installs_the_very_package_and_the_row_says_what_it_says_of_itself(
    engine, kit, signers, package, tmp_path
):
    truth = load_package(package, keys=[MAKER.public])
    found = bring(kit, package, min_agent="1.4.0")
    list_model(engine, kit.repository, found, signers, actor="Wang", now=kit.now)
    with read(engine) as connection:
        (row,) = list_models(connection)
        audit = connection.execute(select(t.audit).where(t.audit.c.act == "model.add")).one()
    assert (row.package, row.version, row.digest) == (truth.name, truth.version, truth.digest)
    assert row.title == truth.manifest.title.model_dump(mode="json")
    assert (row.status, row.min_agent, row.added_by, row.withdrawn_at) == ("demonstrator", "1.4.0", "Wang", None)
    assert audit.detail["keys"] == [kit.release[0].public.keyid]
    updater = kit.updater(tmp_path / "box")
    listed = updater.get_targetinfo(row.target)
    assert (listed.length, listed.hashes["sha256"]) == (row.size, row.sha256)
    custom = {"package": truth.name, "version": truth.version, "digest": truth.digest}
    assert listed.custom == {"scanside": {**custom, "min_agent": "1.4.0", "markets": []}}
    archive = tmp_path / "archive.zip"
    updater.download_target(listed, str(archive))
    assert load_package(unpack(archive, tmp_path / "installed"), keys=[MAKER.public]).digest == truth.digest


def test_folder_and_archive_of_a_package_are_the_same_model(kit, package, tmp_path):
    assert bring(kit, package).target == bring(kit, pack(package, tmp_path / "any.zip")).target


def test_bringing_in_shows_nothing_to_boxes_and_leaves_nothing_else(kit, package):
    bring(kit, package)
    assert kit.repository.targets().keys() == {"trust.json"}
    assert not list(kit.folder.glob("incoming*"))


@pytest.mark.parametrize("fault", ["altered", "not signed", "of a stranger", "no package"])
def test_what_a_box_would_refuse_is_refused_here(kit, package, tmp_path, fault):
    folder = shutil.copytree(package, tmp_path / "bad")
    if fault == "altered":
        (folder / "CARD.md").write_text("Better than it is.")
    elif fault == "not signed":
        (folder / "SIGNATURE.json").unlink()
    elif fault == "of a stranger":
        shutil.rmtree(folder)
        package_kit.make_signed_package(folder, generate("stranger"))
    else:
        shutil.rmtree(folder)
        folder.write_bytes(b"PK")
    with pytest.raises(ConfigError) as told:
        bring(kit, folder)
    assert str(folder) in str(told.value)
    assert not list((kit.folder / "targets").glob("models/**/*.zip"))


def test_a_version_never_changes(engine, kit, signers, package, tmp_path):
    list_model(engine, kit.repository, bring(kit, package), signers, actor="Wang", now=kit.now)
    title = {"en": "Suspected something else", "zh_Hans": "疑似其他"}
    other = bring(kit, changed(package, tmp_path / "other", title=title))
    with pytest.raises(ConflictError, match="give it another"):
        list_model(engine, kit.repository, other, signers, actor="Wang", now=kit.now)
    with read(engine) as connection:
        assert kit.repository.targets()[list_models(connection)[0].target] != other.target


def test_a_call_that_was_cut_off_is_simply_called_again(engine, kit, signers, package):
    found = bring(kit, package)
    kit.publish(add=[found.target])  # killed before the row was written
    list_model(engine, kit.repository, found, signers, actor="Wang", now=kit.now)
    list_model(engine, kit.repository, found, signers, actor="Wang", now=kit.now)
    with read(engine) as connection:
        assert len(list_models(connection)) == 1
    kit.withdraw(found.target.path)
    withdraw_model(engine, kit.repository, found.package, found.version, signers, why="x", actor="Li", now=kit.now)
    with read(engine) as connection:
        assert list_models(connection)[0].withdrawn_by == "Li"


def test_a_withdrawn_model_is_listed_as_that_and_can_come_back_the_same(engine, kit, signers, package):
    found = bring(kit, package)
    list_model(engine, kit.repository, found, signers, actor="Wang", now=kit.now)
    told = {"why": "misses small ones", "actor": "Li", "now": kit.now}
    withdraw_model(engine, kit.repository, found.package, found.version, signers, **told)
    assert found.target.path not in kit.repository.targets()
    with read(engine) as connection:
        (row,) = list_models(connection)
        assert (row.withdrawn_at, row.withdrawn_by) == (kit.now, "Li")
        audit = connection.execute(select(t.audit).where(t.audit.c.act == "model.withdraw")).one()
    assert (audit.subject, audit.detail["why"]) == (f"{found.package} {found.version}", "misses small ones")
    with pytest.raises(ConflictError, match="was withdrawn"):
        withdraw_model(engine, kit.repository, found.package, found.version, signers, **told)
    with pytest.raises(NotFoundError, match="model list"):
        withdraw_model(engine, kit.repository, found.package, "9.9.9", signers, **told)
    list_model(engine, kit.repository, bring(kit, package), signers, actor="Wang", now=kit.now)
    with read(engine) as connection:
        assert list_models(connection)[0].withdrawn_at is None


def test_too_few_release_keys_change_neither_list(engine, tmp_path, package):
    keys = [generate("wang"), generate("li")]
    kit = TufKit(tmp_path / "tuf", release=keys, threshold=2)
    found = bring(kit, package)
    with pytest.raises(ConflictError, match="1 of 2"):
        list_model(engine, kit.repository, found, Signers(keys[:1], kit.online), actor="Wang", now=kit.now)
    with read(engine) as connection:
        assert not list_models(connection)
    assert kit.repository.targets().keys() == {"trust.json"}


def test_a_version_that_no_job_could_name_is_refused(kit, package, tmp_path):
    long = changed(package, tmp_path / "long", version="1.0.0-" + "x" * 80)
    with pytest.raises(ConfigError, match="fits in no job"):
        bring(kit, long)
    plus = bring(kit, changed(package, tmp_path / "plus", version="1.0.0+b2"))
    assert plus.target.path.endswith("/1.0.0_b2.zip")


# The command line ----------------------------------------------------------------------------------------------------


class Desk:
    """A server's folder without the server, its command line, and a release key on a stick."""

    def __init__(self, folder, template):
        self.folder, self.stick = folder / "fleet", folder / "stick"
        self.folder.mkdir()
        self.stick.mkdir()
        self.file = folder / "fleet.yaml"
        self.configure()
        self.config = ServerConfig(folder=self.folder)
        self.repository = Repository(self.folder / "tuf")
        now = SystemClock().now()
        shutil.copy(template, self.config.database_path)
        with database_of(self.config) as engine, write(engine) as connection:
            kind = registry.TenantKind.PLATFORM
            registry.add_tenant(connection, PLATFORM, "Platform", kind, parent=None, now=now)
            add_key(connection, self.keys().online.public, "online", "server", now=now)

    def configure(self, **lines):
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        self.file.write_text(f"folder: {self.folder}\n{text}")

    def keys(self):
        return ServerKeys.open(self.folder / KEYS)

    def new_key(self, name):
        self.ok("key", "new", str(self.stick / name), config=False)
        return str(self.stick / name), str(self.stick / f"{name}.pub"), load_private(self.stick / name).public.keyid

    def call(self, *words, config=True):
        return CliRunner().invoke(main, [*words, *(["--config", str(self.file)] if config else [])])

    def ok(self, *words, **more):
        done = self.call(*words, **more)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def no(self, *words):
        done = self.call(*words)
        assert done.exit_code not in (0, 1), done.output
        return done.output

    def rows(self, asked):
        with database_of(self.config) as engine, read(engine) as connection:
            return list(connection.execute(asked))

    def do(self, *statements):
        with database_of(self.config) as engine, write(engine) as connection:
            for one in statements:
                connection.execute(one)

    def read_as_a_box(self, folder, bootstrap=False):
        """A box's metadata, fresh, and whose signatures count there."""
        kit = SimpleNamespace(folder=self.repository.folder, root_bytes=None)
        root = (kit.folder / "metadata/root.json").read_bytes()
        kit.root_bytes = lambda: root
        updater = TufKit.updater(kit, folder, bootstrap=bootstrap, fetcher=FolderFetcher(kit.folder))
        path = updater.download_target(updater.get_targetinfo("trust.json"))
        return Trust.model_validate_json(Path(path).read_bytes())


@pytest.fixture
def desk(tmp_path, sqlite_template):
    return Desk(tmp_path, sqlite_template)


@pytest.fixture
def served(desk):
    """With a release key, and a repository; returns (desk, the key's file, its id)."""
    secret, public, keyid = desk.new_key("wang.key")
    desk.ok("key", "add", public, "--name", "Wang")
    desk.ok("model", "init", "--key", secret)
    return desk, secret, keyid


def test_a_model_is_brought_in_listed_and_withdrawn_by_command(served, package, tmp_path):
    desk, secret, _ = served
    maker = tmp_path / "maker.pub"
    maker.write_text(MAKER.public.pem())
    assert "--maker" in desk.no("model", "add", str(package), "--key", secret)
    desk.configure(models=f"{{trusted_keys: [{maker}]}}")
    assert "--key" in desk.no("model", "add", str(package))
    added = desk.ok("model", "add", str(package), "--key", secret, "--json")
    assert desk.repository.targets().keys() == {"trust.json", added["target"]}
    assert "can be fetched" in desk.ok("model", "list")
    told = desk.ok("model", "list", "--json")
    assert [one["digest"] for one in told["models"]] == [added["digest"]]
    assert {one["role"]: one["is_soon"] for one in told["repository"]}["timestamp"] is False
    assert "--why" in desk.no("model", "withdraw", added["package"], added["version"], "--key", secret)
    desk.ok("model", "withdraw", added["package"], added["version"], "--why", "recall", "--key", secret)
    assert "withdrawn" in desk.ok("model", "list")
    assert [row.act for row in desk.rows(select(t.audit)) if row.act.startswith("model.")] == [
        "model.init",
        "model.add",
        "model.withdraw",
    ]


def test_every_refusal_says_how_to_mend_it(desk, package, tmp_path):
    secret, public, _ = desk.new_key("wang.key")
    maker = tmp_path / "maker.pub"
    maker.write_text(MAKER.public.pem())
    assert "scanside-fleet key new" in desk.no("model", "init", "--key", secret)
    assert "scanside-fleet model init" in desk.no("model", "add", str(package), "--key", secret, "--maker", str(maker))
    assert "model init" in desk.no("key", "publish", "--key", secret)
    assert "model init" in desk.no("key", "rotate", "online", "--key", secret)
    desk.ok("key", "add", public, "--name", "Wang")
    assert "--key" in desk.no("model", "init")
    stranger, _, _ = desk.new_key("eve.key")
    assert "key list" in desk.no("model", "init", "--key", stranger)
    (desk.stick / "wang.key").chmod(0o644)
    assert "chmod 600" in desk.no("model", "init", "--key", secret)
    (desk.stick / "wang.key").chmod(0o600)
    desk.ok("model", "init", "--key", secret)
    assert "key publish" in desk.no("model", "init", "--key", secret)
    assert "model list" in desk.no("model", "withdraw", "ich-ct", "1.0.0", "--why", "x", "--key", secret)


@pytest.mark.req("R-TUF-03")
def test_a_release_key_is_added_and_retired_for_boxes_that_are_out_there(served, tmp_path):
    desk, wang, wang_id = served
    desk.read_as_a_box(tmp_path / "box", bootstrap=True)
    li, li_public, li_id = desk.new_key("li.key")
    before = desk.rows(select(t.server_key))
    assert "--key" in desk.no("key", "add", li_public, "--name", "Li")
    assert desk.rows(select(t.server_key)) == before, "what boxes do not learn does not hold here either"
    assert "root.update" in desk.ok("key", "add", li_public, "--name", "Li", "--key", wang)
    trust = desk.read_as_a_box(tmp_path / "box")
    assert {key.keyid for key in trust.release_keys()} == {wang_id, li_id}
    assert "root.update" in desk.ok("key", "retire", wang_id, "--key", wang, "--key", li)
    trust = desk.read_as_a_box(tmp_path / "box")
    assert [key.keyid for key in trust.release_keys()] == [li_id]
    assert "is no release key" in desk.no("key", "publish", "--key", wang)
    assert "release keys are known" in desk.no("key", "retire", li_id, "--key", li)
    assert [key.keyid for key in desk.read_as_a_box(tmp_path / "box").release_keys()] == [li_id]


def test_a_model_that_an_older_repository_lacks_is_not_called_ready(served, package, tmp_path):
    desk, secret, _ = served
    signers, now = Signers([load_private(Path(secret))], desk.keys().online), SystemClock().now()

    def add():
        found = bring_model(desk.repository, package, [MAKER.public], gate=no_gate)
        with database_of(desk.config) as engine:
            list_model(engine, desk.repository, found, signers, actor="Wang", now=now)

    backup = shutil.copytree(desk.repository.folder, tmp_path / "backup")
    add()
    shutil.rmtree(desk.repository.folder)
    shutil.copytree(backup, desk.repository.folder)
    assert "add it again" in " ".join(desk.ok("model", "list").split())
    add()
    assert "can be fetched" in desk.ok("model", "list")


def test_more_keys_than_boxes_take_are_refused(served):
    desk, secret, _ = served
    for number in range(7):
        _, public, _ = desk.new_key(f"{number}.key")
        desk.ok("key", "add", public, "--name", "x", "--key", secret)
    _, public, _ = desk.new_key("ninth.key")
    assert "at most eight" in desk.no("key", "add", public, "--name", "x", "--key", secret)


@pytest.mark.req("R-TUF-03")
def test_one_release_key_takes_the_place_of_another_in_one_step(served, tmp_path):
    desk, wang, wang_id = served
    desk.read_as_a_box(tmp_path / "box", bootstrap=True)
    li, li_public, li_id = desk.new_key("li.key")
    rotate = ("key", "rotate", "release", wang_id, li_public, "--name", "Li")
    assert "0 of 1 release keys of this server" in desk.no(*rotate, "--key", wang)
    assert "0 of 1 release keys that hold until now" in desk.no(*rotate, "--key", li)
    desk.ok(*rotate, "--key", wang, "--key", li)
    assert [key.keyid for key in desk.read_as_a_box(tmp_path / "box").release_keys()] == [li_id]


@pytest.mark.req("R-TUF-03")
def test_another_threshold_is_published(served, tmp_path):
    desk, wang, _ = served
    li, li_public, _ = desk.new_key("li.key")
    desk.ok("key", "add", li_public, "--name", "Li", "--key", wang)
    desk.configure(release_threshold=2)
    assert "1 of 2" in desk.no("key", "publish", "--key", wang)
    desk.ok("key", "publish", "--key", wang, "--key", li)
    assert desk.read_as_a_box(tmp_path / "box", bootstrap=True).release_threshold == 2


def enrolled(desk, device, made_at):
    desk.do(
        insert(t.tenant).values(
            id="hospital-01",
            name="H",
            kind="hospital",
            parent=PLATFORM,
            path="platform-1/hospital-01/",
            made_at=made_at,
        ),
        insert(t.site).values(id="site-0001", tenant="hospital-01", name="S", made_at=made_at),
        insert(t.device).values(
            id=device,
            number=1,
            tenant="hospital-01",
            site="site-0001",
            serial="S1",
            state="enrolled",
            made_at=made_at,
        ),
    )


@pytest.mark.req("R-TUF-03")
def test_the_servers_key_is_changed_once_every_box_knows_the_new_one(served, tmp_path):
    desk, wang, _ = served
    desk.read_as_a_box(tmp_path / "box", bootstrap=True)
    enrolled(desk, "box-0000001", SystemClock().now())
    old = desk.keys().online
    assert "has begun" in desk.no("key", "rotate", "online", "--finish", "--key", wang)
    assert "--finish" in desk.ok("key", "rotate", "online", "--key", wang)
    desk.ok("key", "rotate", "online", "--key", wang)
    trust = desk.read_as_a_box(tmp_path / "box")
    fresh = next(key for key in trust.online_keys() if key.raw != old.public.raw)
    assert len(trust.online) == 2, "begun twice it is the same key"
    assert desk.keys().online == old, "nothing is signed with it before boxes know it"
    refused = desk.no("key", "rotate", "online", "--finish", "--key", wang)
    assert "box-0000001" in refused
    assert "root.update" in refused
    now = SystemClock().now()
    values = {"device": "box-0000001", "ctr": 1, "op": "root.update", "args": {}, "figures": {}}
    values |= {"id": "J1", "made_at": now, "state": "SENT", "state_at": now}
    desk.do(insert(t.job).values(**values))
    assert "box-0000001" in desk.no("key", "rotate", "online", "--finish", "--key", wang)
    desk.do(update(t.job).values(state="SUCCEEDED"))
    eve, _, _ = desk.new_key("eve.key")
    assert "is no release key" in desk.no("key", "rotate", "online", "--finish", "--key", eve)
    assert desk.keys().online == old, "refused before anything was changed"
    assert "restart the server" in desk.ok("key", "rotate", "online", "--finish", "--key", wang)
    assert desk.keys().online.public.raw == fresh.raw
    assert [key.raw for key in desk.read_as_a_box(tmp_path / "box").online_keys()] == [fresh.raw]
    assert load_private(desk.folder / KEYS / f"online.{old.public.keyid}.old").raw == old.raw
    counts = {row.keyid: row.retired_at is None for row in desk.rows(select(t.server_key)) if row.role == "online"}
    assert counts == {old.public.keyid: False, fresh.keyid: True}


@pytest.mark.req("R-TUF-03")
def test_a_change_of_the_servers_key_that_was_cut_off_is_ended_by_the_same_call(served, tmp_path, monkeypatch):
    desk, wang, _ = served
    desk.read_as_a_box(tmp_path / "box", bootstrap=True)
    desk.ok("key", "rotate", "online", "--key", wang)

    def cut(*_, **__):
        raise ConfigError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "publish", cut)
        assert "cut off" in desk.no("key", "rotate", "online", "--finish", "--key", wang)
    watch(desk).look()
    assert len(desk.read_as_a_box(tmp_path / "box").online) == 2
    desk.ok("key", "rotate", "online", "--finish", "--key", wang)
    assert desk.read_as_a_box(tmp_path / "box").online == (desk.keys().online.public.pem(),)


@pytest.mark.req("R-TUF-03")
def test_the_only_release_key_gives_way_to_another_and_every_box_that_is_out_there_takes_it(served):
    desk, wang, wang_id = served
    enrolled(desk, "box-0000001", SystemClock().now())
    there = desk.repository.trust()
    _, li_public, li_id = desk.new_key("li.key")
    li = str(desk.stick / "li.key")
    desk.ok("key", "rotate", "release", wang_id, li_public, "--name", "Li", "--key", wang, "--key", li)
    late = desk.ok("key", "list", "--json")
    assert (late["behind"], late["changed_at"] is not None) == (["box-0000001"], True)
    assert "job make-all root.update" in desk.call("key", "list").output
    (made,) = desk.ok("job", "make-all", "root.update", "--json")["jobs"]
    assert desk.ok("job", "make-all", "root.update", "--json")["jobs"] == [], "asked already"
    assert desk.ok("job", "approve", "--key", wang, "--yes", "--json")["signed"] == [
        {"job": made["id"], "complete": True}
    ]
    (row,) = desk.rows(select(t.job))
    assert verify(row.envelope, JOB_TYPE, there.release_keys()).keyids == (wang_id,), "the box knows no other yet"
    desk.do(update(t.job).values(state="SUCCEEDED"))
    assert desk.ok("key", "list", "--json")["behind"] == []
    assert desk.ok("job", "make-all", "root.update", "--json")["jobs"] == []
    assert [key.keyid for key in desk.repository.trust().release_keys()] == [li_id]


@pytest.mark.req("R-TUF-03")
def test_a_lower_threshold_reaches_boxes_that_want_the_higher_one_still(served):
    desk, wang, wang_id = served
    li, li_public, li_id = desk.new_key("li.key")
    desk.ok("key", "add", li_public, "--name", "Li", "--key", wang)
    desk.configure(release_threshold=2)
    desk.ok("key", "publish", "--key", wang, "--key", li)
    enrolled(desk, "box-0000001", SystemClock().now())
    there = desk.repository.trust()
    desk.ok("key", "publish", "--key", wang, "--key", li)
    assert desk.ok("key", "list", "--json")["behind"] == [], "signed again, and nothing changed"
    desk.configure(release_threshold=1)
    desk.ok("key", "publish", "--key", wang, "--key", li)
    assert desk.ok("key", "list", "--json")["behind"] == ["box-0000001"]
    desk.ok("job", "make-all", "root.update")
    desk.ok("job", "approve", "--key", wang, "--key", li, "--yes")
    (row,) = desk.rows(select(t.job))
    signed = verify(row.envelope, JOB_TYPE, there.release_keys(), threshold=there.release_threshold)
    assert set(signed.keyids) == {wang_id, li_id}


def test_many_boxes_are_asked_by_tenant_and_site_and_nobody_twice(served):
    desk, _, _ = served
    enrolled(desk, "box-0000001", SystemClock().now())
    assert desk.ok("job", "make-all", "ping", "--site", "site-0002", "--json")["jobs"] == []
    assert "no tenant" in desk.no("job", "make-all", "ping", "--tenant", "nobody")
    ping = ("job", "make-all", "ping", "--tenant", "hospital-01", "--site", "site-0001", "--json")
    assert [one["device"] for one in desk.ok(*ping)["jobs"]] == ["box-0000001"]
    assert desk.ok(*ping)["jobs"] == []
    desk.do(update(t.job).values(state="SUCCEEDED"))
    assert len(desk.ok(*ping)["jobs"]) == 1
    desk.do(update(t.device).values(state="disabled"))
    desk.do(update(t.job).values(state="SUCCEEDED"))
    assert desk.ok(*ping)["jobs"] == []
    assert "'restart' is not one of" in desk.no("job", "make-all", "restart"), "what touches the work of a box"


def test_boxes_that_cannot_be_reached_are_left_behind_only_when_that_is_said(served):
    desk, wang, _ = served
    enrolled(desk, "box-0000001", SystemClock().now())
    desk.ok("key", "rotate", "online", "--key", wang)
    desk.ok("key", "rotate", "online", "--finish", "--leave-behind", "--key", wang)
    (row,) = [row for row in desk.rows(select(t.audit)) if row.act == "key.rotate_online_finish"]
    assert row.detail["left_behind"] == 1


# The server's hourly look --------------------------------------------------------------------------------------------


def watch(desk, clock=None):
    return RepositoryWatch(desk.repository, desk.folder / KEYS, clock or SystemClock())


@pytest.mark.req("R-TUF-04")
def test_the_server_signs_at_its_start_and_tells_what_ends(served, caplog):
    desk, _, _ = served
    stamp = desk.repository.folder / "metadata/timestamp.json"
    before = stamp.read_bytes()
    look = watch(desk)
    look.look()
    signed = stamp.read_bytes()
    assert signed != before
    look.look()
    assert stamp.read_bytes() == signed
    assert not caplog.records

    class Later(SystemClock):
        def now(self):
            return super().now() + 160 * DAY

    watch(desk, Later()).look()
    assert "targets of the repository of models ends in 19 days; call 'scanside-fleet key publish" in caplog.text
    caplog.clear()
    (desk.folder / KEYS / "online.key").unlink()
    watch(desk).look()
    assert "is not signed anew" in caplog.text
    assert "does not know the server's key" in caplog.text


@pytest.mark.req("R-TUF-04")
def test_metrics_say_how_long_each_role_holds(served, desk, tmp_path):
    (family,) = RepositoryCollector(desk.repository, SystemClock()).collect()
    left = {sample.labels["role"]: sample.value / 86400 for sample in family.samples}
    assert {role: round(days) for role, days in left.items()} == {
        "timestamp": 7,
        "snapshot": 30,
        "targets": 180,
        "root": 730,
    }
    none = Repository(tmp_path / "none")
    assert not list(RepositoryCollector(none, SystemClock()).collect())
    RepositoryWatch(none, tmp_path, SystemClock()).look()
    assert not (tmp_path / "online.key").exists()
