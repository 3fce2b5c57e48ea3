"""Whole packages before the gate: what the limited child refuses, what it costs the parent, what it never opens."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import package_kit
import psutil
import pytest
import toy_packages
import yaml
from onnx import TensorProto

from engines.child import Limits, run_limited
from engines.errors import PackageError
from engines.gate import gate_package, handle
from engines.package import bundled_packages, load_package, sign_package
from engines.signing import generate

#: As GATE_LIMITS, with less memory to fill.
SMALL = Limits(wall_s=90, cpu_s=12, memory_mb=1024)
CASES = json.dumps([{"file": "a.npz", "origin": "phantom", "scores": {}}])


@pytest.fixture
def maker(tmp_path):
    """A maker's desk: an unsigned package to change, ``refused()`` signs it and gives the gate's lines."""

    class Maker:
        folder = package_kit.make_unsigned_package(tmp_path / "toy")
        key = generate("maker")

        def manifest(self, **changes):
            text = yaml.safe_dump(toy_packages.manifest(**changes), allow_unicode=True, sort_keys=False)
            (self.folder / "model.yaml").write_text(text)

        def asked(self):
            sign_package(self.folder, [self.key])
            return handle({"folder": str(self.folder), "keys": [self.key.public.pem()]}, lambda _: None)

        def refused(self):
            lines = self.asked()["refused"]
            assert all(str(self.folder) in line for line in lines)
            return "\n".join(lines)

    return Maker()


@pytest.mark.req("R-SIGN-06")
def test_a_signed_package_passes_and_the_report_says_what_was_seen(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    report = gate_package(tmp_path / "toy", [key])
    package = load_package(tmp_path / "toy", keys=[key])
    assert (report.name, report.version, report.digest) == (package.name, package.version, package.digest)
    assert report.signed_by == (key.keyid,)
    assert report.files == package.files
    (stage,) = report.stages
    assert (stage.onnx, stage.nodes, stage.opset) == ("model.onnx", 12, 17)
    assert 0 < stage.weights_mb < stage.peak_mb < 1


@pytest.mark.parametrize("folder", bundled_packages().values(), ids=bundled_packages().keys())
def test_bundled_packages_obey_every_rule_that_others_must(folder):
    assert "refused" not in handle({"folder": str(folder), "keys": []}, lambda _: None)


@pytest.mark.fault("T40")
@pytest.mark.req("R-SIGN-02")
def test_the_gate_opens_for_no_other_key_and_no_altered_file(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    with pytest.raises(PackageError, match="0 of 1 needed signatures hold"):
        gate_package(tmp_path / "toy", [generate().public])
    with (tmp_path / "toy" / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(PackageError, match=r"model\.onnx: was altered after it was signed") as caught:
        gate_package(tmp_path / "toy", [key])
    assert str(tmp_path / "toy") in str(caught.value)


def _nodes(megabytes):
    """A graph of millions of empty nodes: two bytes each in the file, a hundred times that in memory."""
    body = b"\x0a\x00" * (megabytes * 500_000)
    return b"\x08\x08\x3a" + _varint(len(body)) + body


def _varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _nested(depth):
    """An attribute that holds a graph whose node holds an attribute that ..."""
    body = b""
    for _ in range(depth):
        attribute = b"\x32" + _varint(len(body)) + body
        node = b"\x2a" + _varint(len(attribute)) + attribute
        body = b"\x0a" + _varint(len(node)) + node
    return b"\x08\x08\x3a" + _varint(len(body)) + body


@pytest.mark.req("R-SIGN-06", "R-FAULT-T39")
@pytest.mark.fault("T39")
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("nodes", "more than 1024 MB|more memory to read"), ("nested", "is no ONNX file"), ("loop", "operator Loop")],
)
def test_bombs_end_in_the_child_and_cost_the_parent_nothing(tmp_path, kind, complaint):
    folder = package_kit.make_unsigned_package(tmp_path / "toy")
    graph = {
        "nodes": lambda: _nodes(20),
        "nested": lambda: _nested(5000),
        "loop": lambda: toy_packages._loop_graph(2**62).SerializeToString(),
    }[kind]()
    (folder / "model.onnx").write_bytes(graph)
    del graph
    key = generate()
    sign_package(folder, [key])
    before = psutil.Process().memory_info().rss
    with pytest.raises(PackageError, match=complaint):
        gate_package(folder, [key.public], SMALL)
    assert psutil.Process().memory_info().rss - before < 20_000_000


@pytest.mark.req("R-FAULT-T39")
@pytest.mark.fault("T39")
def test_external_data_is_never_opened(maker):
    """The other file is a pipe: whoever opened it to read would wait for ever."""
    model = toy_packages._blob_graph()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../pipe.bin")
    os.mkfifo(maker.folder.parent / "pipe.bin")
    (maker.folder / "model.onnx").write_bytes(model.SerializeToString())
    sign_package(maker.folder, [maker.key])
    with pytest.raises(PackageError, match="lies in another file"):
        gate_package(maker.folder, [maker.key.public], SMALL)


@pytest.mark.req("R-SIGN-06")
@pytest.mark.fault("T39")
def test_broken_graphs_end_in_a_refusal_and_in_nothing_else(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "children"))
    (tmp_path / "model.onnx").write_bytes(toy_packages._blob_graph().SerializeToString())
    request = {"graph": str(tmp_path / "model.onnx"), "seed": 3, "count": 1500}
    answer = run_limited("fuzz_gate", request, Limits(wall_s=120, cpu_s=60, memory_mb=3072))
    assert answer["odd"] == []
    assert 0 < answer["passed"] < 1500  # names and weights may change within the rules


@pytest.mark.req("R-SIGN-08")
@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("golden/golden.json", None, "at least one case with which this box can try it"),
        ("golden/golden.json", "[]", "at least one case"),
        ("golden/golden.json", CASES.replace("phantom", "patient"), "origin: says phantom or synthesised"),
        ("golden/golden.json", '[{"file": "a.npz", "scores": {}}]', "origin: says phantom or synthesised"),
        ("golden/golden.json", CASES.replace("a.npz", "../../a.npz"), "golden/../../a.npz: a golden case names it"),
        ("golden/golden.json", "[3]", "file: names the .npz file"),
        ("golden/golden.json", '[{"file": "blob.npz", "file": "plain.npz"}]', "a key stands twice"),
        ("CARD.md", None, "CARD.md: is missing"),
        ("CARD.md", b"\xff\xfe", "CARD.md: is no UTF-8 text"),
        ("more.json", "{", "more.json: is no JSON"),
        ("more.json", "[" * 100_000, "more.json: is no JSON: nested too deep"),
        ("spare.onnx", b"", "spare.onnx: no stage names this graph"),
        ("spare.npz", b"", "spare.npz: neither a golden case nor calibration names it"),
    ],
)
def test_files_beside_the_graph_are_refused_with_what_to_do(maker, name, text, complaint):
    file = maker.folder / name
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert complaint in maker.refused()


def _npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def _npz(**arrays):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return held.getvalue()


def _saved(**arrays):
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.req("R-SIGN-08")
@pytest.mark.fault("T40")
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (lambda: b"no archive", "cannot be read as arrays of numbers"),
        (lambda: _saved(array=np.array([{}], object)), "only plain numbers"),
        (lambda: _saved(array=np.array(["text"])), "only plain numbers"),
        (lambda: _saved(array=np.array([1.0, np.nan])), "holds NaN or infinity"),
        (lambda: _npz(array=_npy(FLOATS % 10**15)), "more than is allowed"),
        (lambda: _npz(array=_npy(FLOATS % 10, bytes(20))), "is cut off"),
        (lambda: _npz(array=_npy(FLOATS % 10, bytes(44))), "holds more than it says"),
        (lambda: _npz(array=_npy(FLOATS % -1)), "only plain numbers"),
        (lambda: _npz(array=_npy("__import__('os').system('true')")), "cannot be read"),
        (lambda: _npz(array=_npy(FLOATS % 67_108_865)), "more than is allowed"),
        (lambda: _npz(**{f"a{n}": b"" for n in range(65)}), "65 arrays, at most 64"),
        (lambda: _saved(array=np.zeros(9))[:-30], "cannot be read"),
    ],
    ids=[
        *("text", "pickle", "strings", "NaN", "terabytes", "cut off", "too long", "negative", "code", "bomb", "many"),
        "half",
    ],
)
def test_array_files_are_numbers_within_limits_and_never_pickles(maker, data, complaint):
    (maker.folder / "golden" / "blob.npz").write_bytes(data())
    shown = maker.refused()
    assert "golden/blob.npz" in shown
    assert complaint in shown


def test_calibration_must_fit_the_graphs(maker):
    (maker.folder / "calibration.npz").write_bytes(_saved(image=np.zeros((4, 1, 1, 16, 16), np.float32)))
    maker.manifest(precisions=["fp32", "int8"], calibration={"file": "calibration.npz", "origin": "phantom"})
    assert maker.asked()["name"] == "toy-bright-blob"
    (maker.folder / "calibration.npz").write_bytes(_saved(image=np.zeros((1, 16, 16)), other=np.zeros(3)))
    shown = maker.refused()
    assert "'image' has shape (1, 16, 16); expected are samples of 4 dimensions" in shown
    assert "'other' is no input of a graph; known are ['image']" in shown
    (maker.folder / "calibration.npz").unlink()
    assert "calibration.npz: model.yaml names it under calibration, and it is missing" in maker.refused()


def test_profiles_and_metrics_that_name_nothing_are_refused(maker):
    maker.manifest(profiles={"picture": {which: [1, 1, 256, 256] for which in ("min", "opt", "max")}})
    assert "profiles: no graph has an input 'picture'; known are ['image']" in maker.refused()
    maker.manifest(metrics="metrics.json")
    assert "metrics.json: model.yaml names it under metrics" in maker.refused()
    maker.manifest(limits={"time_s": 1, "memory_mb": 0.1})
    assert "model.onnx: needs 0 MB at the largest shapes" in maker.refused()


def test_every_fault_of_a_package_is_told_at_once(maker):
    model = toy_packages._blob_graph()
    model.graph.node[0].op_type = "NonZero"
    onnx.save(model, maker.folder / "model.onnx")
    (maker.folder / "CARD.md").unlink()
    shutil.copy(maker.folder / "golden/blob.npz", maker.folder / "spare.npz")
    lines = maker.refused().splitlines()
    assert [line.removeprefix(f"{maker.folder}: ").split(":")[0] for line in lines] == [
        "model.onnx",
        "CARD.md",
        "spare.npz",
    ]
