from __future__ import annotations

from types import SimpleNamespace

import pytest
import session_contract as contract

from engines.backends.cuda import probe_cuda
from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import SessionError
from engines.session import open_engine

DIGEST = "e" * 64


def entry(flavour="onnxruntime", precision="fp16"):
    """As much of a store's entry as opening needs."""
    return SimpleNamespace(flavour=flavour, precision=precision, digest=DIGEST)


@pytest.fixture
def package(tmp_path):
    return contract.contract_package(tmp_path / "contract")


@pytest.mark.req("R-RUN-10")
def test_an_engine_for_the_cpu_is_its_lowered_graph_under_the_engines_digest(package):
    (session,) = open_engine(entry(), [contract.contract_graph()], package)
    with session:
        assert (session.backend, session.precision, session.digest) == ("onnxruntime", "fp16", DIGEST)
        tensors = contract.case(2, seed=1)
        assert session.run(tensors)["scores"].tolist() == contract.expected(tensors)["scores"].tolist()


@pytest.mark.req("R-RUN-10")
def test_plans_and_stages_must_be_as_many(package):
    with pytest.raises(SessionError, match=r"has 2 plans for 1 stages; build it anew"):
        open_engine(entry(), [b"", b""], package)


@pytest.mark.req("R-RUN-10")
def test_where_one_stage_is_refused_the_others_are_closed(package, monkeypatch):
    closed = []
    monkeypatch.setattr(OnnxRuntimeSession, "close", lambda session: closed.append(session._name))
    stages = (SimpleNamespace(onnx="first.onnx"), SimpleNamespace(onnx="second.onnx"))
    two = SimpleNamespace(name="two", manifest=SimpleNamespace(stages=stages))
    with pytest.raises(SessionError, match=r"refuses two/second\.onnx"):
        open_engine(entry(), [contract.contract_graph(), b"no graph"], two)
    assert closed == ["two/first.onnx"]


@pytest.mark.req("R-RUN-07")
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_a_plan_for_a_gpu_on_a_machine_without_one_says_what_it_lacks(package, flavour):
    if probe_cuda().device:
        pytest.skip("this machine has a GPU")
    with pytest.raises(SessionError, match=r"no NVIDIA driver runs|no CUDA layer|cannot be loaded"):
        open_engine(entry(flavour), [b"plan"], package)
