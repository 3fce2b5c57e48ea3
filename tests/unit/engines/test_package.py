from __future__ import annotations

import hashlib

import package_kit
import pytest
import toy_packages
import yaml

from engines.contents import PAYLOAD_TYPE, SIGNATURE_NAME, file_facts, statement
from engines.errors import PackageError, SignatureError
from engines.manifest import Manifest, Range
from engines.package import bundled_packages, load_package, parse_manifest
from engines.signing import generate, sign


def _text(**changes):
    return yaml.safe_dump(toy_packages.manifest(**changes), allow_unicode=True, sort_keys=False)


def _line_of(text, wanted):
    return next(n for n, line in enumerate(text.splitlines(), 1) if wanted in line)


@pytest.mark.req("R-ENGINE-01")
def test_every_bundled_package_loads_and_is_trusted():
    names = [load_package(folder).name for folder in bundled_packages().values()]
    assert "head-ct-hyperdensity" in names
    assert names == list(bundled_packages()), "its folder is called like it"


@pytest.mark.req("R-ENGINE-01", "R-SIGN-03")
def test_package_from_elsewhere_needs_a_trusted_signature(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    assert load_package(tmp_path / "toy", keys=[key]).signed_by == (key.keyid,)
    with pytest.raises(SignatureError, match="no key is trusted here"):
        load_package(tmp_path / "toy")
    with pytest.raises(SignatureError, match="0 of 1 needed signatures hold"):
        load_package(tmp_path / "toy", keys=[generate().public])
    (tmp_path / "toy" / "SIGNATURE.json").unlink()
    with pytest.raises(SignatureError, match="is not signed"):
        load_package(tmp_path / "toy", keys=[key])
    assert load_package(tmp_path / "toy", trusted=True).signed_by == ()


@pytest.mark.req("R-SIGN-03")
@pytest.mark.fault("T40")
def test_every_file_of_a_signed_package_is_covered(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    for name in load_package(tmp_path / "toy", keys=[key]).files:
        file = tmp_path / "toy" / name
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(PackageError, match=f"{name}: was altered after it was signed"):
            load_package(tmp_path / "toy", keys=[key])
        file.unlink()
        with pytest.raises(PackageError, match=f"{name}: is missing; it was signed"):
            load_package(tmp_path / "toy", keys=[key])
        file.write_bytes(data)
    (tmp_path / "toy" / "golden" / "more.json").write_text("[]")
    with pytest.raises(PackageError, match=r"golden/more\.json: was not signed"):
        load_package(tmp_path / "toy", keys=[key])


@pytest.mark.req("R-SIGN-03")
@pytest.mark.fault("T40")
def test_files_of_two_signed_packages_cannot_be_mixed(tmp_path):
    key = generate()
    for version in ("1.0.0", "2.0.0"):
        package_kit.make_signed_package(tmp_path / version, key, version=version)
    (tmp_path / "2.0.0" / "model.yaml").replace(tmp_path / "1.0.0" / "model.yaml")
    with pytest.raises(PackageError, match=r"model\.yaml: was altered"):
        load_package(tmp_path / "1.0.0", keys=[key.public])


def test_signature_that_names_another_package_is_refused(tmp_path):
    key = generate()
    folder = package_kit.make_unsigned_package(tmp_path / "toy")
    found = {name: file_facts(folder / name) for name in load_package(folder, trusted=True).files}
    (folder / SIGNATURE_NAME).write_bytes(sign(PAYLOAD_TYPE, statement("other", "1.0.0", found), [key]))
    with pytest.raises(PackageError, match=r"signed as other 1\.0\.0, but model\.yaml says toy-bright-blob"):
        load_package(folder, keys=[key.public])


def test_nothing_is_parsed_before_the_signature_holds(tmp_path, monkeypatch):
    package_kit.make_signed_package(tmp_path / "toy")
    monkeypatch.setattr("engines.package.yaml.parse", lambda *a, **k: pytest.fail("parsed an untrusted manifest"))
    with pytest.raises(SignatureError):
        load_package(tmp_path / "toy", keys=[generate().public])


def test_data_of_a_package_is_what_was_loaded(tmp_path):
    key = package_kit.make_signed_package(tmp_path / "toy")
    package = load_package(tmp_path / "toy", keys=[key])
    assert package.data("CARD.md").startswith(b"# Bright blob")
    with pytest.raises(PackageError, match=r"has no file '\.\./model\.yaml'"):
        package.data("../model.yaml")
    (tmp_path / "toy" / "CARD.md").write_text("Better than it is.")
    with pytest.raises(PackageError, match="was altered after the package was loaded"):
        package.data("CARD.md")


@pytest.mark.req("R-ENGINE-01")
def test_link_into_the_bundled_folder_gives_no_trust(tmp_path):
    (tmp_path / "models").mkdir()
    folder = toy_packages.make_toy_xray_package(tmp_path / "models" / "toy")
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(PackageError, match="is not signed"):
        load_package(link)


@pytest.mark.req("R-ENGINE-02")
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("status: demonstrator", "status: demonstrator\nstatsu: demonstrator", "statsu: unknown key"),
        ("    role: chest-xray", "    role: chest-xray\n    rolle: x", "stages.0.input.rolle: unknown key"),
        ("category: 3", "category: 4", "findings.0.category: Input should be less than or equal to 3"),
        ("status: demonstrator", "status: approved", "status: Input should be"),
        ("    name: xray", "    name: x-ray", "no preprocess is called 'x-ray'; known are"),
        ("    name: classify", "    name: clasify", "no head is called 'clasify'; known are"),
        ("      size: 256", "      sise: 256", "stages.0.preprocess.params.sise: unknown key"),
        ("      output: scores", "      output: 3", "stages.0.head.params.output: Input should be a valid string"),
        ("- onnx: model.onnx", "- onnx: ../model.onnx", "stages.0.onnx: String should match pattern"),
        ("schema: 1", "schema: 2", "schema: Input should be 1"),
        ("threshold: 0.3", "threshold: low", "findings.0.operating_points.1.threshold: Input should be a valid number"),
    ],
)
@pytest.mark.req("R-STORE-10")
def test_a_wrong_key_or_value_is_named_with_its_line(old, new, complaint):
    text = _text()
    assert old in text
    text = text.replace(old, new, 1)
    with pytest.raises(PackageError) as caught:
        parse_manifest(text.encode(), "model.yaml")
    wanted = new.splitlines()[-1].strip()
    assert f"model.yaml:{_line_of(text, wanted)}: " in str(caught.value)
    assert complaint in str(caught.value)


def test_all_wrong_lines_are_named_at_once():
    text = _text().replace("category: 3", "category: 9").replace("licence: Apache-2.0", "license: Apache-2.0")
    with pytest.raises(PackageError) as caught:
        parse_manifest(text.encode())
    assert "licence: Field required" in str(caught.value)
    assert "license: unknown key" in str(caught.value)
    assert "findings.0.category" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"schema: 1\nname: a\nschema: 1\n", "model.yaml:3: the key 'schema' stands twice"),
        (b"a: &x [1]\nb: *x\n", "model.yaml:2: aliases are not allowed"),
        (b"a: 1\nb: [1, 2\n", "not YAML"),
        (b"- 1\n", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"a: !!python/object/apply:os.system ['true']\n", "model.yaml:1: not YAML"),
        (b"a: 1\nb: " + b"[" * 5000, "model.yaml:2: nested more than"),
        (b"? [a]\n: 1\n", "not YAML"),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_line(text, complaint):
    with pytest.raises(PackageError, match=r"model\.yaml:") as caught:
        parse_manifest(text)
    assert complaint in str(caught.value)


def test_two_operating_points_without_a_default_are_refused():
    data = toy_packages.manifest()
    for point in data["findings"][0]["operating_points"]:
        point.pop("default", None)
    with pytest.raises(PackageError, match="mark exactly one"):
        parse_manifest(yaml.safe_dump(data, allow_unicode=True).encode())


def test_cleared_package_needs_a_market():
    with pytest.raises(PackageError, match="at least one market"):
        parse_manifest(_text(status="cleared").encode())
    cleared = parse_manifest(_text(status="cleared", regulatory={"CN": {"class": "III", "number": "123"}}).encode())
    assert cleared.regulatory["CN"].class_ == "III"


@pytest.mark.req("R-SIGN-08")
def test_int8_needs_calibration_that_is_said_to_be_no_patient():
    with pytest.raises(PackageError, match="precision int8 needs calibration"):
        parse_manifest(_text(precisions=["fp32", "int8"]).encode())
    for origin, complaint in (({}, "origin: Field required"), ({"origin": "patients"}, "'phantom' or 'synthesised'")):
        with pytest.raises(PackageError, match=complaint):
            parse_manifest(_text(precisions=["int8"], calibration={"file": "c.npz", **origin}).encode())
    said = {"file": "c.npz", "origin": "phantom"}
    assert parse_manifest(_text(precisions=["int8"], calibration=said).encode()).calibration is not None


def test_default_operating_point_and_choice_by_name():
    manifest = parse_manifest(_text().encode())
    finding = manifest.finding("bright-blob")
    assert finding.default_point.name == "standard"
    assert finding.point("sensitive").threshold == 0.3
    with pytest.raises(KeyError):
        finding.point("mine")


def test_most_urgent_category_is_the_packages():
    data = toy_packages.manifest()
    data["findings"].append({**data["findings"][0], "id": "other", "category": 2})
    assert Manifest.model_validate(data).category == 2


def test_digest_follows_manifest_and_graph_and_nothing_else(tmp_path):
    folder = toy_packages.make_toy_xray_package(tmp_path / "toy")
    first = load_package(folder, trusted=True)
    listed = "".join(
        f"{name}\n{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in ("model.onnx", "model.yaml")
    )
    assert first.digest == hashlib.sha256(listed.encode()).hexdigest()
    (folder / "CARD.md").write_text("changed")
    assert load_package(folder, trusted=True).digest == first.digest
    (folder / "model.yaml").write_bytes((folder / "model.yaml").read_bytes() + b"\n")
    assert load_package(folder, trusted=True).digest != first.digest


def test_graph_altered_after_loading_is_not_run(toy):
    package = toy()
    graph = package.path / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(PackageError, match="was altered after the package was loaded"):
        package.read_onnx()


def test_missing_graph_and_linked_graph_are_refused(tmp_path):
    folder = toy_packages.make_toy_xray_package(tmp_path / "toy")
    graph = folder / "model.onnx"
    graph.rename(tmp_path / "other.onnx")
    with pytest.raises(PackageError, match="missing or is no plain file"):
        load_package(folder, trusted=True)
    graph.symlink_to(tmp_path / "other.onnx")
    with pytest.raises(PackageError, match="is no plain file"):
        load_package(folder, trusted=True)


def test_range_is_closed_and_open_ended():
    assert Range(min=1).holds(1e9)
    assert Range(min=1, max=2).holds(2)
    assert not Range(max=2).holds(2.1)
    with pytest.raises(ValueError, match="above max"):
        Range(min=3, max=2)
