"""What TensorRT's session must do beyond the contract, on the strict fake; and that the fake is strict."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import session_contract as contract
from cuda_fake import Code, FakeGpu, FakePycuda, Misuse
from trt_fake import fake_flavour, fake_plan
from trt_kit import assert_clean, contract_plan, fake_cuda, fake_trt, open_fake_trt

from engines.backends.cuda import CudaError, probe_cuda
from engines.backends.tensorrt import open_tensorrt
from engines.backends.trt_api import load_flavour
from engines.backends.trt_engine import LoadedEngine
from engines.errors import SessionError

WAYS = [
    pytest.param({"adapter": "cuda-bindings"}, id="cuda-bindings"),
    pytest.param({"adapter": "cuda-bindings", "integrated": True}, id="jetson"),
    pytest.param({"adapter": "pycuda"}, id="pycuda"),
    pytest.param({"adapter": "cuda-bindings", "rtx": True}, id="rtx"),
]
#: Shapes that bring plain runs, a recorded graph, its launch, and its end by a change of shape.
STUDIES = [contract.case(n, seed) for seed, n in enumerate([2, 2, 2, 1, 1, 1])]


def work(gpu, **how):
    """A whole life: open, warm up, run, close. Gives what each run answered; whatever fails raises SessionError."""
    answers = []
    with open_fake_trt(gpu, **how) as session:
        session.warmup()
        answers.extend(session.run(tensors) for tensors in STUDIES)
    return answers


def gpu_for(way, **fault):
    way = dict(way)
    return FakeGpu(integrated=way.pop("integrated", False), **fault), way


@pytest.mark.req("R-RUN-02")
@pytest.mark.parametrize("code", [Code.cudaErrorInvalidValue, Code.cudaErrorMemoryAllocation])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_call_fails_the_session_says_so_and_leaks_nothing(way, code):
    gpu, how = gpu_for(way)
    right = work(gpu, **how)
    for call, name in enumerate(list(gpu.calls)):
        broken, how = gpu_for(way, fail_at=call, code=code)
        try:
            answers = work(broken, **how)
        except SessionError:
            pass
        else:
            # The one thing that may fail unnoticed: a graph that could not be recorded, then runs are plain.
            assert broken.struck_a_recording or name in {"capture_begin", "capture_end", "instantiate", "graph_destroy"}
            for answer, want in zip(answers, right, strict=True):
                np.testing.assert_array_equal(answer["scores"], want["scores"])
                np.testing.assert_array_equal(answer["where"], want["where"])
        assert_clean(broken)


@pytest.mark.req("R-RUN-03")
@pytest.mark.fault("T30")
@pytest.mark.parametrize("way", WAYS)
def test_a_lost_device_is_told_as_such_whatever_call_meets_it(way):
    gpu, how = gpu_for(way)
    work(gpu, **how)
    for call in range(len(gpu.calls)):
        broken, how = gpu_for(way, fail_at=call, code=Code.cudaErrorIllegalAddress)
        with pytest.raises(SessionError) as caught:
            work(broken, **how)
        met_while_reaching_the_device = call < 3
        assert caught.value.sticky or met_while_reaching_the_device
        del caught
        assert_clean(broken)


@pytest.mark.req("R-RUN-02")
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_fails_once_does_not_spoil_the_next(way):
    """Also none of the answers that follow is an older one."""
    probe, how = gpu_for(way)
    with open_fake_trt(probe, **how) as session:
        session.warmup()
        ready = len(probe.calls)
        session.run(STUDIES[0])
        spent = len(probe.calls) - ready
    failures = []
    for call in range(ready, ready + spent):
        gpu, how = gpu_for(way, fail_at=call, code=Code.cudaErrorMemoryAllocation)
        with fake_trt(gpu, **how) as session:
            session.warmup()
            try:
                session.run(STUDIES[0])
            except SessionError as error:
                failures.append(error.sticky)
            for tensors in STUDIES[1:]:
                want = contract.expected(tensors)
                np.testing.assert_allclose(session.run(tensors)["scores"], want["scores"], atol=1e-6)
    # pycuda gives no code, but tells a lack of memory from the rest.
    assert failures
    assert not any(failures)


@pytest.mark.req("R-RUN-02")
@pytest.mark.parametrize("lie", ["skip", "half"])
@pytest.mark.parametrize("way", WAYS)
def test_an_output_that_was_not_written_whole_is_refused_not_given_again(way, lie):
    gpu, how = gpu_for(way)
    with fake_trt(gpu, **how) as session:
        flavour = session._flavour
        session.run(STUDIES[0])
        flavour.module.lie = lie
        for _ in range(3):
            with pytest.raises(SessionError, match="has not written the whole of output 'scores'"):
                session.run(STUDIES[1])
        flavour.module.lie = None
        want = contract.expected(STUDIES[1])
        np.testing.assert_allclose(session.run(STUDIES[1])["scores"], want["scores"], atol=1e-6)


@pytest.mark.req("R-RUN-02")
def test_a_run_that_tensorrt_does_not_enqueue_is_told_with_what_its_logger_says():
    gpu = FakeGpu()
    with fake_trt(gpu) as session:
        session.run(STUDIES[0])
        before = len(gpu.calls)
        session.run(contract.case(1, seed=1))
        gpu.fail_at = len(gpu.calls) + gpu.calls[before:].index("execute")
        with pytest.raises(SessionError, match=r"tensorrt 0\.0-fake did not run \(contract\): fake execute"):
            session.run(STUDIES[0])


@pytest.mark.req("R-RUN-03")
def test_after_a_lost_device_no_run_is_tried_again():
    gpu = FakeGpu()
    session = open_fake_trt(gpu)
    session.run(STUDIES[0])
    gpu.fail_at, gpu.code = len(gpu.calls) + 2, Code.cudaErrorIllegalAddress
    with pytest.raises(CudaError, match=r"cudaErrorIllegalAddress .*must start anew"):
        session.run(STUDIES[1])
    calls = len(gpu.calls)
    with pytest.raises(SessionError, match="cannot run any more") as caught:
        session.run(STUDIES[1])
    assert caught.value.sticky
    assert len(gpu.calls) == calls
    with pytest.raises(CudaError):
        session.close()
    del caught
    assert_clean(gpu)


@pytest.mark.req("R-RUN-04")
def test_a_graph_is_recorded_after_a_plain_run_and_dies_with_its_shape():
    gpu = FakeGpu()
    with fake_trt(gpu) as session:
        modes = []
        for n in [2, 2, 2, 3, 3, 2]:
            session.run(contract.case(n, seed=n))
            modes.append(session.graph)
        assert modes == ["plain", "graph", "graph", "plain", "graph", "plain"]
        assert gpu.calls.count("launch") == 3


@pytest.mark.req("R-RUN-04")
def test_warm_up_leaves_a_graph_of_the_usual_shape():
    with fake_trt(FakeGpu()) as session:
        session.warmup()
        assert session.graph == "graph"
        session.run(contract.case(contract.USUAL, seed=1))
        assert session.graph == "graph"


@pytest.mark.req("R-RUN-04")
@pytest.mark.parametrize("call", ["capture_begin", "capture_end", "instantiate"])
def test_where_no_graph_can_be_recorded_runs_stay_plain(call):
    probe = FakeGpu()
    with fake_trt(probe) as session:
        session.warmup()
    gpu = FakeGpu(fail_at=probe.calls.index(call))
    with fake_trt(gpu) as session:
        session.warmup()
        assert session.graph.startswith("no graph: ")
        for tensors in STUDIES:
            want = contract.expected(tensors)
            np.testing.assert_allclose(session.run(tensors)["scores"], want["scores"], atol=1e-6)
        assert gpu.calls.count("capture_begin") == 1


@pytest.mark.req("R-RUN-04")
@pytest.mark.parametrize(("how", "mode"), [({"rtx": True}, "internal"), ({"adapter": "pycuda"}, "plain")])
def test_nothing_is_recorded_where_tensorrt_rtx_does_it_or_pycuda_cannot(how, mode):
    gpu = FakeGpu()
    with fake_trt(gpu, **how) as session:
        session.warmup()
        assert session.graph == mode
    assert "capture_begin" not in gpu.calls


@pytest.mark.req("R-RUN-04")
@pytest.mark.parametrize("rtx", [False, True])
def test_where_graphs_are_not_wanted_nobody_records_one(rtx):
    gpu = FakeGpu()
    with fake_trt(gpu, rtx=rtx, graphs=False) as session:
        session.warmup()
        assert session.graph == "plain"
    assert "capture_begin" not in gpu.calls


@pytest.mark.req("R-RUN-05")
def test_memory_that_is_shared_with_the_cpu_is_not_copied():
    gpu = FakeGpu(integrated=True)
    with fake_trt(gpu) as session:
        session.warmup()
    assert not {"alloc", "to_device", "to_host", "fill"} & set(gpu.calls)
    gpu = FakeGpu(integrated=True)
    with fake_trt(gpu, memory="copy") as session:
        session.warmup()
    assert {"alloc", "to_device", "to_host", "fill"} <= set(gpu.calls)


@pytest.mark.req("R-RUN-05")
def test_memory_is_taken_once_for_the_largest_shape():
    gpu = FakeGpu()
    with fake_trt(gpu) as session:
        taken = [gpu.calls.count(name) for name in ("alloc", "host_alloc")]
        for n in range(1, contract.LARGEST + 1):
            session.run(contract.case(n, seed=n))
        assert [gpu.calls.count(name) for name in ("alloc", "host_alloc")] == taken == [4, 4]


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (b"", "refuses the plan .*this is no plan: build the engine again"),
        (b"garbage", "refuses the plan"),
        (contract_plan(dtype={"scores": "DataType.BF16"}), "'scores' is DataType.BF16; a graph must give it"),
        (contract_plan(location={"gain": "host"}), "'gain' is a shape"),
        (contract_plan(dynamic=["where"]), "shape of output 'where' depends on data"),
    ],
)
def test_a_plan_that_cannot_serve_is_refused_and_nothing_stays(plan, complaint):
    gpu = FakeGpu()
    with pytest.raises(SessionError, match=complaint) as caught:
        open_fake_trt(gpu, plan=plan)
    # Even while the error, and with it every frame, lives: what TensorRT holds must be gone before the device is left.
    assert dict(gpu.live) == {}
    del caught
    assert_clean(gpu)


@pytest.mark.req("R-RUN-06")
def test_host_code_of_a_plan_is_never_allowed():
    gpu = FakeGpu()
    with pytest.raises(SessionError, match="host code"):
        open_fake_trt(gpu, host_code=True)
    assert_clean(gpu)


@pytest.mark.req("R-RUN-06")
def test_the_real_runtime_allows_no_host_code():
    pytest.importorskip("tensorrt_rtx", reason="it is for x86-64 only", exc_type=ImportError)
    flavour = load_flavour("tensorrt_rtx")
    assert flavour.module.Runtime(flavour.logger).engine_host_code_allowed is False


@pytest.mark.req("R-RUN-06")
@pytest.mark.parametrize("plan", [b"", b"garbage", b"\0" * 100])
def test_the_real_runtime_refuses_what_is_no_plan_and_we_say_so(plan):
    """Without a driver it refuses everything; with one, these."""
    pytest.importorskip("tensorrt_rtx", reason="it is for x86-64 only", exc_type=ImportError)
    with pytest.raises(SessionError, match=r"tensorrt_rtx [\d.]+ refuses the plan \(real\).*build the engine again"):
        LoadedEngine(plan, load_flavour("tensorrt_rtx"), "real", 1, graphs=True)


@pytest.mark.req("R-RUN-07")
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx", "tensorflow"])
def test_a_machine_without_gpu_says_what_it_lacks(flavour):
    if probe_cuda().device:
        pytest.skip("this machine has a GPU")
    with pytest.raises(SessionError, match=r"no NVIDIA driver runs|no CUDA layer|cannot be loaded|unknown flavour"):
        open_tensorrt(b"", flavour=flavour, name="x", precision="fp32", digest="0" * 64)


class TestTheFakeIsStrict:
    """Each rule that a session might break is one that the fake would tell of."""

    @pytest.fixture
    def gpu(self):
        return FakeGpu()

    @pytest.fixture
    def cuda(self, gpu):
        return fake_cuda(gpu)

    @pytest.fixture
    def loaded(self, gpu, cuda):
        """A stream and an execution context with shapes."""
        trt = fake_flavour(gpu).module
        context = trt.Runtime(trt.logger).deserialize_cuda_engine(contract_plan()).create_execution_context()
        for name, (_, usual, _) in contract.PROFILES.items():
            assert context.set_input_shape(name, usual)
        return cuda.stream_create(), context

    def address_all(self, cuda, context, size=1 << 16):
        for name in (*contract.INPUTS, *contract.OUTPUTS):
            assert context.set_tensor_address(name, cuda.device_alloc(size))

    def test_host_and_device_pointers_are_told_apart(self, cuda, loaded):
        stream, context = loaded
        host, device = cuda.host_alloc(64, mapped=False), cuda.device_alloc(64)
        with pytest.raises(Misuse, match="host address stands where the device looks"):
            cuda.copy_to_device(host.array.ctypes.data, host.array, stream)
        with pytest.raises(Misuse, match="host address stands where the device looks"):
            context.set_tensor_address("gain", host.array.ctypes.data)
        with pytest.raises(Misuse, match="not pinned"):
            cuda.copy_to_device(device, np.zeros(64, np.uint8), stream)

    def test_a_run_without_an_address_or_a_shape_is_refused(self, cuda, loaded, gpu):
        stream, context = loaded
        assert context.execute_async_v3(stream) is False
        self.address_all(cuda, context)
        assert context.execute_async_v3(stream) is True
        trt = fake_flavour(gpu).module
        bare = trt.Runtime(trt.logger).deserialize_cuda_engine(contract_plan()).create_execution_context()
        assert bare.infer_shapes() == ["image", "gain"]
        assert tuple(bare.get_tensor_shape("scores")) == (-1, 2)
        cuda.stream_synchronize(stream)

    def test_a_shape_outside_of_the_profile_is_refused(self, loaded):
        _, context = loaded
        assert context.set_input_shape("gain", (contract.LARGEST + 1, 2)) is False
        assert context.set_input_shape("gain", (1, 3)) is False
        assert context.set_input_shape("gain", (2,)) is False

    def test_memory_that_is_too_small_is_noticed(self, cuda, loaded):
        stream, context = loaded
        self.address_all(cuda, context, size=4)
        context.execute_async_v3(stream)
        with pytest.raises(Misuse, match="too small"):
            cuda.stream_synchronize(stream)

    def test_use_after_free_and_a_second_free_are_noticed(self, cuda, loaded):
        stream, _ = loaded
        device, host = cuda.device_alloc(8), cuda.host_alloc(8, mapped=False)
        cuda.device_free(device)
        with pytest.raises(Misuse, match="after it was freed"):
            cuda.device_fill(device, 0, 8, stream)
        with pytest.raises(Misuse, match="after it was freed"):
            cuda.device_free(device)
        cuda.host_free(host)
        with pytest.raises(Misuse, match="twice"):
            cuda.host_free(host)
        assert (host.array == 0xAB).all()

    def test_nothing_is_there_before_the_stream_was_waited_for(self, cuda, loaded):
        stream, _ = loaded
        device, host = cuda.device_alloc(4), cuda.host_alloc(4, mapped=False)
        host.array[...] = 7
        cuda.device_fill(device, 9, 4, stream)
        cuda.copy_to_host(host.array, device, stream)
        assert (host.array == 7).all()
        cuda.stream_synchronize(stream)
        assert (host.array == 9).all()

    def test_freeing_and_changing_shapes_under_running_work_are_noticed(self, cuda, loaded):
        stream, context = loaded
        device = cuda.device_alloc(4)
        cuda.device_fill(device, 0, 4, stream)
        with pytest.raises(Misuse, match="on its way"):
            cuda.device_free(device)
        with pytest.raises(Misuse, match="on its way"):
            context.set_input_shape("gain", (1, 2))
        with pytest.raises(Misuse, match="on its way"):
            cuda.stream_destroy(stream)

    def test_the_default_stream_is_refused(self, cuda, loaded):
        _, context = loaded
        with pytest.raises(Misuse, match="default stream"):
            context.execute_async_v3(0)

    def test_a_graph_before_a_plain_run_or_after_another_shape_is_noticed(self, cuda, loaded):
        stream, context = loaded
        self.address_all(cuda, context)
        cuda.capture_begin(stream)
        with pytest.raises(Misuse, match="before one plain run"):
            context.execute_async_v3(stream)
        cuda.graph_destroy(cuda.capture_end(stream))
        context.execute_async_v3(stream)
        cuda.stream_synchronize(stream)
        cuda.capture_begin(stream)
        context.execute_async_v3(stream)
        graph = cuda.capture_end(stream)
        context.set_input_shape("gain", (1, 2))
        cuda.graph_launch(graph, stream)
        with pytest.raises(Misuse, match="other shapes"):
            cuda.stream_synchronize(stream)

    def test_a_second_thread_is_noticed(self, cuda, gpu):
        caught = []

        def use():
            try:
                cuda.device_alloc(1)
            except Misuse as misuse:
                caught.append(str(misuse))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert caught == ["alloc from another thread than the owner's"]

    def test_what_is_not_given_back_is_counted(self, cuda, loaded, gpu):
        cuda.device_alloc(1)
        cuda.host_alloc(1, mapped=False)
        with pytest.raises(AssertionError, match="device memory"):
            assert_clean(gpu)

    def test_pycuda_needs_init_and_a_context_that_is_left_last(self, gpu):
        driver = FakePycuda(gpu)
        with pytest.raises(Misuse, match="before init"):
            driver.Device(0)
        cuda = fake_cuda(gpu, "pycuda")
        cuda.device_alloc(1)
        with pytest.raises(Misuse, match="popped while"):
            cuda.close()
        driver.init()
        with pytest.raises(Misuse, match="private context"):
            driver.Device(0).make_context()


def test_every_call_of_the_fake_is_met_by_the_work_that_faults_are_chosen_from():
    """Were a call never made, "for every k" would say nothing of it."""
    met = set()
    for way in WAYS:
        gpu, how = gpu_for(*way.values)
        work(gpu, **how)
        met |= set(gpu.calls)
    plain = {"alloc", "free", "host_alloc", "host_free", "stream_create", "synchronize", "to_device", "to_host", "fill"}
    graphs = {"capture_begin", "capture_end", "instantiate", "launch", "graph_destroy"}
    tensorrt = {"deserialize", "create_context", "set_profile", "set_shape", "infer_shapes", "set_address", "execute"}
    assert plain | graphs | tensorrt | {"host_device_pointer", "push", "pop", "set_device"} <= met


def test_an_engine_of_one_shape_needs_no_profile():
    gpu = FakeGpu()
    with fake_trt(gpu, plan=fake_plan(contract.contract_graph(2))) as session:
        session.warmup()
        assert session.inputs[1].shape == (2, 2)
        with pytest.raises(SessionError, match="'image' has shape"):
            session.run(contract.case(1, seed=1))
        tensors = contract.case(2, seed=1)
        want = contract.expected(tensors)["scores"]
        np.testing.assert_allclose(session.run(tensors)["scores"], want, atol=1e-6)


def test_only_the_owner_closes():
    errors = []
    gpu = FakeGpu()
    with fake_trt(gpu) as session:

        def close():
            try:
                session.close()
            except SessionError as error:
                errors.append(str(error))

        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
        assert "another thread" in errors[0]
        session.run(STUDIES[0])
