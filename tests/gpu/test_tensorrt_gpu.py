"""The contract and the memory rules on a real GPU with the real TensorRT. Skipped, with the reason, without one."""

from __future__ import annotations

import numpy as np
import pytest
import session_contract as contract

from engines.backends.cuda import open_cuda, probe_cuda
from engines.backends.tensorrt import TensorRtSession
from engines.backends.trt_api import FlavourError, load_flavour
from engines.errors import SessionError

PROBE = probe_cuda()
if PROBE.device is None:
    pytest.skip(f"no GPU: {PROBE.reason}", allow_module_level=True)
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def built(request, tmp_path_factory):
    """Flavour and a plan that it built here, for this GPU."""
    from engines.backends.trt_builder import build_plan

    try:
        flavour = load_flavour(request.param)
    except FlavourError as error:
        pytest.skip(str(error))
    package = contract.contract_package(tmp_path_factory.mktemp("gpu") / "contract")
    built = build_plan(flavour, contract.contract_graph(), name="contract", profiles=package.manifest.profiles)
    return flavour, built.plan


def opened(built, **how):
    flavour, plan = built
    told = {"name": "contract", "precision": "fp32", "digest": "d" * 64}
    return TensorRtSession(plan, flavour=flavour, cuda=open_cuda(), **told, **how)


class TestTensorRt(contract.SessionContract):
    atol = 1e-4
    has_profile = True
    owns_thread = True

    @pytest.fixture(params=[None, "copy"], ids=["memory-by-device", "memory-copied"])
    def session_under_test(self, built, request):
        with opened(built, memory=request.param) as session:
            yield session


def test_opening_and_closing_leaves_no_device_memory_behind(built):
    cuda = open_cuda()
    for round_ in range(12):
        with opened(built) as session:
            session.warmup()
        if round_ == 1:
            before = cuda.free_bytes()
    assert before - cuda.free_bytes() < 1 << 20


def test_a_graph_gives_the_same_numbers_as_plain_runs(built):
    tensors = contract.case(contract.USUAL, seed=1)
    with opened(built) as session:
        plain = session.run(tensors)["scores"]
        session.warmup()
        assert session.graph in {"graph", "internal"}
        np.testing.assert_array_equal(session.run(tensors)["scores"], plain)


@pytest.mark.parametrize("plan", [b"", b"garbage", b"\0" * 1000])
def test_a_plan_that_is_none_is_refused(built, plan):
    with pytest.raises(SessionError, match="refuses the plan"):
        opened((built[0], plan))
