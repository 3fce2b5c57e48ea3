"""The two CUDA adapters: against fakes of their libraries, and cuda-bindings' calls against the library itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cuda_fake import Code, FakeCudart, FakeGpu, FakePycuda
from trt_kit import assert_clean, fake_cuda

from engines.backends import cuda as cuda_module
from engines.backends import cuda_bindings, cuda_pycuda
from engines.backends.cuda import STICKY, CudaError, HostBuffer, open_cuda, probe_cuda
from engines.backends.cuda_bindings import CudaBindingsApi
from engines.backends.cuda_pycuda import PycudaApi
from engines.errors import SessionError

ADAPTERS = ["cuda-bindings", "pycuda"]


@pytest.fixture
def cudart():
    return pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed", exc_type=ImportError)


@pytest.fixture
def no_driver(cudart):
    if probe_cuda().device:
        pytest.skip("this machine has a GPU")
    return cudart


@pytest.mark.req("R-RUN-08")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_bytes_go_to_the_device_and_back(adapter):
    gpu = FakeGpu()
    cuda = fake_cuda(gpu, adapter)
    stream = cuda.stream_create()
    host, device = cuda.host_alloc(8, mapped=False), cuda.device_alloc(8)
    host.array[...] = range(8)
    cuda.copy_to_device(device, host.array[:6], stream)
    cuda.device_fill(device, 9, 2, stream)
    cuda.stream_synchronize(stream)
    host.array[...] = 0
    cuda.copy_to_host(host.array[:5], device, stream)
    cuda.stream_synchronize(stream)
    assert host.array.tolist() == [9, 9, 2, 3, 4, 0, 0, 0]
    assert cuda.free_bytes() == 1 << 29
    cuda.device_free(device)
    cuda.host_free(host)
    cuda.stream_destroy(stream)
    cuda.close()
    assert_clean(gpu)


@pytest.mark.req("R-RUN-08")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_both_tell_the_same_of_a_gpu(adapter):
    facts = fake_cuda(FakeGpu(integrated=True), adapter).facts()
    assert (facts.name, facts.compute_capability, facts.integrated) == ("fake", (8, 7), True)
    assert (facts.total_bytes, facts.driver_version) == (1 << 30, 12060)
    assert not fake_cuda(FakeGpu(), adapter).facts().integrated


@pytest.mark.req("R-RUN-08")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_lack_of_memory_ends_a_session_and_a_lost_context_the_process(adapter):
    gpu = FakeGpu()
    cuda = fake_cuda(gpu, adapter)
    gpu.fail_at, gpu.code = len(gpu.calls), Code.cudaErrorMemoryAllocation
    with pytest.raises(CudaError) as caught:
        cuda.device_alloc(1)
    assert not caught.value.sticky
    gpu.fail_at, gpu.code = len(gpu.calls), Code.cudaErrorIllegalAddress
    with pytest.raises(CudaError, match=r"cudaErrorIllegalAddress.*the worker must start anew") as caught:
        cuda.device_alloc(1)
    assert caught.value.sticky
    assert isinstance(caught.value, SessionError)


@pytest.mark.req("R-RUN-08")
def test_pycuda_gives_no_code_so_that_all_but_a_lack_of_memory_counts_as_lost():
    gpu = FakeGpu()
    cuda = fake_cuda(gpu, "pycuda")
    gpu.fail_at, gpu.code = len(gpu.calls), Code.cudaErrorInvalidValue
    with pytest.raises(CudaError, match="mem_alloc failed: LogicError") as caught:
        cuda.device_alloc(1)
    assert caught.value.sticky


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_host_memory_that_cannot_be_mapped_is_given_back(adapter):
    probe = FakeGpu()
    fake_cuda(probe, adapter).host_alloc(8, mapped=True)
    gpu = FakeGpu(fail_at=probe.calls.index("host_device_pointer"))
    cuda = fake_cuda(gpu, adapter)
    with pytest.raises(CudaError):
        cuda.host_alloc(8, mapped=True)
    cuda.close()
    assert_clean(gpu)


@pytest.mark.req("R-RUN-08")
def test_every_function_we_call_is_one_of_cuda_bindings(cudart):
    text = Path(cuda_bindings.__file__).read_text("utf-8")
    names = set(re.findall(r'_(?:call|values)\(\s*"(cuda\w+)"', text)) | set(re.findall(r"_cudart\.(cuda\w+)", text))
    assert len(names) >= 20
    assert [name for name in sorted(names) if not hasattr(cudart, name)] == []
    assert [name for name in sorted(names) if not hasattr(FakeCudart, name)] == []


@pytest.mark.req("R-RUN-08")
def test_cuda_bindings_takes_what_we_hand_to_each_function(no_driver):
    """Without a driver a call that is made rightly is answered with a code; one made wrongly raises TypeError."""
    cuda = object.__new__(CudaBindingsApi)
    cuda._cudart, cuda._device, cuda._driver = no_driver, 0, 0
    array = np.zeros(8, np.uint8)
    calls = [
        cuda.facts,
        cuda.free_bytes,
        cuda.stream_create,
        lambda: cuda.stream_synchronize(1),
        lambda: cuda.stream_destroy(1),
        lambda: cuda.device_alloc(8),
        lambda: cuda.device_free(4096),
        lambda: cuda.device_fill(4096, 255, 8, 1),
        lambda: cuda.host_alloc(8, mapped=True),
        lambda: cuda.host_alloc(8, mapped=False),
        lambda: cuda._call("cudaHostGetDevicePointer", 4096, 0),
        lambda: cuda.host_free(HostBuffer(array)),
        lambda: cuda.copy_to_device(4096, array, 1),
        lambda: cuda.copy_to_host(array, 4096, 1),
        lambda: cuda.capture_begin(1),
        lambda: cuda.capture_end(1),
        lambda: cuda._call("cudaGraphInstantiate", 1, 0),
        lambda: cuda._call("cudaGraphDestroy", 1),
        lambda: cuda.graph_launch(1, 1),
        lambda: cuda.graph_destroy(1),
        lambda: cuda._call("cudaSetDevice", 0),
    ]
    for call in calls:
        with pytest.raises(CudaError, match=r"cudaErrorInsufficientDriver|cudaErrorNoDevice"):
            call()


@pytest.mark.req("R-RUN-08")
def test_no_sticky_code_is_misspelt(cudart):
    known = {code.name for code in cudart.cudaError_t}
    if cudart.cudaRuntimeGetVersion()[1] < 13000:
        pytest.skip("some codes came with CUDA 13")
    assert known >= STICKY


def test_the_fake_of_pycuda_has_every_name_that_the_adapter_uses():
    """Of the real pycuda nothing is shown here: it cannot be installed without CUDA's compiler."""
    text = Path(cuda_pycuda.__file__).read_text("utf-8")
    names = set(re.findall(r"self\._driver\.(\w+)", text))
    assert names >= {"Device", "Stream", "mem_alloc", "pagelocked_empty"}
    assert [name for name in sorted(names) if not hasattr(FakePycuda, name)] == []
    assert "autoinit" not in re.sub(r'"""[\s\S]*?"""', "", text)


@pytest.mark.req("R-RUN-07")
def test_a_machine_without_driver_says_so_and_how_to_mend_it(no_driver):
    probe = probe_cuda()
    assert (probe.device, probe.adapter) == (None, "cuda-bindings")
    assert probe.adapter_version
    assert probe.reason == "no NVIDIA driver runs on this machine; install it (nvidia-smi must list the GPU)"
    with pytest.raises(SessionError, match="no NVIDIA driver"):
        open_cuda()


@pytest.mark.req("R-RUN-07")
def test_a_machine_without_cuda_layer_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_module, "ADAPTERS", ())
    probe = probe_cuda()
    assert probe.adapter is None
    assert "scanside[gpu]" in probe.reason


@pytest.mark.req("R-RUN-07")
def test_pycuda_that_cannot_be_loaded_is_told_as_such(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(SessionError, match="pycuda cannot be loaded"):
        open_cuda(adapter="pycuda")


@pytest.mark.req("R-RUN-07")
def test_a_gpu_that_is_not_there_is_told_as_such():
    with pytest.raises(SessionError, match="no GPU 1; CUDA sees 1"):
        CudaBindingsApi(FakeCudart(FakeGpu()), 1)
    with pytest.raises(SessionError, match="no NVIDIA driver"):
        CudaBindingsApi(FakeCudart(FakeGpu(driver=0)))
    with pytest.raises(SessionError, match="pycuda finds no GPU 0"):
        PycudaApi(FakePycuda(FakeGpu(fail_at=0)))


@pytest.mark.req("R-RUN-07")
@pytest.mark.parametrize("call", [0, 1])
def test_a_gpu_that_cannot_be_reached_does_not_end_the_process(call):
    """A new process would meet the same, and the worker would start anew for ever."""
    with pytest.raises(SessionError, match=r"GPU 0 cannot be used: cudaErrorIllegalAddress .*see nvidia-smi") as caught:
        CudaBindingsApi(FakeCudart(FakeGpu(fail_at=call, code=Code.cudaErrorIllegalAddress)))
    assert not caught.value.sticky
