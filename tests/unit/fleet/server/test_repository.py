"""The server's TUF repository, read by python-tuf's own client."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import shutil
import threading
from pathlib import Path

import pytest
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf_kit import DAY, FolderFetcher, TufKit, trust_of

from appliance.errors import ConfigError, ConflictError, NotFoundError, TransientError
from appliance.fleet.device.identity import Trust
from appliance.fleet.server import repository_rules as rules
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_files import METADATA, RepositoryFiles
from engines.sealed import locked
from engines.signing import generate

MODEL, OTHER = "models/ich-ct/2.0.0.zip", "models/ich-ct/2.1.0.zip"


@pytest.fixture
def kit(tmp_path):
    made = TufKit(tmp_path / "tuf")
    made.add_model(b"weights", "ich-ct", "2.0.0", "0123456789abcdef")
    return made


@pytest.fixture
def box(tmp_path):
    return tmp_path / "box"


def listed(kit, box, *, bootstrap=False, fetcher=None):
    """What a box is told of, fresh; it keeps its metadata from call to call."""
    updater = kit.updater(box, bootstrap=bootstrap or not (box / "root.json").exists(), fetcher=fetcher)
    updater.refresh()
    return {path for path in (MODEL, OTHER) if updater.get_targetinfo(path) is not None}


def fetched(kit, box, path=MODEL):
    updater = kit.updater(box)
    return Path(updater.download_target(updater.get_targetinfo(path))).read_bytes()


# What a box gets -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-TUF-01")
def test_a_box_fetches_what_release_keys_have_listed_and_learns_whose_signatures_count(kit, box):
    with kit.serve() as url:
        updater = kit.updater(box, url)
        found = updater.get_targetinfo(MODEL)
        told = {"package": "ich-ct", "version": "2.0.0", "digest": "0123456789abcdef", "min_agent": ""}
        assert found.custom["scanside"] == told
        assert Path(updater.download_target(found)).read_bytes() == b"weights"
        trust = Path(updater.download_target(updater.get_targetinfo("trust.json")))
        assert Trust.model_validate_json(trust.read_bytes()) == kit.trust


@pytest.mark.req("R-TUF-01")
def test_the_layout_is_the_one_that_boxes_ask_for(kit):
    timestamp = kit.metadata("timestamp.json").signed
    snapshot = kit.metadata(f"{timestamp.snapshot_meta.version}.snapshot.json").signed
    assert kit.metadata(f"{snapshot.meta['targets.json'].version}.targets.json").signed.targets.keys() == {
        MODEL,
        "trust.json",
    }
    assert timestamp.snapshot_meta.hashes["sha256"]
    assert snapshot.meta["targets.json"].hashes["sha256"]
    assert kit.root_bytes() == (kit.folder / METADATA / "1.root.json").read_bytes()
    blob = kit.blob(MODEL)
    assert blob.parent == kit.folder / "targets/models/ich-ct"
    assert blob.name.endswith(".2.0.0.zip")
    assert len(blob.name.split(".")[0]) == 64


@pytest.mark.req("R-TUF-01")
def test_a_withdrawn_model_is_offered_to_no_box(kit, box):
    assert listed(kit, box) == {MODEL}
    kit.withdraw(MODEL)
    assert listed(kit, box) == set()
    with pytest.raises(NotFoundError):
        kit.withdraw(MODEL)


# What an attacker between server and box can do ----------------------------------------------------------------------


@pytest.mark.req("R-TUF-02")
def test_a_tampered_model_is_not_taken(kit, box):
    kit.blob(MODEL).write_bytes(b"wei9hts")
    with pytest.raises(LengthOrHashMismatchError):
        fetched(kit, box)


@pytest.mark.req("R-TUF-02")
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_tampered_metadata_is_not_taken(kit, box, role):
    path = max((kit.folder / METADATA).glob(f"*{role}.json"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"expires":"2', b'"expires":"3'))
    assert path.read_bytes() != data
    with pytest.raises(RepositoryError):
        listed(kit, box)


@pytest.mark.req("R-TUF-02")
@pytest.mark.parametrize("what", ["all", "timestamp alone"])
def test_a_list_that_is_older_than_what_a_box_has_seen_is_not_taken(kit, box, tmp_path, what):
    shutil.copytree(kit.folder, tmp_path / "before")
    kit.withdraw(MODEL)
    assert listed(kit, box) == set()
    if what == "all":
        shutil.rmtree(kit.folder)
        shutil.copytree(tmp_path / "before", kit.folder)
    else:
        shutil.copy(tmp_path / "before" / METADATA / "timestamp.json", kit.folder / METADATA)
    with pytest.raises(BadVersionNumberError):
        listed(kit, box)


@pytest.mark.req("R-TUF-02")
def test_a_frozen_repository_ends_after_a_week_and_a_signature_of_the_server_mends_it(tmp_path, box):
    now = dt.datetime.now(dt.timezone.utc)
    kit = TufKit(tmp_path / "tuf", now=now - 8 * DAY)
    with pytest.raises(ExpiredMetadataError):
        listed(kit, box)
    kit.refresh(now, force=False)
    assert listed(kit, box) == set()


@pytest.mark.req("R-TUF-02")
@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_files_of_two_states_are_not_taken_together(kit, box, role):
    folder = kit.folder / METADATA
    old = max(folder.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
    data = old.read_bytes()
    kit.withdraw(MODEL)
    new = max(folder.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
    assert new != old
    new.write_bytes(data)
    with pytest.raises((RepositoryError, DownloadError)):
        listed(kit, box)


@pytest.mark.req("R-TUF-02")
def test_a_list_that_fewer_release_keys_signed_than_must_is_neither_made_nor_taken(tmp_path, box):
    keys = [generate("wang"), generate("li")]
    kit = TufKit(tmp_path / "tuf", release=keys, threshold=2)
    before = sorted((kit.folder / METADATA).iterdir())
    with pytest.raises(ConflictError, match="1 of 2 release keys") as told:
        kit.publish(signers=keys[:1])
    assert "--key" in str(told.value)
    assert sorted((kit.folder / METADATA).iterdir()) == before
    # The same by somebody who has the server, its key, and one release key.
    folder, now = kit.folder / METADATA, kit.now
    state = kit.metadata("timestamp.json").signed.snapshot_meta.version
    targets = rules.signed_bytes(rules.new_targets({}, state + 9, now), keys[:1])
    (folder / f"{state + 9}.targets.json").write_bytes(targets)
    snapshot = rules.signed_bytes(rules.new_snapshot(targets, state + 9, state + 9, now), [kit.online])
    (folder / f"{state + 9}.snapshot.json").write_bytes(snapshot)
    timestamp = rules.new_timestamp(snapshot, state + 9, state + 9, now)
    (folder / "timestamp.json").write_bytes(rules.signed_bytes(timestamp, [kit.online]))
    with pytest.raises(UnsignedMetadataError):
        listed(kit, box)


@pytest.mark.req("R-TUF-02")
def test_a_key_of_nobody_signs_nothing(kit):
    with pytest.raises(ConflictError, match="is no release key"):
        kit.publish(signers=[*kit.release, generate("eve")])
    with pytest.raises(ConfigError, match="does not know the server's key"):
        kit.publish(online=generate())
    with pytest.raises(ConfigError, match="does not know the server's key"):
        kit.repository.refresh(generate(), kit.now, force=True)


# Keys that change ----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-TUF-03")
def test_a_box_follows_the_chain_of_roots_over_three_changes_of_keys(kit, box):
    assert listed(kit, box) == {MODEL}
    for release, threshold in (([generate("b")], 1), ([generate("c"), generate("d")], 2), ([generate("e")], 1)):
        kit.rotate(release=release, threshold=threshold)
        kit.publish()
    assert (box / "root_history").is_dir()
    assert listed(kit, box) == {MODEL}
    assert (box / "root.json").read_bytes() == (kit.folder / METADATA / "4.root.json").read_bytes() == kit.root_bytes()
    assert kit.repository.trust() == kit.trust == trust_of([kit.online], kit.release)


@pytest.mark.req("R-TUF-03")
@pytest.mark.parametrize("signs", ["the old one alone", "the new one alone"])
def test_a_root_is_signed_by_enough_of_the_old_and_enough_of_the_new_keys(kit, signs):
    fresh = generate("b")
    signers = kit.release if signs == "the old one alone" else [fresh]
    with pytest.raises(ConflictError, match="0 of 1 release keys"):
        kit.rotate(release=[fresh], signers=signers)
    assert not (kit.folder / METADATA / "2.root.json").exists()


@pytest.mark.req("R-TUF-03")
def test_a_root_that_the_old_keys_have_not_signed_is_not_taken(kit, box):
    assert listed(kit, box) == {MODEL}
    eve = generate("eve")
    root = rules.new_root(trust_of([kit.online], [eve]), 2, kit.now)
    (kit.folder / METADATA / "2.root.json").write_bytes(rules.signed_bytes(root, [eve]))
    with pytest.raises(UnsignedMetadataError):
        listed(kit, box)


@pytest.mark.req("R-TUF-03")
def test_the_servers_key_changes_in_two_steps_and_a_box_that_missed_both_follows(kit, box):
    assert listed(kit, box) == {MODEL}
    old, new = kit.online, generate("new")
    kit.rotate(online=[old, new])
    assert listed(kit, box) == {MODEL}
    kit.online = new
    kit.rotate(online=[new])
    kit.refresh()
    assert listed(kit, box) == {MODEL}
    with pytest.raises(ConfigError):
        kit.repository.refresh(old, kit.now, force=True)


@pytest.mark.req("R-TUF-03")
def test_too_few_release_keys_make_no_repository(tmp_path):
    key, online = generate(), generate()
    trust = trust_of([online], [key], threshold=2)
    with pytest.raises(ConfigError, match="scanside-fleet key new"):
        Repository(tmp_path / "tuf").create(trust, [key], online, dt.datetime.now(dt.timezone.utc))
    assert not (tmp_path / "tuf").exists()


# Killed, read meanwhile, restored ------------------------------------------------------------------------------------


class Killed(BaseException):
    """In the place of kill -9: nothing of ours catches it."""


def killing(monkeypatch, at, *, after):
    """Die at the ``at``-th step, before or after it became true; returns what counts the steps."""
    steps = []
    write = RepositoryFiles.write

    def step(path, data):
        steps.append(path.name)
        if len(steps) == at and not after:
            path.with_name(f"{path.name}.part").write_bytes(data[: len(data) // 2])
            raise Killed
        write(path, data)
        if len(steps) == at:
            raise Killed

    monkeypatch.setattr(RepositoryFiles, "write", staticmethod(step))
    return steps


def add(kit):
    kit.add_model(b"other weights", "ich-ct", "2.1.0", "fedcba9876543210")


def rotate(kit):
    """Other release keys and another threshold; with the model of ``add``."""
    if not hasattr(kit, "fresh"):
        kit.fresh = [generate("b"), generate("c")]
    first = kit.trust.release_keys()[0]
    signers = {key.raw: key for key in (*kit.first, *kit.fresh) if key.public.raw == first.raw or key in kit.fresh}
    trust = trust_of([kit.online], kit.fresh, 2)
    target = kit.repository.put(kit.blob(MODEL), OTHER, {})
    try:
        kit.publish(signers=list(signers.values()), trust=trust, add=[target])
    except ConflictError:
        # The root was there already when it died: the old key has no say any more.
        kit.publish(signers=kit.fresh, trust=trust, add=[target])
    kit.release, kit.trust = kit.fresh, trust


def sign_again(kit):
    kit.refresh(kit.now + dt.timedelta(minutes=1))


@pytest.mark.req("R-TUF-01")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("act", "steps"), [(add, 3), (rotate, 6), (sign_again, 2)])
def test_killed_at_any_step_a_box_reads_the_old_or_the_new_and_the_next_call_goes_on(
    tmp_path, monkeypatch, act, steps, after
):
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        kit = TufKit(folder / "tuf")
        kit.first = list(kit.release)
        kit.add_model(b"weights", "ich-ct", "2.0.0", "0123456789abcdef")
        assert listed(kit, folder / "box") == {MODEL}
        with monkeypatch.context() as patch:
            seen = killing(patch, at, after=after)
            with pytest.raises(Killed):
                act(kit)
        assert len(seen) == at
        for bootstrap in (False, True):
            assert listed(kit, folder / "box", bootstrap=bootstrap) in ({MODEL}, {MODEL, OTHER}), seen
        with monkeypatch.context() as patch:
            whole = killing(patch, 99, after=False)
            act(kit)
        kit.refresh()
        assert listed(kit, folder / "box") == ({MODEL} if act is sign_again else {MODEL, OTHER})
        assert kit.root_bytes() == max((kit.folder / METADATA).glob("*.root.json")).read_bytes()
        assert len(whole) >= 1
    # Else a step was added that this test does not die at.
    kit = TufKit(tmp_path / "count/tuf")
    kit.first = list(kit.release)
    kit.add_model(b"weights", "ich-ct", "2.0.0", "0123456789abcdef")
    with monkeypatch.context() as patch:
        whole = killing(patch, 99, after=False)
        act(kit)
    assert len(whole) == steps, whole


@pytest.mark.req("R-TUF-01")
def test_killed_while_it_is_made_it_is_not_there_or_whole(tmp_path, monkeypatch):
    for at in range(1, 7):
        kit = TufKit.__new__(TufKit)
        kit.folder, kit.now = tmp_path / str(at), dt.datetime.now(dt.timezone.utc)
        kit.release, kit.online = [generate("release")], generate("online")
        kit.trust, kit.repository = trust_of([kit.online], kit.release), Repository(kit.folder)
        with monkeypatch.context() as patch:
            killing(patch, at, after=True)
            with pytest.raises(Killed):
                kit.repository.create(kit.trust, kit.release, kit.online, kit.now)
        if not kit.repository.exists():
            assert not (kit.folder / METADATA / "root.json").exists()
            kit.repository.create(kit.trust, kit.release, kit.online, kit.now)
        kit.refresh()
        assert listed(kit, tmp_path / f"box-{at}") == set()


@pytest.mark.req("R-TUF-01")
def test_a_box_that_reads_while_the_list_changes_gets_one_whole_state(kit, box):
    assert listed(kit, box) == {MODEL}
    changed = []

    def change(url):
        # After the timestamp was read, all of the list changes.
        if url.endswith(".snapshot.json") and not changed:
            changed.append(url)
            kit.withdraw(MODEL)
            kit.refresh()

    kit.refresh(kit.now + dt.timedelta(minutes=1))
    assert listed(kit, box, fetcher=FolderFetcher(kit.folder, change)) == {MODEL}
    assert changed
    assert listed(kit, box) == set()


@pytest.mark.req("R-TUF-01", "R-TUF-03")
@pytest.mark.parametrize("first", [0, 1, 2])
def test_whatever_a_box_reads_before_and_after_each_step_of_a_change_of_keys_is_one_state(tmp_path, monkeypatch, first):
    kit = TufKit(tmp_path / "tuf")
    kit.add_model(b"weights", "ich-ct", "2.0.0", "0123456789abcdef")
    listed(kit, tmp_path / "known")
    states, write = [shutil.copytree(kit.folder, tmp_path / "0")], RepositoryFiles.write

    def step(path, data):
        write(path, data)
        states.append(shutil.copytree(kit.folder, tmp_path / str(len(states))))

    with monkeypatch.context() as patch:
        patch.setattr(RepositoryFiles, "write", staticmethod(step))
        kit.now += dt.timedelta(seconds=5)
        kit.rotate(release=[generate("b")], online=[kit.online, generate("next")])
    # Root, timestamp, snapshot, targets: each from the state that was there when it was asked for.
    for schedule in list(itertools.combinations_with_replacement(states, 4))[first::3]:
        box, asked = shutil.copytree(tmp_path / "known", tmp_path / "box", symlinks=True), iter(schedule)
        fetcher = FolderFetcher(kit.folder)
        fetcher.told = lambda _: setattr(fetcher, "folder", next(asked, states[-1]))  # noqa: B023 - called at once
        assert listed(kit, box, fetcher=fetcher) == {MODEL}
        shutil.rmtree(box)


@pytest.mark.req("R-TUF-01")
def test_a_server_from_an_older_backup_is_believed_after_its_start(kit, box, tmp_path):
    shutil.copytree(kit.folder, tmp_path / "backup")
    for hour in range(1, 4):
        kit.refresh(kit.now + dt.timedelta(hours=hour))
    assert listed(kit, box) == {MODEL}
    shutil.rmtree(kit.folder)
    shutil.copytree(tmp_path / "backup", kit.folder)
    with pytest.raises(BadVersionNumberError):
        listed(kit, box)
    kit.refresh(kit.now + DAY)
    assert listed(kit, box) == {MODEL}


@pytest.mark.req("R-TUF-01", "R-TUF-03")
def test_a_change_of_keys_that_a_backup_does_not_know_is_made_once_more(kit, box, tmp_path):
    shutil.copytree(kit.folder, tmp_path / "backup")
    old, new = kit.release, [generate("b")]
    kit.rotate(release=new)
    assert listed(kit, box) == {MODEL}
    shutil.rmtree(kit.folder)
    shutil.copytree(tmp_path / "backup", kit.folder)
    kit.release, kit.now = old, kit.now + DAY
    kit.rotate(release=new)
    assert listed(kit, box) == {MODEL}


@pytest.mark.req("R-TUF-01")
def test_many_changes_at_once_all_count(kit):
    failed = []

    def bring(number):
        try:
            own = Repository(kit.folder, wait_s=120)  # each may have to wait for all others
            target = own.put(kit.blob(MODEL), f"models/ich-ct/{number}.zip", {})
            own.publish(kit.release, kit.online, kit.now, add=[target])
            own.refresh(kit.online, kit.now, force=True)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert kit.repository.targets().keys() >= {f"models/ich-ct/{number}.zip" for number in range(6)}


@pytest.mark.req("R-TUF-01")
def test_who_finds_another_at_it_says_so(kit):
    with locked(kit.folder / "repository.lock"), pytest.raises(TransientError, match="try again"):
        Repository(kit.folder, wait_s=0).refresh(kit.online, kit.now, force=True)


# What the server does by itself --------------------------------------------------------------------------------------


@pytest.mark.req("R-TUF-04")
def test_the_server_signs_well_before_the_end_and_not_more_often(kit):
    assert not kit.refresh(kit.now + dt.timedelta(hours=1), force=False)
    assert kit.refresh(kit.now + dt.timedelta(hours=25), force=False)
    assert not kit.refresh(kit.now + dt.timedelta(hours=26), force=False)
    before = kit.metadata("timestamp.json").signed.snapshot_meta.version
    assert kit.refresh(kit.now + 16 * DAY, force=False)
    assert kit.metadata("timestamp.json").signed.snapshot_meta.version > before
    ends = {one.role: one for one in kit.repository.check(kit.now + 16 * DAY)}
    assert [ends[role].left.days for role in ("timestamp", "snapshot")] == [6, 29]


@pytest.mark.req("R-TUF-04")
def test_what_people_must_sign_is_told_in_time(kit):
    def soon(days):
        kit.refresh(kit.now + days * DAY)
        return {one.role for one in kit.repository.check(kit.now + days * DAY) if one.is_soon}

    assert soon(149) == set()
    assert soon(151) == {"targets"}
    assert {one.role for one in kit.repository.check(kit.now + 181 * DAY) if one.is_over} >= {"targets"}
    kit.publish(now=kit.now + 170 * DAY)
    assert soon(171) == set()
    assert kit.publish(now=kit.now + 400 * DAY) == 2, "the root is renewed with whatever is signed in its second year"


@pytest.mark.req("R-TUF-04")
def test_what_was_replaced_goes_a_week_later_and_nothing_else(kit, box):
    blob = kit.blob(MODEL)
    kit.withdraw(MODEL)
    kit.rotate(release=[generate("b")])
    many = set((kit.folder / METADATA).iterdir())
    half = [kit.folder / METADATA / "9.targets.json.part", kit.folder / "incoming-x/package/model.yaml"]
    for path in half:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    kit.refresh(kit.now + 6 * DAY)
    assert blob.exists()
    assert many <= set((kit.folder / METADATA).iterdir())
    kit.refresh(kit.now + 9 * DAY)
    assert not blob.exists()
    assert not any(path.exists() for path in half), "what a killed command left"
    names = [path.name.split(".", 1)[-1] for path in (kit.folder / METADATA).iterdir()]
    assert sorted(names).count("targets.json") == 1
    assert names.count("root.json") == 2
    assert listed(kit, box) == set()


@pytest.mark.req("R-TUF-04")
def test_what_is_old_when_it_is_replaced_stays_a_week_too(kit):
    snapshot = f"{kit.metadata('timestamp.json').signed.snapshot_meta.version}.snapshot.json"
    targets = f"{kit.metadata(snapshot).signed.meta['targets.json'].version}.targets.json"
    before = [kit.blob(MODEL), kit.folder / METADATA / snapshot, kit.folder / METADATA / targets]
    for path in before:
        os.utime(path, (0, 0))
    kit.withdraw(MODEL)
    kit.refresh(kit.now + dt.timedelta(hours=1))
    assert all(path.exists() for path in before), "a box that began to read it goes on"


@pytest.mark.req("R-TUF-04")
def test_a_damaged_folder_is_told_and_nothing_is_written(kit):
    path = max((kit.folder / METADATA).glob("*.targets.json"))
    path.write_bytes(b"{}")
    for act in (kit.publish, kit.refresh, lambda: kit.repository.check(kit.now)):
        with pytest.raises(ConfigError, match="from a backup"):
            act()


@pytest.mark.req("R-TUF-01")
@pytest.mark.parametrize("path", ["../x", "models/../../x", "/x", "a//b", ".x", "models/.hidden", "a/b/c/d/e", "a b"])
def test_no_target_leads_out_of_the_folder(kit, path, tmp_path):
    with pytest.raises(ConfigError, match="no path of a target"):
        kit.repository.put(kit.blob(MODEL), path, {})


@pytest.mark.req("R-TUF-01")
def test_what_cannot_be_read_leaves_nothing(kit, tmp_path):
    with pytest.raises(ConfigError, match="cannot be kept"):
        kit.repository.put(tmp_path / "none.zip", OTHER, {})
    assert list((kit.folder / "targets/models/ich-ct").iterdir()) == [kit.blob(MODEL)]
    with pytest.raises(DownloadHTTPError):
        next(FolderFetcher(kit.folder).fetch("/v1/tuf/targets/none"))
