from __future__ import annotations

import io
import random
import shutil
import stat
import zipfile

import package_kit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.archive import pack, unpack
from engines.errors import PackageError
from engines.package import load_package

ZERO = "model.yaml"


def archive(path, members, kind=zipfile.ZIP_STORED):
    """A zip file of (name or ZipInfo, bytes) pairs, as anybody could write it."""
    with zipfile.ZipFile(path, "w", kind) as written:
        for name, data in members:
            written.writestr(name, data)
    return path


def refused(path, into):
    with pytest.raises(PackageError) as caught:
        unpack(path, into)
    assert not into.exists()
    assert not [entry for entry in into.parent.iterdir() if entry.name.startswith(".unpacking")]
    assert all(line.startswith(f"{path}") for line in str(caught.value).splitlines())
    return str(caught.value)


@pytest.mark.req("R-SIGN-05")
def test_a_package_comes_out_of_its_archive_as_it_went_in(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    first = pack(tmp_path / "toy", tmp_path / "a.zip").read_bytes()
    assert pack(tmp_path / "toy", tmp_path / "b.zip").read_bytes() == first
    package = load_package(unpack(tmp_path / "a.zip", tmp_path / "again"), keys=[key])
    assert package.digest == load_package(tmp_path / "toy", keys=[key]).digest
    assert package.signed_by == (key.keyid,)
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_a_deflated_archive_of_another_tool_is_read_too(tmp_path):
    path = archive(tmp_path / "a.zip", [("model.yaml", b"a: 1\n"), ("golden/a.json", b"[]")], zipfile.ZIP_DEFLATED)
    assert (unpack(path, tmp_path / "out") / "golden/a.json").read_bytes() == b"[]"


def link(name, kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.req("R-SIGN-04", "R-SIGN-05")
@pytest.mark.fault("T40")
@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("../../evil.json", b"")], "do not begin with '.'"),
        ([("/etc/evil.json", b"")], "names are made of"),
        ([(link("link.json"), b"/etc/passwd")], "is a link or a special file"),
        ([(link("pipe.json", stat.S_IFIFO), b"")], "is a link or a special file"),
        ([("GOLDEN/a.json", b""), ("golden/b.json", b"")], "only in capitals"),
        ([("a.json", b""), ("a.json/b.json", b"")], "a file and a folder"),
        ([("setup.py", b"import os")], "a package holds only"),
        ([(f"{n}.json", b"") for n in range(300)], "at most 256"),
    ],
)
def test_an_archive_that_would_reach_out_of_its_folder_is_refused(tmp_path, members, complaint):
    (tmp_path / "in").mkdir()
    assert complaint in refused(archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n"), *members]), tmp_path / "in" / "package")
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.fault("T40")
def test_a_name_that_ends_early_for_some_readers_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n"), ("aX.json", b"")])
    path.write_bytes(path.read_bytes().replace(b"aX.json", b"a\0.json"))
    assert "names are made of" in refused(path, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n"), (ZERO, b"a: 2\n")])
    assert "stands twice" in refused(path, tmp_path / "out")


@pytest.mark.fault("T40")
def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path):
    bomb = archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n"), ("zeros.json", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    assert "is a bomb" in refused(bomb, tmp_path / "out")
    liar = bytearray(bomb.read_bytes())
    at = liar.rindex(b"PK\x01\x02")
    liar[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    bomb.write_bytes(liar)
    refused(bomb, tmp_path / "out")


def test_an_archive_of_the_folder_instead_of_its_files_says_what_to_do(tmp_path):
    path = archive(tmp_path / "a.zip", [("toy/model.yaml", b"")])
    assert "zip what is in the folder, not the folder" in refused(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["encrypted", "lzma", "comment", "before", "after", "split", "empty", "text"])
def test_rare_and_mixed_archives_are_refused(tmp_path, kind):
    plain = archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n")])
    data = bytearray(plain.read_bytes())
    central = data.index(b"PK\x01\x02")
    if kind == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    elif kind == "lzma":
        data = bytearray(archive(plain, [(ZERO, b"a: 1\n")], zipfile.ZIP_LZMA).read_bytes())
    elif kind == "comment":
        data[-2:] = b"\x04\0"
        data += b"text"
    elif kind == "before":
        data[:0] = b"#!/bin/sh\n"
    elif kind == "after":
        data += b"more"
    elif kind == "split":
        data[-18] = 1
    else:
        data = bytearray(b"" if kind == "empty" else b"no archive at all, but long enough to hold an end record")
    plain.write_bytes(data)
    refused(plain, tmp_path / "out")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text("a./\\é", min_size=1, max_size=8), st.binary(max_size=20)), max_size=4))
def test_nothing_is_ever_written_outside_or_half(tmp_path, members):
    (tmp_path / "a.zip").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    names = {name for name, _ in members}
    data = io.BytesIO()
    archive(data, [(ZERO, b"a: 1\n"), *dict(members).items()])
    (tmp_path / "a.zip").write_bytes(data.getvalue())
    try:
        unpack(tmp_path / "a.zip", tmp_path / "out")
    except PackageError:
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
    else:
        files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
        assert files == {ZERO, *(name for name in names if not name.endswith("/"))}
        assert {entry.name for entry in tmp_path.iterdir()} == {"a.zip", "out"}


def test_damaged_archives_give_the_same_files_or_none(tmp_path):
    package_kit.make_unsigned_package(tmp_path / "toy")
    good = pack(tmp_path / "toy", tmp_path / "a.zip").read_bytes()
    expected = {
        name: (tmp_path / "toy" / name).read_bytes() for name in load_package(tmp_path / "toy", trusted=True).files
    }
    rng = random.Random(7)
    bad = tmp_path / "bad.zip"
    for number in range(100):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        bad.write_bytes(data if number % 5 else data[: rng.randrange(len(data))])
        out = tmp_path / f"out-{number}"
        try:
            unpack(bad, out)
        except PackageError:
            assert not out.exists()
        else:
            assert {path.read_bytes() for path in out.rglob("*") if path.is_file()} == set(expected.values())


def test_nothing_is_unpacked_over_what_is_there(tmp_path):
    path = archive(tmp_path / "a.zip", [(ZERO, b"a: 1\n")])
    (tmp_path / "out").mkdir()
    with pytest.raises(PackageError, match="exists already"):
        unpack(path, tmp_path / "out")


def test_a_folder_that_is_no_package_is_not_packed(tmp_path):
    (tmp_path / "toy").mkdir()
    with pytest.raises(PackageError, match=r"model\.yaml is missing"):
        pack(tmp_path / "toy", tmp_path / "a.zip")
    package_kit.make_unsigned_package(tmp_path / "other")
    (tmp_path / "other" / "run.sh").write_text("true")
    with pytest.raises(PackageError, match=r"run\.sh"):
        pack(tmp_path / "other", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
