"""A package over the page: what no trusted maker signed is refused in plain words, what is good runs nowhere yet."""

from __future__ import annotations

import json
import shutil

import pytest
from admin_kit import FakeTools, served
from package_kit import make_signed_package, make_unsigned_package
from package_rows_kit import NAME

from appliance.box_tools import BoxTools
from appliance.config import Config
from appliance.errors import ConflictError
from appliance.screen import model_upload
from appliance.store.facts import Kind
from appliance.store.package_rows import PackageState
from engines.archive import pack
from engines.package import sign_package
from engines.signing import generate

pytestmark = pytest.mark.req("R-ADMIN-04")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Archives by name, and the file of the key that the box trusts."""
    root = tmp_path_factory.mktemp("packages")
    key = generate("maker")
    public = make_signed_package(root / "good", key, version="1.0.0")
    (root / "maker.pub").write_text(public.pem())
    make_unsigned_package(root / "unsigned")
    make_signed_package(root / "stranger", generate("somebody"))
    shutil.copytree(root / "good", root / "tampered")
    (root / "tampered" / "CARD.md").write_text("Finds everything.\n")
    make_unsigned_package(root / "too new")
    text = (root / "too new" / "model.yaml").read_text()
    (root / "too new" / "model.yaml").write_text(text.replace("schema: 1", "schema: 9"))
    with pytest.raises(Exception, match="schema"):
        sign_package(root / "too new", [key])
    found = {name: pack(root / name, root / f"{name}.zip") for name in ("good", "unsigned", "stranger", "tampered")}
    found["too new"] = _signed_as_it_is(root / "too new", key, root / "too new.zip")
    found["no archive"] = root / "picture.zip"
    found["no archive"].write_bytes(b"\x89PNG" * 1000)
    return found, root / "maker.pub"


def _signed_as_it_is(folder, key, target):
    """As a maker with a newer version of this software would sign it."""
    from engines.contents import PAYLOAD_TYPE, SIGNATURE_NAME, file_facts, statement, walk
    from engines.signing import sign

    facts = {name: file_facts(folder / name) for name in walk(folder)}
    (folder / SIGNATURE_NAME).write_bytes(sign(PAYLOAD_TYPE, statement("toy-bright-blob", "9.0.0", facts), [key]))
    return pack(folder, target)


@pytest.fixture
def config(files):
    return Config.model_validate({"trusted_keys": [str(files[1])], "triage": {"worker_threads": 1}})


def send(person, data, language="en", **headers):
    if "scanside_csrf" not in person.client.cookies:
        person.get("/sign-in")
    token = {"X-CSRF-Token": person.client.cookies["scanside_csrf"], "Content-Type": "application/zip"}
    return person.client.post(f"/models/install?lang={language}", content=data, headers=token | headers, timeout=120)


def test_m1_what_is_not_signed_or_does_not_fit_is_refused_and_the_good_one_is_there_and_runs_nowhere(
    store, clock, scenes, files, config
):
    """M1."""
    tools = BoxTools(config, store, clock, settings=None, ports=lambda: (0, 0), on_restart=None)
    archives = {name: path.read_bytes() for name, path in files[0].items()}
    with served(store, clock, scenes.packages(), config=config, tools=tools) as somebody:
        ada = somebody("administrator")
        for name, said, line in (
            ("unsigned", model_upload.NOT_SIGNED, "is not signed: SIGNATURE.json is missing"),
            ("stranger", "已拒绝：文件未经厂商签名。", "trusted are"),
            ("tampered", model_upload.REFUSED, "CARD.md"),
            ("too new", model_upload.REFUSED, "schema"),
            ("no archive", model_upload.REFUSED, "the file"),
        ):
            answer = send(ada, archives[name], language="zh_Hans_CN" if name == "stranger" else "en")
            assert (answer.status_code, answer.json()["refused"]) == (422, said), name
            assert line in "\n".join(answer.json()["lines"]), name
            assert str(store.db.path.parent) not in answer.text
        assert store.packages.all(NAME) == []
        answer = send(ada, archives["good"])
        assert (answer.status_code, answer.json()) == (201, {"package": NAME, "version": "1.0.0"})
        (row,) = store.packages.all(NAME)
        assert (row.state, row.signed_by != ()) == (PackageState.INSTALLED, True)
        assert "Installed, does not run" in ada.get("/models").text
        (fact,) = store.journal.after(0, 100, (Kind.PACKAGE_INSTALLED,))
        assert fact.actor["name"] == "Ada Administrator"
        assert send(ada, archives["good"]).status_code == 409
        started = ada.post(f"/models/{NAME}/1.0.0/activate", **{"as": "silent"}, days="7", studies="50", reason="new")
        assert started.status_code == 200
        assert store.packages.all(NAME)[0].state is PackageState.SILENT
    assert not (store.db.path.parent / "uploads").exists()


class Watched(FakeTools):
    """Keeps what it was given to install."""

    def __init__(self):
        super().__init__()
        self.given = []

    def install(self, source, actor):
        self.given.append((source.read_bytes(), actor.name))
        raise ConflictError("it is here already")


def test_a_file_that_is_too_large_of_another_kind_or_from_elsewhere_is_not_taken(
    store, clock, scenes, monkeypatch, config
):
    tools = Watched()
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        ada = somebody("administrator")
        for role in ("service", "radiologist", "technologist", "viewer", "screen"):
            assert send(somebody(role), b"x").status_code == 403
        assert send(ada, b"x", **{"X-CSRF-Token": "0" * 32}).status_code == 403
        assert send(ada, b"x", **{"Content-Type": "text/plain"}).status_code == 415
        assert send(ada, b"").status_code == 413
        monkeypatch.setattr(model_upload, "MOST_BYTES", 10)
        assert send(ada, b"x" * 11).status_code == 413
        monkeypatch.setattr(model_upload, "MOST_BYTES", 10**7)
        store.spool.reserve_bytes = store.spool.free_bytes() + 2**40
        full = send(ada, b"x" * 1000)
        assert (full.status_code, "no room" in full.text) == (409, True)
        store.spool.reserve_bytes = 0
        assert tools.given == []
        whole = json.dumps(list(range(300_000))).encode()
        assert send(ada, whole).status_code == 409
        assert tools.given == [(whole, "Ada Administrator")]
        assert "Check and install" in ada.get("/models").text
        assert "Check and install" not in somebody("service").get("/models").text
    assert not (store.db.path.parent / "uploads").exists()
