"""A TensorRT session on the fake GPU, for tests that need one."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import session_contract as contract
from cuda_fake import FakeCudart, FakeGpu, FakePycuda
from trt_fake import fake_flavour, fake_plan

from engines.backends.cuda_bindings import CudaBindingsApi
from engines.backends.cuda_pycuda import PycudaApi
from engines.backends.tensorrt import TensorRtSession

DIGEST = "d" * 64


def contract_plan(**odd) -> bytes:
    return fake_plan(contract.contract_graph(), contract.PROFILES, **odd)


def fake_cuda(gpu: FakeGpu, adapter="cuda-bindings"):
    """The real adapter on the fake library."""
    return PycudaApi(FakePycuda(gpu)) if adapter == "pycuda" else CudaBindingsApi(FakeCudart(gpu))


def open_fake_trt(
    gpu: FakeGpu, *, adapter="cuda-bindings", plan=None, memory=None, graphs=True, **flavour
) -> TensorRtSession:
    return TensorRtSession(
        contract_plan() if plan is None else plan,
        flavour=fake_flavour(gpu, graphs=graphs, **flavour),
        cuda=fake_cuda(gpu, adapter),
        name="contract",
        precision="fp32",
        digest=DIGEST,
        memory=memory,
        graphs=graphs,
    )


def assert_clean(gpu: FakeGpu) -> None:
    """No rule was broken, and all that was taken has been given back."""
    if gpu.live:
        # Collecting takes 100 ms, and what counts references needs none.
        gc.collect()
    assert gpu.misuses == []
    assert not gpu.live, f"not given back: {dict(gpu.live)}"


@contextmanager
def fake_trt(gpu: FakeGpu, **how):
    """A session that is closed at the end, on a GPU that must then be clean."""
    with open_fake_trt(gpu, **how) as session:
        yield session
    assert_clean(gpu)
