"""Our KServe v2 client against a real server: mlserver, started once, with the graphs of two packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import numpy as np
import pytest
import session_contract as contract
import toy_packages
from box_kit import Box, box_config
from mlserver_kit import mlserver, require_mlserver

from appliance.simulate.scenarios import SCENARIOS
from engines.backends.kserve import KServeServer, ask_server, open_kserve
from engines.backends.kserve_messages import MESSAGES
from engines.package import bundled_packages, load_package
from engines.pipeline import Pipeline

pytestmark = pytest.mark.req("R-KSERVE-06")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No stall of the machine is a silent server."""
    monkeypatch.setattr("engines.backends.kserve_client.ASK_S", 30.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return contract.contract_package(tmp_path_factory.mktemp("contract") / "package")


@pytest.fixture(scope="module")
def head_ct():
    return load_package(bundled_packages()["head-ct-hyperdensity"])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = toy_packages.make_toy_xray_package(tmp_path_factory.mktemp("toy") / "package")
    return load_package(toy_packages.add_golden(folder), trusted=True)


@pytest.fixture(scope="module")
def server(package, head_ct, toy, tmp_path_factory, free_port):
    with mlserver(tmp_path_factory.mktemp("mlserver"), [package, head_ct, toy], free_port) as running:
        yield running


class TestKServeOnMlServer(contract.SessionContract):
    @pytest.fixture
    def session_under_test(self, package, server):
        with open_kserve(package, 0, KServeServer(address=server.address, timeout_s=60)) as session:
            yield session
            # Every answer was the server's: the fallback would give the same numbers.
            assert (session.backend, session.degraded) == ("kserve", "")


def test_the_server_says_who_it_is(server):
    assert ask_server(KServeServer(address=server.address), 30.0).startswith("mlserver 1.")


def test_a_ct_package_gives_on_the_server_what_it_gives_here(server, head_ct):
    from engines.golden import golden_cases

    case = next(golden_cases(head_ct))
    sessions = [open_kserve(head_ct, 0, KServeServer(address=server.address, timeout_s=60))]
    with Pipeline(head_ct) as here, Pipeline(head_ct, sessions=sessions) as there:
        assert there.run_volumes(case.inputs).output.scores == here.run_volumes(case.inputs).output.scores
        assert (there.backend, there.precision) == ("kserve", "fp32")
        assert there.digest != here.digest


def test_a_server_with_another_file_under_our_name_is_not_believed(server, package, tmp_path):
    """The same tensors, another graph: only the digest tells."""
    import onnx

    other = contract.contract_package(tmp_path / "other")
    model = onnx.load_from_string(other.read_onnx())
    model.doc_string = "another"
    (other.path / "model.onnx").write_bytes(model.SerializeToString())
    changed = load_package(other.path, trusted=True)
    tensors = contract.case(2, 1)
    with open_kserve(changed, 0, KServeServer(address=server.address, timeout_s=60)) as session:
        got = session.run(tensors)
        assert session.backend == "kserve+onnxruntime"
        assert "ran a graph of SHA-256" in session.degraded
    np.testing.assert_allclose(got["scores"], contract.expected(tensors)["scores"], atol=1e-6)


@pytest.mark.req("R-KSERVE-11", "R-KSERVE-12")
def test_a_box_runs_on_the_server_and_goes_on_while_it_is_silent(server, toy, tmp_path):
    config = box_config(tmp_path / "state", packages=(toy.name,), kserve={"address": server.address, "timeout_s": 10.0})
    scenario = next(one for one in SCENARIOS if one.name == "chest_xray")
    with Box(config, (toy.path,)) as box:

        def study(seed):
            (ds,) = scenario.build(seed)
            box.send([ds], "DX-1")
            return box.store.analyses.of_study(box.ended(ds.StudyInstanceUID).id)[toy.name]

        def issues():
            return [(issue.code, issue.subject) for issue in box.store.issues.open()]

        there = study("there")
        assert (there.backend, there.precision) == ("kserve", "fp32")
        assert issues() == []
        os.kill(server.pid, signal.SIGSTOP)
        try:
            here = study("here")
            assert (here.backend, here.outcome) == ("kserve+onnxruntime", there.outcome)
            box.wait(lambda: issues() == [("KSERVE_DEGRADED", toy.name)], "the issue")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert study("again").backend == "kserve"
        box.wait(lambda: issues() == [], "the end of the issue")


def test_our_messages_have_the_field_numbers_of_the_protocol():
    """Read from what protoc generated of the protocol's own file, as mlserver ships it."""
    require_mlserver()
    from mlserver_kit import PROGRAM

    code = (
        "import json\n"
        "from mlserver.grpc import dataplane_pb2\n"
        "def walk(messages):\n"
        "    return {m.full_name: {f.name: [f.number, f.type] for f in m.fields} for m in messages} | {\n"
        "        k: v for m in messages for k, v in walk(m.nested_types).items()}\n"
        "print(json.dumps(walk(dataplane_pb2.DESCRIPTOR.message_types_by_name.values())))\n"
    )
    done = subprocess.run([PROGRAM.parent / "python", "-c", code], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])

    def walk(messages):
        found = {m.full_name: {f.name: [f.number, f.type] for f in m.fields} for m in messages}
        return found | {k: v for m in messages for k, v in walk(m.nested_types).items()}

    ours = walk([getattr(MESSAGES, name).DESCRIPTOR for name in MESSAGES.__slots__])
    assert set(ours) <= {name.replace("dataplane", "inference") for name in theirs}
    assert len(ours) > 12
    for message, fields in ours.items():
        assert fields.items() <= theirs[message].items(), message
