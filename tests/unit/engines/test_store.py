"""The store of engines: states, keys, tampering, and what is left when a process is killed at any step."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "children"))
import store_deeds
from store_deeds import NEW, OLD, put

from engines.errors import BuildError
from engines.store import EngineStore


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "engines")


def serving(store, **more):
    return store.accept(put(store, **more).digest, {"passed": True})


def folder(store, entry):
    return store.root / "entries" / entry.digest


def ready(store):
    return store.ready("p" * 64, "tensorrt", "fp32")


# -- states --


@pytest.mark.req("R-BUILD-05")
def test_an_engine_serves_only_once_acceptance_has_spoken(store):
    entry = put(store)
    assert entry.state == "verifying"
    assert ready(store) is None
    accepted = store.accept(entry.digest, {"passed": True, "cases": 3})
    assert ready(store) == accepted == store.entry(entry.digest)
    assert accepted.report == {"passed": True, "cases": 3}
    assert store.plans(accepted) == [NEW]


@pytest.mark.req("R-BUILD-05")
def test_a_rejected_engine_never_serves_again(store):
    before = serving(store)
    entry = put(store)
    assert store.reject(entry.digest, "Dice 0.8", {"passed": False}).reason == "Dice 0.8"
    with pytest.raises(BuildError, match=r"was rejected \(Dice 0\.8\); build it again"):
        store.accept(entry.digest, {})
    assert ready(store) == before


def test_an_engine_of_another_package_precision_or_flavour_is_not_given(store):
    serving(store)
    assert store.ready("q" * 64, "tensorrt", "fp32") is None
    assert store.ready("p" * 64, "tensorrt_rtx", "fp32") is None
    assert store.ready("p" * 64, "tensorrt", "fp16") is None


def test_the_newest_ready_engine_serves_and_each_build_has_its_own_digest(store):
    first, second = serving(store), serving(store)
    assert first.digest != second.digest
    assert first.key.digest == second.key.digest
    assert ready(store) == second
    assert [e.digest for e in store.entries()] == [second.digest, first.digest]


def test_all_stages_lie_in_one_entry_in_order(store):
    entry = put(store, [OLD, NEW, b""])
    assert store.plans(entry) == [OLD, NEW, b""]


def test_another_process_sees_the_same_engines(store):
    entry = serving(store)
    again = EngineStore(store.root)
    assert again.plans(ready(again)) == [NEW]
    assert again.entry(entry.digest) == entry


@pytest.mark.req("R-BUILD-09")
def test_a_large_engine_is_found_checked_and_read_within_a_second(store):
    plan = os.urandom(1 << 20) * 40
    serving(store, plans=[plan])
    for _ in range(10):
        serving(store, package="q" * 64)
    begun = time.process_time()
    assert store.plans(ready(EngineStore(store.root))) == [plan]
    # Of this process, so that neighbours do not count; the file is in the page cache, as after a build.
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize("digest", ["../aside", "", "x" * 64, "a" * 63, "a" * 64])
def test_a_digest_that_is_none_names_no_path(store, digest):
    with pytest.raises(BuildError, match="no engine"):
        store.entry(digest)
    assert store.aside() == []


# -- tampering --


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def swap_plans(store, entry):
    other = put(store, [OLD])
    shutil.copy(folder(store, other) / "stage-0.plan", folder(store, entry) / "stage-0.plan")


def swap_stages(store, entry):
    one, two = (folder(store, entry) / f"stage-{k}.plan" for k in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def link_plan(store, entry):
    plan = folder(store, entry) / "stage-0.plan"
    plan.rename(store.root / "elsewhere.plan")
    plan.symlink_to(store.root / "elsewhere.plan")


def pipe_plan(store, entry):
    plan = folder(store, entry) / "stage-0.plan"
    plan.unlink()
    os.mkfifo(plan)


def truncate(store, entry):
    os.truncate(folder(store, entry) / "stage-0.plan", 100)


def lengthen(store, entry):
    with (folder(store, entry) / "stage-0.plan").open("ab") as plan:
        plan.write(b"more")


PLAN_DEEDS = {
    "a flipped byte": lambda store, entry: flip(folder(store, entry) / "stage-0.plan", 4000),
    "the plan of another engine": swap_plans,
    "the plan of another stage": swap_stages,
    "a link": link_plan,
    "a named pipe": pipe_plan,
    "a truncated plan": truncate,
    "a longer plan": lengthen,
    "no plan": lambda store, entry: (folder(store, entry) / "stage-1.plan").unlink(),
}


@pytest.mark.req("R-BUILD-06")
@pytest.mark.parametrize("deed", PLAN_DEEDS)
def test_a_plan_that_is_not_what_was_built_is_set_aside_and_never_given(store, deed, caplog):
    entry = serving(store, plans=[NEW, OLD])
    safe = serving(store, package="q" * 64)
    PLAN_DEEDS[deed](store, entry)
    with pytest.raises(BuildError, match=r"stage-\d.plan .*set aside in .*; build it again") as caught:
        store.plans(entry)
    assert caught.value.kind == "integrity"
    assert ready(store) is None
    (kept,) = store.aside()
    assert kept.name.startswith(entry.digest)
    assert "stage-" in kept.why
    assert (store.root / "aside" / kept.name / "entry.json").is_file()
    assert store.plans(safe) == [NEW]
    assert "is set aside" in caplog.text


def edit(change):
    def deed(store, entry):
        path = folder(store, entry) / "entry.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))

    return deed


def other_folder(store, entry):
    """The whole folder of an accepted engine in the place of one that was not."""
    other = serving(store, plans=[OLD])
    shutil.rmtree(folder(store, entry))
    shutil.copytree(folder(store, other), folder(store, entry))


def link_entry(store, entry):
    path = folder(store, entry) / "entry.json"
    path.rename(store.root / "elsewhere.json")
    path.symlink_to(store.root / "elsewhere.json")


def link_folder(store, entry):
    folder(store, entry).rename(store.root / "elsewhere")
    folder(store, entry).symlink_to(store.root / "elsewhere")


def respell(store, entry):
    path = folder(store, entry) / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


ENTRY_DEEDS = {
    "a flipped byte": lambda store, entry: flip(folder(store, entry) / "entry.json", 50),
    "accepted by hand": edit(lambda d: d["entry"].update(state="ready")),
    "another key": edit(lambda d: d["entry"]["key"].update(driver="1")),
    "no MAC": edit(lambda d: d.pop("mac")),
    "an empty MAC": edit(lambda d: d.update(mac="")),
    "spelled otherwise": respell,
    "no JSON": lambda store, entry: (folder(store, entry) / "entry.json").write_bytes(b"\xff{"),
    "another engine's folder": other_folder,
    "a link": link_entry,
    "a linked folder": link_folder,
    "no entry": lambda store, entry: (folder(store, entry) / "entry.json").unlink(),
    "a huge entry": lambda store, entry: os.truncate(folder(store, entry) / "entry.json", 1 << 30),
}


@pytest.mark.req("R-BUILD-06")
@pytest.mark.parametrize("deed", ENTRY_DEEDS)
def test_an_entry_that_is_not_what_was_written_is_set_aside_and_the_others_serve(store, deed):
    safe = serving(store)
    entry = put(store)
    ENTRY_DEEDS[deed](store, entry)
    assert entry.digest not in {e.digest for e in store.entries()}
    assert any(kept.name.startswith(entry.digest) for kept in store.aside())
    with pytest.raises(BuildError):
        store.plans(entry)
    assert store.plans(store.entry(safe.digest)) == [NEW]


@pytest.fixture
def failing(monkeypatch):
    """``failing(name, number)``: from now on a file of that name cannot be opened, with that error of the system."""
    really = os.open

    def fail(name, number):
        def opened(path, *args, **more):
            if str(path) == name:
                raise OSError(number, os.strerror(number), name)
            return really(path, *args, **more)

        monkeypatch.setattr(os, "open", opened)

    return fail


@pytest.mark.req("R-BUILD-06")
@pytest.mark.parametrize("file", ["entry.json", "stage-0.plan"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EACCES])
def test_an_engine_that_cannot_be_read_just_now_is_not_called_tampered_and_serves_again(
    store, failing, monkeypatch, file, number
):
    entry = serving(store)
    failing(file, number)
    with pytest.raises(BuildError, match="cannot be read now") as caught:
        store.plans(entry)
    assert caught.value.kind == "unreadable"
    assert ready(store) == (None if file == "entry.json" else entry)
    monkeypatch.undo()
    assert store.aside() == []
    assert store.plans(ready(store)) == [NEW]


@pytest.mark.req("R-BUILD-06")
def test_a_replaced_key_file_makes_every_engine_foreign(store):
    entry = serving(store)
    (store.root / "mac.key").write_bytes(os.urandom(32))
    again = EngineStore(store.root)
    with pytest.raises(BuildError, match=r"altered, or mac\.key was replaced") as caught:
        again.plans(entry)
    assert caught.value.kind == "integrity"
    assert ready(again) is None
    assert again.plans(serving(again)) == [NEW]


@pytest.mark.req("R-BUILD-06")
@pytest.mark.parametrize(
    "deed",
    [
        lambda path: path.chmod(0o640),
        lambda path: path.write_bytes(b"short"),
        lambda path: (path.rename(path.with_name("k")), path.symlink_to(path.with_name("k"))),
    ],
    ids=["readable by others", "damaged", "link"],
)
def test_a_key_file_that_is_not_ours_alone_is_refused(store, deed):
    deed(store.root / "mac.key")
    with pytest.raises(BuildError) as caught:
        EngineStore(store.root)
    assert caught.value.kind == "integrity"
    assert "mac.key" in str(caught.value)


def test_store_and_key_are_readable_by_their_owner_alone(store):
    entry = put(store)
    store.root.chmod(0o755)
    EngineStore(store.root)
    assert store.root.stat().st_mode & 0o777 == 0o700
    for path in (store.root / "mac.key", *folder(store, entry).iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_store_that_is_a_link_is_refused(store, tmp_path):
    (tmp_path / "link").symlink_to(store.root)
    with pytest.raises(BuildError, match="is a link or another user's"):
        EngineStore(tmp_path / "link")


def test_what_is_no_engine_among_the_entries_is_set_aside(store):
    (store.root / "entries" / "evil.engine").write_bytes(NEW)
    serving(store)
    assert len(store.entries()) == 1
    assert "evil.engine" in store.aside()[0].why


# -- gc --


def test_gc_keeps_the_newest_of_each_kind_what_serves_and_what_is_not_decided(store):
    old = [serving(store, version="10.2") for _ in range(2)]
    rejected = put(store)
    store.reject(rejected.digest, "no", {})
    new = [serving(store) for _ in range(2)]
    open_question = put(store)
    elsewhere = serving(store, flavour="onnxruntime")
    gone = store.gc(keep=2, serving={old[0].digest})
    assert set(gone) == {old[1].digest, rejected.digest}
    kept = {old[0].digest, new[0].digest, new[1].digest, open_question.digest, elsewhere.digest}
    assert {e.digest for e in store.entries()} == kept
    assert list((store.root / "work").iterdir()) == []


def test_gc_bounds_what_was_set_aside(store):
    for _ in range(13):
        entry = put(store)
        flip(folder(store, entry) / "entry.json")
        store.entries()
    newest = store.aside()[0]
    store.gc()
    assert len(store.aside()) == 10
    assert store.aside()[0] == newest
    assert len(list((store.root / "aside").iterdir())) == 20


# -- two builders --


@pytest.mark.req("R-BUILD-07")
def test_a_second_builder_is_told_who_builds(store):
    with store.building("first") as work:
        assert store.in_progress().package == "first"
        assert work.is_dir()
        with pytest.raises(BuildError, match=r"first since .* is being built"), store.building("second", wait_s=0):
            pytest.fail("two builders")
    assert store.in_progress() is None
    assert not work.exists()
    with store.building("second"):
        pass


@pytest.mark.req("R-BUILD-07")
def test_two_who_ask_at_once_whether_one_builds_do_not_take_each_other_for_a_builder(store, monkeypatch):
    flock, others = fcntl.flock, []

    def asked_meanwhile(*given):
        flock(*given)
        if not others:
            others.append("asks")
            others.append(store.in_progress())

    monkeypatch.setattr(fcntl, "flock", asked_meanwhile)
    assert store.in_progress() is None
    assert others == ["asks", None]


@pytest.mark.req("R-BUILD-07")
def test_a_second_builder_may_wait_for_its_turn(store, monkeypatch):
    begun, waits, order = threading.Event(), threading.Event(), []
    flock = fcntl.flock

    def seen(*given):
        try:
            flock(*given)
        except BlockingIOError:
            waits.set()
            raise

    monkeypatch.setattr(fcntl, "flock", seen)

    def first():
        with store.building("first"):
            begun.set()
            order.append("first")
            assert waits.wait(30)
            order.append("first done")

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)
    with store.building("second", wait_s=30):
        order.append("second")
    thread.join()
    assert order == ["first", "first done", "second"]


@pytest.mark.req("R-BUILD-07")
@pytest.mark.parametrize(("deed", "least"), [("put", 6), ("accept", 4), ("reject", 4), ("gc", 5), ("build", 10),
                                             ("aside", 4), ("open", 5)])  # fmt: skip
def test_a_process_killed_at_any_step_leaves_nothing_half(tmp_path, deed, least):
    if deed != "open":
        store_deeds.begin(EngineStore(tmp_path / "seed"))
    ran = subprocess.run(
        [sys.executable, store_deeds.__file__, str(tmp_path), deed],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    kills = int(ran.stdout)
    assert kills >= least
    for step in range(1, kills + 2):
        store = EngineStore(tmp_path / str(step))
        entries = store.entries()
        # Nobody tampered: whatever is there is whole. Only the deed "aside" damages one engine.
        assert (store.aside() == []) or deed == "aside", step
        damaged = {"aside"} & {deed}
        for entry in entries:
            if not (damaged and len(entry.plans) == 2):
                assert store.plans(entry) in ([OLD], [OLD, OLD], [NEW]), step
        if deed != "open":
            assert ready(store) is not None, step
        assert store.in_progress() is None
        with store.building("next") as work:
            assert [p.name for p in (store.root / "work").iterdir()] == [work.name], step
        assert store.plans(serving(store)) == [NEW]
