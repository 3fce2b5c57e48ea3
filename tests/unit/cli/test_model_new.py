"""What ``scanside model new`` reads from a graph, what it asks for, and what it refuses."""

from __future__ import annotations

import json
import re

import maker_graphs
import numpy as np
import onnx
import pytest
import segmenter
import yaml
from click.testing import CliRunner
from example_package import Graph

from appliance.cli import main
from appliance.commands import Exit
from engines import ports
from engines.errors import PackageError
from engines.package import parse_manifest

GRAPHS = {
    "classifier": (lambda: maker_graphs.densenet121(32), ",".join(maker_graphs.FOURTEEN)),
    "segmenter": (lambda: segmenter.fold(1), "-,dense-bone"),
    "detector": (maker_graphs.heat_map, "bright-spot"),
    "regressor": (maker_graphs.regressor, "age,-"),
}


@pytest.fixture
def in_process(monkeypatch):
    """A graph of our own needs no limited child, whose start takes a second."""
    monkeypatch.setattr(ports, "run_limited", lambda _module, request, _limits: ports.handle(request, lambda _: None))


@pytest.fixture
def new(tmp_path):
    """``new(graph, kind, findings)``: the result of the command, and the folder."""

    def call(graph, kind, findings, name="mine"):
        source = tmp_path / "my.onnx"
        if graph is not None:
            source.write_bytes(graph)
        words = ["model", "new", str(tmp_path / name), "--from", str(source), "--kind", kind, "--findings", findings]
        return CliRunner().invoke(main, words), tmp_path / name

    return call


def constant(inputs, outputs, shape):
    """A graph whose one output does not look at its input."""
    g = Graph()
    g.op("Identity", next(iter(outputs)), g.weight("held", np.zeros(shape)))
    return g.model(inputs, outputs)


@pytest.mark.usefixtures("in_process")
@pytest.mark.req("R-BRING-02")
@pytest.mark.parametrize("kind", GRAPHS)
def test_every_open_line_is_named_by_the_gate(new, kind):
    make, findings = GRAPHS[kind]
    done, folder = new(make(), kind, findings)
    assert done.exit_code == Exit.OK, done.output
    text = (folder / "model.yaml").read_text("utf-8")
    assert not re.search(r"@[A-Z_]+@", text)
    with pytest.raises(PackageError) as refused:
        parse_manifest(text.encode())
    named = {int(re.match(r"model\.yaml:(\d+): .*fill in: ", line)[1]) for line in str(refused.value).splitlines()}
    assert named == {n for n, line in enumerate(text.splitlines(), 1) if '"fill in:' in line}
    assert len(named) > 10


@pytest.mark.usefixtures("in_process")
@pytest.mark.req("R-BRING-02")
def test_names_shapes_columns_and_activation_are_taken_from_the_graph(new):
    _, folder = new(maker_graphs.densenet121(32), "classifier", ",".join(maker_graphs.FOURTEEN))
    manifest = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    (stage,) = manifest["stages"]
    assert stage["preprocess"]["params"]["tensor"] == "input"
    assert stage["preprocess"]["params"]["size"] == 32
    assert stage["head"]["params"]["output"] == "output"
    assert tuple(stage["head"]["params"]["findings"]) == maker_graphs.FOURTEEN
    assert stage["head"]["params"]["activation"].startswith("fill in:")
    assert manifest["profiles"] == {"input": {end: [1, 3, 32, 32] for end in ("min", "opt", "max")}}
    assert [one["id"] for one in manifest["findings"]] == list(maker_graphs.FOURTEEN)

    _, folder = new(maker_graphs.heat_map((8, 16, 16)), "detector", "bright-spot", name="heat")
    manifest = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert manifest["pipeline"] == {"steps": [{"stages": [0], "tile": {"patch": [8, 16, 16], "overlap": 0.5}}]}
    assert manifest["stages"][0]["head"]["params"]["activation"] == "none"
    assert manifest["intended_use"] == "detection"


def test_weights_in_a_second_file_are_taken_in(new, tmp_path):
    model = onnx.ModelProto.FromString(maker_graphs.regressor())
    onnx.save(model, tmp_path / "my.onnx", save_as_external_data=True, location="my.onnx.data", size_threshold=0)
    assert (tmp_path / "my.onnx.data").exists()
    done, folder = new(None, "regressor", "age,-")
    assert done.exit_code == Exit.OK, done.output
    kept = onnx.load(folder / "model.onnx", load_external_data=False)
    assert all(tensor.HasField("raw_data") and not tensor.external_data for tensor in kept.graph.initializer)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("graph", "kind", "findings", "said"),
    [
        (b"no graph", "classifier", "one", "is no ONNX file"),
        (maker_graphs.regressor(), "classifier", "one", "--findings names 1, the output months"),
        (maker_graphs.regressor(), "regressor", "one,two", "has one finding"),
        (maker_graphs.regressor(), "segmenter", "one", "a map over the input"),
        (segmenter.fold(1), "classifier", "one", "looks at one X-ray"),
        (constant({"a": (1, 2, 8, 8)}, {"b": (1, 1)}, (1, 1)), "classifier", "one", "prepared can be an X-ray"),
    ],
)
def test_a_graph_that_fits_nothing_is_refused_with_what_it_has_and_leaves_nothing(new, graph, kind, findings, said):
    done, folder = new(graph, kind, findings)
    assert done.exit_code == Exit.CHECK_FAILED
    assert said in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "findings", "code"),
    [
        ("My_Model", "one", Exit.USAGE),
        ("mine", "-", Exit.USAGE),
        ("mine", "one,one", Exit.USAGE),
        ("mine", "Big", Exit.USAGE),
        ("there", "one,-", Exit.CONFLICT),
    ],
)
def test_names_are_looked_at_before_the_graph(new, tmp_path, name, findings, code):
    (tmp_path / "there").mkdir()
    assert new(maker_graphs.regressor(), "regressor", findings, name=name)[0].exit_code == code


@pytest.mark.usefixtures("in_process")
@pytest.mark.req("R-BRING-02")
def test_a_golden_case_holds_pixels_spacing_and_bounds_and_nothing_of_a_header(new, tmp_path):
    _, folder = new(maker_graphs.regressor(), "regressor", "age,-")
    said = {"body_parts": "[KNEE]", "view_positions": "[AP]", "age_years": "{}", "mean": "[0.0]", "sd": "[1.0]"}
    said |= {"unit": "mo", "score_unit": "mo", "possible": "{min: 0}"}
    text = (folder / "model.yaml").read_text("utf-8")
    text = re.sub(r'(\w+): "fill in:[^"]*"', lambda m: f"{m[1]}: {said.get(m[1], 'A test.')}", text)
    (folder / "model.yaml").write_text(text, "utf-8")

    def call(*words):
        return CliRunner().invoke(main, [*map(str, words)])

    assert call("phantom", "knee-xray", tmp_path / "in" / "knee").exit_code == Exit.OK
    done = call("model", "golden", folder, "--dicom", tmp_path / "in", "--origin", "phantom", "--json")
    assert done.exit_code == Exit.OK, done.output
    (case,) = json.loads((folder / "golden" / "golden.json").read_text())
    score = json.loads(done.stdout)["scores"]["knee.npz"]["age"]
    low, high = case["scores"]["age"]
    assert (case["file"], case["origin"]) == ("knee.npz", "phantom")
    assert low < score < high
    assert high - low == pytest.approx(0.1 * score, rel=0.01)
    with np.load(folder / "golden" / "knee.npz") as held:
        assert set(held) == {"array", "positions_mm", "spacing_mm"}

    assert call("phantom", "chest-xray", tmp_path / "other" / "chest").exit_code == Exit.OK
    refused = call("model", "golden", folder, "--dicom", tmp_path / "other", "--origin", "phantom")
    assert refused.exit_code == Exit.CHECK_FAILED
    assert "the package does not take it" in refused.stderr
    assert len(json.loads((folder / "golden" / "golden.json").read_text())) == 1
