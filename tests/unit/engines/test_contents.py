from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.contents import (
    FileFacts,
    coverage_faults,
    file_facts,
    name_faults,
    parse_statement,
    read_file,
    statement,
    walk,
)
from engines.errors import PackageError

FACTS = st.builds(FileFacts, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 10**9))
NAMES = st.from_regex(r"([a-z]{1,3}/){0,2}[A-Za-z0-9_]{1,4}\.(json|onnx|npz|md)", fullmatch=True)
FILES = st.dictionaries(NAMES, FACTS, max_size=5)


@given(st.lists(st.text("aA./\\é\0 -_json", min_size=1, max_size=12) | NAMES, max_size=6))
def test_names_that_pass_stay_inside_the_folder_and_are_one_file_each_on_any_disk(names):
    if name_faults(names):
        return
    paths = [PurePosixPath("/package", name) for name in names]
    assert all(Path(os.path.normpath(p)) == Path(p) and str(p).startswith("/package/") for p in paths)
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(folded) == len(names)
    assert not any(a != b and b.startswith(a + "/") for a in folded for b in folded)


@pytest.mark.req("R-SIGN-04")
@pytest.mark.fault("T40")
@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["../a.json"], "do not begin with '.'"),
        (["/etc/a.json"], "names are made of"),
        (["a//b.json"], "names are made of"),
        (["a\\b.json"], "names are made of"),
        (["a.json\0"], "names are made of"),
        (["a.json\n"], "names are made of"),
        (["mod\u00e9l.json"], "names are made of"),
        (["\uff4d.json"], "names are made of"),
        ([".hidden.json"], "do not begin with '.'"),
        (["run.py"], "a package holds only"),
        (["model.so"], "a package holds only"),
        (["model"], "a package holds only"),
        (["a/b/c/d.json"], "more than 3 levels deep"),
        (["A.json", "a.json"], "only in capitals"),
        (["Golden/a.json", "golden/b.json"], "only in capitals"),
        (["a.json", "a.json"], "stands twice"),
        (["a.json", "a.json/b.json"], "a file and a folder"),
        (["Signature.json"], "spelled SIGNATURE.json"),
    ],
)
def test_names_that_could_lead_elsewhere_or_be_run_are_refused(names, complaint):
    assert any(complaint in line for line in name_faults(names))


@pytest.mark.req("R-SIGN-03")
@given(FILES, FILES)
def test_a_signature_covers_exactly_the_files_that_are_there(signed, found):
    parsed = parse_statement(statement("a-package", "1.0.0", signed))
    faults = coverage_faults(parsed, found)
    assert (faults == []) == (signed == found)
    differing = {name for name in signed.keys() | found.keys() if signed.get(name) != found.get(name)}
    assert {line.split(":")[0] for line in faults} == differing


@given(st.binary(max_size=60))
def test_what_is_no_statement_is_refused_and_nothing_else_happens(data):
    with pytest.raises(PackageError):
        parse_statement(data)


def test_another_spelling_of_the_same_statement_is_refused():
    payload = statement("a-package", "1.0.0", {"a.json": FileFacts("0" * 64, 1)})
    assert parse_statement(payload).name == "a-package"
    for other in (payload.replace(b":", b": "), payload.replace(b"a-package", b"\\u0061-package"), payload + b"\n"):
        with pytest.raises(PackageError, match="canonical"):
            parse_statement(other)
    with pytest.raises(PackageError, match="no list of files"):
        parse_statement(payload.replace(b'"schema":1', b'"schema":2'))


@pytest.mark.req("R-SIGN-04")
@pytest.mark.fault("T40")
@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "dangling"])
def test_links_and_pipes_in_a_folder_are_refused_and_not_opened(tmp_path, kind):
    (tmp_path / "outside.json").write_text("{}")
    folder = tmp_path / "package"
    folder.mkdir()
    odd = folder / "odd.json"
    {
        "link": lambda: odd.symlink_to(tmp_path / "outside.json"),
        "linked folder": lambda: odd.symlink_to(tmp_path),
        "pipe": lambda: os.mkfifo(odd),
        "dangling": lambda: odd.symlink_to("nowhere"),
    }[kind]()
    with pytest.raises(PackageError, match=r"odd\.json'?: is no plain file"):
        walk(folder)
    for read in (read_file, file_facts):
        with pytest.raises(PackageError, match="no plain file"):
            read(odd)


def test_too_many_files_and_deep_folders_are_refused(tmp_path):
    for number in range(300):
        (tmp_path / f"{number}.json").touch()
    with pytest.raises(PackageError, match="more than 256 files"):
        walk(tmp_path)
    deep = tmp_path / "deep" / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    with pytest.raises(PackageError, match="no plain file"):
        walk(tmp_path / "deep")
    with pytest.raises(PackageError, match="no folder that can be read"):
        walk(tmp_path / "nowhere")


def test_a_file_over_the_limit_is_not_read(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with pytest.raises(PackageError, match="has 5 bytes; at most 4 are read"):
        read_file(file, 4)
