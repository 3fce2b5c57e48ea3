"""The one contract, on every backend that runs without a GPU; KServe and real TensorRT join from their own files."""

from __future__ import annotations

import pytest
import session_contract as contract
from cuda_fake import FakeGpu
from trt_kit import fake_trt

from engines.backends.fake import FakeSession
from engines.backends.onnxruntime import OnnxRuntimeSession

pytestmark = pytest.mark.req("R-RUN-01")


class TestOnnxRuntime(contract.SessionContract):
    @pytest.fixture
    def session_under_test(self):
        with OnnxRuntimeSession(contract.contract_graph(), name="contract") as session:
            yield session


class TestFakeBackend(contract.SessionContract):
    atol = None
    owns_thread = True

    @pytest.fixture
    def session_under_test(self):
        with OnnxRuntimeSession(contract.contract_graph(), name="contract") as real:
            specs = real.inputs, real.outputs
        with FakeSession(*specs) as session:
            yield session


class TestTensorRtOnTheFakeGpu(contract.SessionContract):
    """Real session and adapters; GPU, CUDA libraries and TensorRT are fakes. No evidence of what a GPU does."""

    has_profile = True
    owns_thread = True

    @pytest.fixture(
        params=[
            {"adapter": "cuda-bindings"},
            {"adapter": "pycuda"},
            {"adapter": "cuda-bindings", "integrated": True},
            {"adapter": "pycuda", "integrated": True},
            {"adapter": "cuda-bindings", "rtx": True},
        ],
        ids=["cuda-bindings", "pycuda", "cuda-bindings-jetson", "pycuda-jetson", "rtx"],
    )
    def session_under_test(self, request):
        how = dict(request.param)
        with fake_trt(FakeGpu(integrated=how.pop("integrated", False)), **how) as session:
            yield session
