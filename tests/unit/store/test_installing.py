"""Installing a package: what is refused leaves nothing, and kill -9 at any line leaves the old or the new."""

from __future__ import annotations

import json

import pytest
from forked_death import deaths_of, folder_in_memory
from install_killer import gate
from package_kit import make_signed_package
from package_rows_kit import NAME, PERSON, Acts

from appliance.clock import SystemClock
from appliance.errors import ConflictError
from appliance.store import Store, installing
from appliance.store.installing import PackageRefused, Site, install_package
from appliance.store.package_files import PackageFiles
from appliance.triage.packages import recover_packages
from engines.archive import pack
from engines.signing import generate
from engines.trial import TrialReport


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """Two versions of the toy package, and the key that signed them."""
    root = tmp_path_factory.mktemp("signed")
    key = generate("maker")
    public = make_signed_package(root / "one", key, version="1.0.0")
    make_signed_package(root / "two", key, version="2.0.0")
    (root / "maker.pub").write_text(public.pem())
    return root, public


def site(*keys, p95_ms=10.0, **changes):
    """A box whose children are played; ``changes`` bring the real ones back."""
    given = {"gate": gate, "trial": lambda *_: TrialReport(1.0, p95_ms, 1.0, 1), **changes}
    return Site(keys=keys, ct_deadline_s=180, xray_deadline_s=30, **given)


def folders(store):
    root = store.db.path.parent / "packages"
    return sorted(str(path.relative_to(root)) for path in root.glob("*/*")), sorted(p.name for p in root.glob(".*-*"))


@pytest.mark.req("R-OPERATE-08")
def test_signed_package_goes_through_gate_and_trial_and_lies_whole_in_its_slot(store, signed, tmp_path):
    root, key = signed
    real = Site(keys=[key], ct_deadline_s=180, xray_deadline_s=30, threads=1)
    new = install_package(store, pack(root / "one", tmp_path / "one.zip"), real, PERSON)
    (row,) = store.packages.all(NAME)
    assert (row.version, str(row.state), row.signed_by) == ("1.0.0", "installed", (key.keyid,))
    assert 0 < row.p95_ms == new.p95_ms
    assert folders(store) == ([f"{NAME}/1.0.0-{row.digest[:12]}"], [])
    names = {str(p.relative_to(root / "one")) for p in (root / "one").rglob("*") if p.is_file()}
    there = PackageFiles(store.db.path.parent).path(row.folder)
    assert {str(p.relative_to(there)) for p in there.rglob("*") if p.is_file()} == names


@pytest.mark.fault("T40")
@pytest.mark.req("R-OPERATE-08")
@pytest.mark.parametrize("fault", ["stranger", "altered", "slow", "no archive"])
def test_refused_package_leaves_nothing_and_the_old_one_runs_on(store, signed, tmp_path, fault):
    root, key = signed
    install_package(store, root / "one", site(key), PERSON)
    before = folders(store), store.journal.last_seq()
    source, asked, said = root / "two", site(key), ""
    if fault == "stranger":
        asked, said = site(generate("another").public), "trusted are"
    elif fault == "altered":
        source, said = tmp_path / "two", "CARD.md"
        asked = site(make_signed_package(source, version="2.0.0"))
        (source / "CARD.md").write_text("another text")
    elif fault == "slow":
        asked, said = site(key, p95_ms=15_001.0), "half of its deadline"
    else:
        source, said = tmp_path / "file.zip", "file.zip"
        source.write_bytes(b"no archive")
    with pytest.raises(PackageRefused) as refused:
        install_package(store, source, asked, PERSON)
    assert said in str(refused.value)
    assert str(source) in str(refused.value), "the message names what the person gave, not our copy"
    assert (folders(store), store.journal.last_seq()) == before


def test_one_installation_at_a_time(store, signed):
    root, key = signed
    with PackageFiles(store.db.path.parent).locked():
        with pytest.raises(ConflictError, match="being installed"):
            install_package(store, root / "one", site(key), PERSON)
        assert recover_packages(store) == 0, "nor does a start of the box take the folder away under it"


def test_conflict_is_found_before_the_package_is_tried(store, signed):
    root, key = signed
    install_package(store, root / "one", site(key), PERSON)

    def never(*_):
        raise AssertionError("the trial takes minutes")

    with pytest.raises(ConflictError, match="is installed"):
        install_package(store, root / "one", site(key, trial=never), PERSON)


def test_disk_that_is_full_is_told_and_leaves_nothing(store, signed, monkeypatch):
    root, key = signed

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(installing.shutil, "copyfile", full)
    with pytest.raises(PackageRefused, match="free space"):
        install_package(store, root / "one", site(key), PERSON)
    assert folders(store) == ([], [])


@pytest.fixture
def memory():
    with folder_in_memory() as folder:
        yield folder


@pytest.mark.fault("T40")
@pytest.mark.req("R-OPERATE-09")
def test_kill_at_every_line_leaves_the_old_or_the_new_version_and_nothing_half(signed, scale, memory):
    root, key = signed
    state = memory / "state"
    store = Store.open(state, SystemClock(), reserve_bytes=0)
    install_package(store, root / "one", site(key), PERSON)
    Acts(store).activate()
    (old,) = store.packages.folders()
    store.close()
    every = 1 if scale == 1.0 else 17
    told = deaths_of("install_killer.py", state, root / "two", root / "maker.pub", 1, every)
    assert len(told) > 10
    steps = set()
    for one in told:
        left, recovered = one["left"], one["recovered"]
        assert recovered["halves"] == [], one
        assert recovered["folders"] == recovered["known"], "a folder for every version, and no other"
        assert old in recovered["folders"], one
        assert left["chain"] == recovered["chain"] == 0
        assert left["states"] == recovered["states"]
        steps.add(json.dumps(left["states"], sort_keys=True))
    assert steps == {
        '{"1.0.0": "live"}',
        '{"1.0.0": "live", "2.0.0": "installed"}',
        '{"1.0.0": "retired", "2.0.0": "live"}',
    }
