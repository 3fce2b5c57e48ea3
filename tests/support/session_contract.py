"""What every session must do, whatever runs it. A backend joins with a class of its own:

class TestMine(SessionContract):
    @pytest.fixture
    def session_under_test(self): ...  # yields a session of ``contract_graph()``
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import toy_packages
import yaml
from onnx import TensorProto, helper

from engines.errors import SessionError
from engines.package import Package, load_package
from engines.session import TensorSpec

#: Of the varying dimension, for backends that are built for a range.
SMALLEST, USUAL, LARGEST = 1, 2, 4
INPUTS = {"image": ("float32", (None, 1, 16, 16)), "gain": ("float32", (None, 2))}
OUTPUTS = {"scores": ("float32", (None, 2)), "where": ("int64", (None,))}
PROFILES = {name: tuple((n, *shape[1:]) for n in (SMALLEST, USUAL, LARGEST)) for name, (_, shape) in INPUTS.items()}


def contract_graph(n: int | str = "N") -> bytes:
    """Two inputs, two outputs, one varying dimension: mean and peak of a picture, and which of the two is larger."""
    node, value = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("GlobalAveragePool", ["image"], ["mean"]),
            node("GlobalMaxPool", ["image"], ["peak"]),
            node("Concat", ["mean", "peak"], ["both"], axis=1),
            node("Flatten", ["both"], ["flat"], axis=1),
            node("Mul", ["flat", "gain"], ["logit"]),
            node("Sigmoid", ["logit"], ["scores"]),
            node("ArgMax", ["logit"], ["where"], axis=1, keepdims=0),
        ],
        "contract",
        [value("image", TensorProto.FLOAT, [n, 1, 16, 16]), value("gain", TensorProto.FLOAT, [n, 2])],
        [value("scores", TensorProto.FLOAT, [n, 2]), value("where", TensorProto.INT64, [n])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def contract_package(folder: Path) -> Package:
    """The graph as a package, for backends that are opened by one; preprocessor and head are never used."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(contract_graph())
    profiles = {name: dict(zip(("min", "opt", "max"), map(list, p), strict=True)) for name, p in PROFILES.items()}
    manifest = toy_packages.manifest(profiles=profiles, name="contract")
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, allow_unicode=True, sort_keys=False))
    return load_package(folder, trusted=True)


def case(n: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs of ``n`` pictures."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(n, 1, 16, 16)).astype(np.float32)
    return {"image": image, "gain": rng.uniform(0.5, 2, size=(n, 2)).astype(np.float32) * (1, -1)[seed % 2]}


def expected(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What bare ONNX Runtime gives."""
    return dict(zip(OUTPUTS, _bare().run(list(OUTPUTS), tensors), strict=True))


@cache
def _bare() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(contract_graph(), providers=["CPUExecutionProvider"])


def summary(specs: tuple[TensorSpec, ...]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Name: dtype and shape, where a varying dimension may have lost its name."""
    return {s.name: (s.dtype, tuple(d if isinstance(d, int) else None for d in s.shape)) for s in specs}


class SessionContract:
    """Derive, give ``session_under_test``, and say below what holds for the backend."""

    #: How far its numbers may be from ONNX Runtime's; None: it does not compute.
    atol: float | None = 1e-6
    #: Takes no more than LARGEST pictures.
    has_profile = False
    #: Refuses every thread but the one that opened it.
    owns_thread = False

    @pytest.fixture
    def session_under_test(self):
        raise NotImplementedError

    def same(self, got, tensors):
        want = expected(tensors)
        assert sorted(got) == sorted(want)
        for name, array in want.items():
            assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
            if self.atol is not None:
                np.testing.assert_allclose(got[name], array, rtol=0, atol=self.atol)

    def test_it_tells_its_tensors_and_what_it_is(self, session_under_test):
        assert summary(session_under_test.inputs) == INPUTS
        assert summary(session_under_test.outputs) == OUTPUTS
        assert session_under_test.backend
        assert session_under_test.precision in {"fp32", "fp16", "int8"}
        assert len(session_under_test.digest) == 64

    def test_it_gives_what_onnx_runtime_gives(self, session_under_test):
        session_under_test.warmup()
        tensors = case(2, seed=1)
        self.same(session_under_test.run(tensors), tensors)

    def test_it_runs_without_a_warm_up(self, session_under_test):
        tensors = case(1, seed=2)
        self.same(session_under_test.run(tensors), tensors)

    def test_each_run_answers_its_own_inputs_in_any_order_of_shapes(self, session_under_test):
        for seed, n in enumerate([1, 1, 1, 3, 3, 1, LARGEST, 2, 2, 2, 2, 1]):
            tensors = case(n, seed)
            self.same(session_under_test.run(tensors), tensors)

    def test_outputs_are_the_callers_own_even_after_close(self, session_under_test):
        tensors = case(2, seed=3)
        first = session_under_test.run(tensors)
        kept = {name: array.copy() for name, array in first.items()}
        for seed in range(4, 8):
            session_under_test.run(case(2, seed))
        session_under_test.close()
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])
            array[...] = 1

    def test_inputs_stay_as_they_were(self, session_under_test):
        tensors = case(3, seed=8)
        before = {name: array.copy() for name, array in tensors.items()}
        session_under_test.run(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(array, before[name])

    def test_an_input_need_not_lie_in_one_piece(self, session_under_test):
        tensors = case(4, seed=9)
        sparse = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in tensors.items()}
        assert not sparse["image"].flags.c_contiguous
        self.same(session_under_test.run(sparse), tensors)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda t: t.pop("gain"), "'gain' is missing"),
            (lambda t: t.update(more=t["gain"]), "'more' is not one of"),
            (lambda t: t.update(gain=t["gain"].astype(np.float64)), "'gain' is float64, expected float32"),
            (lambda t: t.update(gain=t["gain"][0]), "'gain' has shape"),
            (lambda t: t.update(image=t["image"][..., :15]), "'image' has shape"),
        ],
    )
    def test_wrong_tensors_are_refused_by_name_and_the_next_run_works(self, session_under_test, change, complaint):
        tensors = case(2, seed=10)
        wrong = dict(tensors)
        change(wrong)
        with pytest.raises(SessionError, match=complaint):
            session_under_test.run(wrong)
        self.same(session_under_test.run(tensors), tensors)

    def test_nan_comes_out_as_nan_for_the_pipeline_to_judge(self, session_under_test):
        if self.atol is None:
            pytest.skip("this backend does not compute")
        tensors = case(2, seed=11)
        tensors["image"][0] = np.nan
        scores = session_under_test.run(tensors)["scores"]
        assert np.isnan(scores[0, 0])
        assert np.isfinite(scores[1]).all()

    def test_a_closed_session_refuses_and_closes_twice(self, session_under_test):
        session_under_test.close()
        session_under_test.close()
        with pytest.raises(SessionError, match="close"):
            session_under_test.run(case(1, seed=12))

    def test_a_shape_outside_of_the_profile_is_refused_and_the_next_run_works(self, session_under_test):
        if not self.has_profile:
            pytest.skip("this backend takes every shape")
        with pytest.raises(SessionError, match=r"built for \(1, 1, 16, 16\) to \(4, 1, 16, 16\)"):
            session_under_test.run(case(LARGEST + 1, seed=13))
        tensors = case(2, seed=14)
        self.same(session_under_test.run(tensors), tensors)

    def test_another_thread_is_refused(self, session_under_test):
        if not self.owns_thread:
            pytest.skip("this backend serves any thread")
        errors = []

        def use():
            try:
                session_under_test.run(case(1, seed=15))
            except SessionError as error:
                errors.append(str(error))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert "another thread" in errors[0]
        session_under_test.run(case(1, seed=16))
