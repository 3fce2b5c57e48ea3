"""ONNX Runtime with another provider than the CPU's: all of the graph there, or an error."""

from __future__ import annotations

from types import SimpleNamespace

import onnxruntime
import pytest
import session_contract as contract

from engines.backends.onnxruntime import OnnxRuntimeSession, check_assigned
from engines.errors import SessionError
from engines.session import open_session

pytestmark = pytest.mark.req("R-RUN-09")


@pytest.fixture
def package(tmp_path):
    return contract.contract_package(tmp_path / "contract")


def test_a_provider_that_is_not_here_is_refused_with_those_that_are(package):
    with pytest.raises(SessionError, match=r"no provider 'NoSuchExecutionProvider'.*it has .*CPUExecutionProvider"):
        open_session(package, backend="onnxruntime:NoSuchExecutionProvider")


def test_a_provider_that_takes_nothing_of_the_graph_is_refused_by_the_library_itself(package):
    """Azure's takes no standard operator: bare ONNX Runtime would run all on the CPU and say nothing."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no provider but the CPU's")
    with pytest.raises(SessionError, match=r"with AzureExecutionProvider, which must take the whole graph.*fallback"):
        open_session(package, backend="onnxruntime:AzureExecutionProvider")


@pytest.mark.parametrize("backend", ["onnxruntime:", "onnx", "cpu:CPUExecutionProvider", ""])
def test_what_is_no_backend_is_refused(package, backend):
    with pytest.raises(SessionError, match="unknown backend"):
        open_session(package, backend=backend)


def test_the_cpu_by_its_full_name_is_the_same_engine(package):
    with open_session(package) as plain, open_session(package, backend="onnxruntime:CPUExecutionProvider") as named:
        assert named.backend == plain.backend == "onnxruntime"
        assert named.digest == plain.digest


def test_both_ways_back_to_the_cpu_are_shut(monkeypatch):
    """ONNX Runtime falls back while it loads (an option) and again in its Python layer (an argument)."""
    seen = {}

    def load(graph, options, *, providers, enable_fallback):
        seen["fallback"] = enable_fallback
        seen["option"] = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        return SimpleNamespace(
            get_inputs=list,
            get_outputs=list,
            get_providers=lambda: [*providers, "CPUExecutionProvider"],
            get_provider_graph_assignment_info=lambda: [SimpleNamespace(ep_name=providers[0])],
        )

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["XExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    session = OnnxRuntimeSession(b"", name="x", provider="XExecutionProvider")
    assert session.backend == "onnxruntime:XExecutionProvider"
    assert seen == {"fallback": 0, "option": "1"}


@pytest.mark.parametrize(
    ("registered", "assigned"),
    [(["CPUExecutionProvider"], None), (["X", "CPUExecutionProvider"], ["X", "CPUExecutionProvider"])],
)
def test_a_graph_that_would_run_elsewhere_is_not_used(registered, assigned):
    session = SimpleNamespace(get_providers=lambda: registered)
    if assigned is not None:
        session.get_provider_graph_assignment_info = lambda: [SimpleNamespace(ep_name=name) for name in assigned]
    with pytest.raises(SessionError, match=r"would run on CPUExecutionProvider.*, not on X alone"):
        check_assigned(session, "X", "contract")


def test_a_graph_that_runs_where_it_should_is_used_also_by_an_old_onnx_runtime():
    check_assigned(SimpleNamespace(get_providers=lambda: ["X", "CPUExecutionProvider"]), "X", "contract")
