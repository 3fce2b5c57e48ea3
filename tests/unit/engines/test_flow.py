"""How stages feed one another: what model.yaml may say, and what is done."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import toy_packages
import yaml
from onnx import TensorProto, helper
from pair_kit import make_pair_package

from engines.errors import ContentError, PackageError, SessionError
from engines.golden import check_golden, golden_cases
from engines.package import load_package, parse_manifest
from engines.pipeline import Pipeline
from engines.types import Volume

CT = "1.2.840.10008.5.1.4.1.1.2"


def ct_stage(onnx_file="a.onnx", role="ct", **more):
    return {
        "onnx": onnx_file,
        "input": {"role": role, "modality": ["CT"], "sop_classes": [CT]},
        "preprocess": {"name": "ct-volume", "params": {"tensor": "x", "spacing_mm": [2, 2, 2]}},
        **more,
    }


HEAD = {"name": "segment", "params": {"output": "y", "labels": {"bright-blob": 0}, "activation": "sigmoid"}}
TAKE = {"from": 0, "output": "y", "by": "box", "threshold": 0.5, "spacing_mm": [1, 1, 1], "tensor": "x"}


def two_stages(**changes):
    """Where the first sees something, the second looks closer."""
    return toy_packages.manifest(
        stages=[ct_stage(), {"onnx": "b.onnx", "head": HEAD}],
        pipeline={"steps": [{"stages": [0]}, {"stages": [1], "take": TAKE}]},
        **changes,
    )


def parsed(data):
    return parse_manifest(yaml.safe_dump(data, allow_unicode=True, sort_keys=False).encode(), "model.yaml")


def test_without_a_pipeline_a_package_is_one_stage_with_one_input():
    manifest = parsed(toy_packages.manifest())
    assert [feed.input.role for feed in manifest.inputs] == ["chest-xray"]
    assert [step.stages for step in manifest.steps] == [(0,)]
    assert manifest.head.name == "classify"


def test_a_further_input_and_a_second_step_are_told_by_data_alone():
    data = two_stages()
    data["pipeline"]["inputs"] = [
        {
            "input": {"role": "plain", "modality": ["CT"], "sop_classes": [CT]},
            "preprocess": {"name": "ct-volume", "params": {"tensor": "z", "spacing_mm": [2, 2, 2]}},
            "stage": 0,
            "optional": True,
        }
    ]
    manifest = parsed(data)
    assert [(feed.input.role, feed.stage, feed.optional) for feed in manifest.inputs] == [
        ("ct", 0, False),
        ("plain", 0, True),
    ]
    assert manifest.head.name == "segment"


def change(path, value):
    def apply(data):
        node = data
        for key in path[:-1]:
            node = node[key]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    return apply


STEPS = ("pipeline", "steps")
WRONG = {
    "unknown stage": (change((*STEPS, 0, "stages"), [0, 7]), "stages.1: stage 7 is unknown; known are 0 to 1"),
    "cycle": (change((*STEPS, 1, "take", "from"), 1), "take.from: step 1 does not come before step 1"),
    "unused": (change((*STEPS,), [{"stages": [0]}]), "stages.1: no step runs this stage"),
    "twice": (change((*STEPS, 0, "stages"), [0, 1]), "stage 1 runs in step 0 already"),
    "not fed": (change((*STEPS, 1, "take"), None), "steps.1: nothing feeds it: give stage 1 an input"),
    "early head": (change(("stages", 0, "head"), HEAD), "stages.0.head: the head belongs to the first stage of the"),
    "no head": (change(("stages", 1, "head"), None), "stages.1: the first stage of the last step needs a head"),
    "half an input": (change(("stages", 0, "preprocess"), None), "stages.0.input: stands without preprocess"),
    "no pipeline": (change(("pipeline",), None), "several stages need a pipeline"),
    "peaks without size": (change((*STEPS, 1, "take", "by"), "peaks"), "take: crops around peaks need a size"),
    "no tensor": (change((*STEPS, 1, "take", "tensor"), None), "take: name the tensor that gets the volume"),
    "unknown input stage": (
        change(
            ("pipeline", "inputs"),
            [{k: v for k, v in ct_stage(role="plain").items() if k != "onnx"} | {"stage": 5}],
        ),
        "inputs.0.stage: stage 5 is unknown",
    ),
    "mirror twice": (
        change((*STEPS, 0, "tile"), {"patch": [8, 8, 8], "mirror_axes": [1, 1]}),
        "mirror_axes: each of 0 to 2 at most once",
    ),
    "mirror axis": (change((*STEPS, 0, "tile"), {"patch": [8, 8], "mirror_axes": [2]}), "each of 0 to 1 at most once"),
    "unknown preprocess": (
        change(("stages", 0, "preprocess", "name"), "ct-cube"),
        "no preprocess is called 'ct-cube'",
    ),
    "unknown key": (change((*STEPS, 1, "take", "form"), 0), "take.form: unknown key"),
}


@pytest.mark.req("R-PIPE-01")
@pytest.mark.parametrize("name", WRONG)
def test_stages_that_do_not_feed_one_another_are_refused_with_the_line(name):
    spoil, complaint = WRONG[name]
    data = copy.deepcopy(two_stages())
    spoil(data)
    with pytest.raises(PackageError) as caught:
        parsed(data)
    told = str(caught.value).replace("Value error, ", "")
    assert complaint in told
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False).splitlines()
    number = int(next(line for line in told.splitlines() if complaint in line).split(":")[1])
    first = next(n for n, line in enumerate(text, 1) if line.startswith(("stages:", "pipeline:")))
    assert first < number <= len(text)
    if "mirror" in name:
        assert "mirror_axes" in text[number - 1]
    if name == "unknown stage":
        assert text[number - 1].strip() == "- 7"


# -- what is done ----------------------------------------------------------------------------------------------------


def graph(path, nodes, inputs, outputs, weights=()):
    def info(names):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in names.items()]

    made = helper.make_graph(nodes, "toy", info(inputs), info(outputs), list(weights))
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


CUBE = [1, 1, "D", "H", "W"]


def package(folder, data, **graphs):
    """A package whose graphs are one operator each: name=(operator, inputs, output)."""
    folder.mkdir()
    (folder / "model.yaml").write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    for name, (kind, inputs, output) in graphs.items():
        graph(
            folder / f"{name}.onnx",
            [helper.make_node(kind, list(inputs), [output])],
            dict.fromkeys(inputs, CUBE),
            {output: CUBE},
        )
    return load_package(folder, trusted=True)


def volume(radius=8.0):
    """A ball of 40 HU in -40 HU; after the graph's sigmoid 1 and 0."""
    depth, spacing = 20, 2.0
    grid = np.indices((depth, 30, 30)) * spacing
    away = np.linalg.norm(grid - np.array((20.0, 24.0, 30.0))[:, None, None, None], axis=0)
    return Volume(
        array=np.where(away <= radius, 40, -40).astype(np.int16),
        slice_ids=tuple(f"slice {k}" for k in range(depth)),
        positions_mm=tuple(k * spacing for k in range(depth)),
        spacing_mm=(spacing, spacing),
    )


@pytest.mark.req("R-PIPE-01")
def test_the_box_around_what_was_seen_is_looked_at_again_at_finer_spacing(tmp_path):
    data = two_stages()
    data["pipeline"]["steps"][1]["take"] = {**TAKE, "margin_mm": 4}
    made = package(tmp_path / "p", data, a=("Identity", ["x"], "y"), b=("Identity", ["x"], "y"))
    with Pipeline(made) as pipeline:
        seen = []
        real = pipeline.sessions[1].run
        pipeline.sessions[1].run = lambda tensors: seen.append(tensors["x"].shape) or real(tensors)
        out = pipeline.run_volume(volume()).output
    assert out.scores["bright-blob"] == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.1)
    # 18 mm of voxels and 4 mm on both sides, at 1 mm.
    assert seen == [(1, 1, 26, 26, 26)]
    assert out.key_slices["bright-blob"][0] == "slice 10"
    (left, top), (right, bottom) = out.regions[0].points
    assert (left + right) / 2 == pytest.approx(15, abs=0.5)
    assert (top + bottom) / 2 == pytest.approx(12, abs=0.5)


def test_nothing_in_the_box_is_out_of_envelope_and_no_score(tmp_path):
    made = package(tmp_path / "p", two_stages(), a=("Identity", ["x"], "y"), b=("Identity", ["x"], "y"))
    empty = volume(radius=-1.0)
    with Pipeline(made) as pipeline, pytest.raises(ContentError, match="is not in the images") as caught:
        pipeline.run_volume(empty)
    assert caught.value.reason == "out_of_envelope"


@pytest.mark.req("R-PIPE-01")
def test_an_earlier_map_is_given_to_the_next_graph_on_its_own_grid(tmp_path):
    data = two_stages()
    data["pipeline"]["steps"][1]["take"] = {**TAKE, "by": "resample", "spacing_mm": [4, 4, 4], "map_tensor": "m"}
    made = package(tmp_path / "p", data, a=("Identity", ["x"], "y"), b=("Sub", ["x", "m"], "y"))
    with Pipeline(made) as pipeline:
        seen = {}
        real = pipeline.sessions[1].run

        def run(tensors):
            seen.update(tensors)
            return real(tensors)

        pipeline.sessions[1].run = run
        pipeline.run_volume(volume())
    assert seen["x"].shape == seen["m"].shape == (1, 1, 10, 15, 15)
    # The first graph changes nothing, so both ways from 2 to 4 mm give the same.
    inner = (0, 0, slice(1, -1), slice(1, -1), slice(1, -1))
    assert np.allclose(seen["x"][inner], seen["m"][inner], atol=1e-3)


@pytest.mark.req("R-PIPE-01")
def test_the_mean_of_an_ensemble_counts(tmp_path):
    data = toy_packages.manifest(
        stages=[ct_stage(head=HEAD), {"onnx": "b.onnx"}], pipeline={"steps": [{"stages": [0, 1]}]}
    )
    made = package(tmp_path / "p", data, a=("Identity", ["x"], "y"), b=("Neg", ["x"], "y"))
    with Pipeline(made) as pipeline:
        outputs = []
        real = pipeline.head.decide
        object.__setattr__(
            pipeline, "head", type("H", (), {"decide": lambda _, o, a: outputs.append(o) or real(o, a)})()
        )
        pipeline.run_volume(volume())
    assert np.abs(outputs[0]["y"]).max() == 0


def test_a_series_that_may_be_missing_is_zeros(tmp_path):
    data = toy_packages.manifest(stages=[ct_stage(head=HEAD)])
    further = {k: v for k, v in ct_stage(role="plain").items() if k != "onnx"}
    further["preprocess"] = {"name": "xray", "params": {"tensor": "z", "size": 32}}
    data["pipeline"] = {"inputs": [{**further, "stage": 0, "optional": True}]}
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "model.yaml").write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    nodes = [
        helper.make_node("ReduceMean", ["z"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "far"], ["lift"]),
        helper.make_node("Add", ["x", "lift"], ["y"]),
    ]
    far = helper.make_tensor("far", TensorProto.FLOAT, [], [1000.0])
    graph(folder / "a.onnx", nodes, {"x": CUBE, "z": [1, 1, 32, 32]}, {"y": CUBE}, [far])
    picture = Volume(
        array=np.add.outer(np.arange(64.0), np.arange(64.0))[None],
        slice_ids=("other",),
        positions_mm=(0.0,),
        spacing_mm=(1.0, 1.0),
    )
    with Pipeline(load_package(folder, trusted=True)) as pipeline:
        assert list(pipeline.inputs) == ["ct", "plain"]
        alone = pipeline.run_volumes({"ct": volume()}).output
        both = pipeline.run_volumes({"ct": volume(), "plain": picture}).output
    assert alone.scores["bright-blob"] == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.1)
    assert both.scores["bright-blob"] > 50, "the second picture lifts everything"


def test_a_golden_case_of_several_inputs_holds_each_by_its_role(tmp_path):
    folder = make_pair_package(tmp_path / "p", optional=True)
    (folder / "golden").mkdir()
    ramp = np.add.outer(np.arange(64.0), np.arange(64.0))[None]
    own = {"array": ramp, "positions_mm": [0.0], "spacing_mm": [1.0, 1.0]}
    both = {f"{role}.{key}": value for role in ("frontal", "lateral") for key, value in own.items()}
    np.savez(folder / "golden" / "both.npz", **both, **{"frontal.shifts_mm": [[1.0, 2.0]]})
    np.savez(folder / "golden" / "one.npz", **{f"frontal.{key}": value for key, value in own.items()})
    cases = [
        {"file": f, "scores": {"bright": bounds}}
        for f, bounds in (("both.npz", [0.49, 0.51]), ("one.npz", [0.36, 0.39]))
    ]
    (folder / "golden" / "golden.json").write_text(json.dumps(cases))
    with Pipeline(load_package(folder, trusted=True)) as pipeline:
        assert check_golden(pipeline) == 2
        (first, second) = golden_cases(pipeline.package)
    assert (list(first.inputs), list(second.inputs)) == (["frontal", "lateral"], ["frontal"])
    assert first.inputs["frontal"].shifts_mm == ((1.0, 2.0),)
    with np.load(folder / "golden" / "one.npz") as held:
        np.savez(folder / "golden" / "both.npz", **{k.replace("frontal", "lateral"): v for k, v in held.items()})
    with pytest.raises(PackageError, match=r"frontal\.array"):
        list(golden_cases(load_package(folder, trusted=True)))


@pytest.mark.req("R-PIPE-01")
@pytest.mark.parametrize(
    ("graphs", "changes", "complaint"),
    [
        ({"b": ("Identity", ["v"], "y")}, {}, r"stage 1 \(b.onnx\) takes the tensors \['v'\], step 1 gives \['x'\]"),
        ({"a": ("Identity", ["x"], "w")}, {}, "step 1 takes the output 'y' of step 0"),
        ({"b": ("Identity", ["x"], "w")}, {}, "the head reads the output 'y', the last step gives"),
        ({}, {"by": "peaks", "size": [5, 5, 5]}, "needs a head that reads their scores"),
    ],
)
def test_tensors_that_the_graphs_do_not_have_are_refused_when_it_is_opened(tmp_path, graphs, changes, complaint):
    data = two_stages()
    data["pipeline"]["steps"][1]["take"] = {**TAKE, **changes}
    right = {"a": ("Identity", ["x"], "y"), "b": ("Identity", ["x"], "y")}
    made = package(tmp_path / "p", data, **{**right, **graphs})
    with pytest.raises(SessionError, match=complaint):
        Pipeline(made)


def test_sessions_are_replaced_whole_or_not_at_all(tmp_path):
    made = package(tmp_path / "p", two_stages(), a=("Identity", ["x"], "y"), b=("Identity", ["x"], "y"))
    other = package(tmp_path / "q", two_stages(), a=("Neg", ["x"], "y"), b=("Abs", ["x"], "y"))
    wrong = package(tmp_path / "r", two_stages(), a=("Identity", ["x"], "y"), b=("Identity", ["x"], "y"))
    with Pipeline(made) as pipeline, Pipeline(other) as second, Pipeline(wrong) as third:
        before, digest = pipeline.sessions, pipeline.digest
        assert len(digest) == 64
        with pytest.raises(SessionError, match="1 sessions for the 2 stages"):
            pipeline.replace(third.sessions[:1])
        assert pipeline.sessions is before
        assert pipeline.replace(second.sessions) is before
        assert pipeline.digest == second.digest != digest
        assert pipeline.digest not in {session.digest for session in second.sessions}
        assert (pipeline.backend, pipeline.precision) == ("onnxruntime", "fp32")
