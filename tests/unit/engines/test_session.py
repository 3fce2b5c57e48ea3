from __future__ import annotations

import threading

import numpy as np
import pytest

from engines.backends.fake import FakeSession
from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import ContentError, SessionError
from engines.manifest import Window
from engines.pipeline import Pipeline
from engines.session import TensorSpec, open_session
from engines.tiles import run_in_window
from engines.types import Image, Stack

IMAGE = np.zeros((1, 1, 256, 256), np.float32)
PICTURE = Image(id="x", array=np.add.outer(np.arange(256), np.arange(256)).astype(np.float32))


@pytest.fixture(params=["onnxruntime", "fake"])
def session(request, toy):
    with open_session(toy(), backend=request.param) as opened:
        yield opened


def test_session_tells_its_tensors_backend_and_digest(session):
    assert session.inputs == (TensorSpec("image", "float32", (1, 1, 256, 256)),)
    assert session.outputs == (TensorSpec("scores", "float32", (1, 1)),)
    assert session.backend in {"onnxruntime", "fake"}
    assert session.precision == "fp32"
    assert len(session.digest) == 64


def test_session_warms_up_and_runs(session):
    session.warmup()
    scores = session.run({"image": IMAGE})["scores"]
    assert scores.shape == (1, 1)
    assert 0 <= scores[0, 0] <= 1


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({}, "'image' is missing"),
        ({"imag": IMAGE}, "'imag' is not one of"),
        ({"image": IMAGE.astype(np.float64)}, "float64, expected float32"),
        ({"image": IMAGE[:, :, :5]}, r"shape \(1, 1, 5, 256\), expected \(1, 1, 256, 256\)"),
        ({"image": IMAGE[0]}, "shape"),
    ],
)
def test_wrong_tensors_are_refused_before_native_code_sees_them(session, tensors, complaint):
    with pytest.raises(SessionError, match=complaint):
        session.run(tensors)


def test_closed_session_refuses_to_run(session):
    session.close()
    session.close()
    with pytest.raises(SessionError, match="close"):
        session.run({"image": IMAGE})


def test_outputs_are_the_callers_own(session):
    first = session.run({"image": IMAGE})["scores"]
    first[...] = 7
    assert session.run({"image": IMAGE})["scores"][0, 0] != 7


def test_what_is_no_graph_becomes_a_session_error():
    with pytest.raises(SessionError, match=r"ONNX Runtime .* refuses mine"):
        OnnxRuntimeSession(b"no graph", name="mine")


def test_failure_inside_onnx_runtime_becomes_a_session_error(toy):
    with open_session(toy()) as session:
        session._session = None.__class__  # what it holds no longer has ``run``: any foreign error
        with pytest.raises(SessionError, match="failed in ONNX Runtime"):
            session.run({"image": IMAGE})


def test_unknown_backend_is_refused(toy):
    with pytest.raises(SessionError, match="unknown backend 'cuda'"):
        open_session(toy(), backend="cuda")


def test_two_graphs_never_share_a_digest(toy, head_pipeline):
    with open_session(toy()) as session:
        assert session.digest != head_pipeline.digest


def test_memory_arena_stays_off(toy, monkeypatch):
    # The arena would keep the peak of the largest CT for ever.
    import onnxruntime

    seen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, options, **more: seen.append(options) or real(graph, options, **more),
    )
    open_session(toy(), threads=2).close()
    assert not seen[0].enable_cpu_mem_arena
    assert seen[0].intra_op_num_threads == 2


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize(("mode", "backend"), [("nan", "onnxruntime"), ("nan", "fake"), ("inf", "fake")])
def test_nan_and_infinity_never_become_a_score(fake, mode, backend):
    with Pipeline(fake(mode), backend=backend) as pipeline:
        stack = Stack(slices=(pipeline.prepare("chest-xray", PICTURE),))
        with pytest.raises(ContentError, match="NaN or infinity") as caught:
            pipeline.finish({"chest-xray": stack})
    assert caught.value.reason == "unreliable_output"


@pytest.mark.req("R-ENGINE-03")
def test_score_outside_its_range_is_unreliable(toy):
    with Pipeline(toy(), backend="fake") as pipeline:
        pipeline.sessions[0]._value = 1.5
        with pytest.raises(ContentError, match=r"1.5\.\.1.5, possible is 0\.\.1") as caught:
            pipeline.finish({"chest-xray": Stack(slices=(pipeline.prepare("chest-xray", PICTURE),))})
    assert caught.value.reason == "unreliable_output"


def test_fake_fails_when_told(fake):
    with open_session(fake("error"), backend="fake") as session, pytest.raises(SessionError, match="told to fail"):
        session.run({"image": IMAGE})


def test_fake_refuses_another_thread(toy):
    errors = []
    with open_session(toy(), backend="fake") as session:

        def use():
            try:
                session.run({"image": IMAGE})
            except SessionError as error:
                errors.append(str(error))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert errors == ["run from another thread than the one that opened the session"]


def test_fake_refuses_an_unknown_mode():
    with pytest.raises(SessionError, match="unknown mode"):
        FakeSession((), (), mode="sulk")


def test_named_dimension_must_be_the_same_everywhere():
    specs = (TensorSpec("a", "float32", ("D", 2)), TensorSpec("b", "float32", ("D",)))
    session = FakeSession(specs, (TensorSpec("out", "float32", ("D",)),))
    good = {"a": np.zeros((3, 2), np.float32), "b": np.zeros(3, np.float32)}
    assert session.run(good)["out"].shape == (3,)
    with pytest.raises(SessionError, match="'b' has shape"):
        session.run({**good, "b": np.zeros(4, np.float32)})


def test_window_cuts_the_overlap_off_again():
    class Neighbours:
        """Each output is the sum of a slab and its two neighbours, as a graph with reach 1 sees them."""

        def __init__(self):
            self.lengths = []

        def run(self, tensors):
            padded = np.pad(tensors["x"], 1)
            self.lengths.append(len(tensors["x"]))
            return {"y": padded[:-2] + padded[1:-1] + padded[2:]}

    x = np.arange(23, dtype=np.float32)
    whole = run_in_window(Neighbours(), {"x": x}, None)["y"]
    pieces = Neighbours()
    assert np.array_equal(run_in_window(pieces, {"x": x}, Window(length=5, overlap=1))["y"], whole)
    assert max(pieces.lengths) == 7
    assert len(pieces.lengths) == 5


def test_output_that_does_not_follow_the_window_is_refused():
    session = FakeSession((TensorSpec("x", "float32", ("D",)),), (TensorSpec("y", "float32", (1,)),))
    with pytest.raises(SessionError, match="cannot be windowed"):
        run_in_window(session, {"x": np.zeros(9, np.float32)}, Window(length=4))
