"""A KServe server that does everything wrong that one can: the same tensors are computed here, and it is said."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import ipaddress
import json
import math
import re
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
import toy_packages
from kserve_stub import Abort, Stub

from engines.backends.breaker import Breaker
from engines.backends.kserve import KServeServer, KServeSession, ask_server, open_kserve
from engines.backends.kserve_client import RemoteModel
from engines.backends.kserve_messages import MESSAGES
from engines.backends.kserve_tensors import read_outputs
from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import SessionError
from engines.package import load_package
from engines.session import TensorSpec

pytestmark = pytest.mark.filterwarnings("error")
IMAGE = {"image": np.random.default_rng(1).random((1, 1, 256, 256), np.float32)}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = toy_packages.make_toy_xray_package(tmp_path_factory.mktemp("package") / "toy")
    return load_package(folder, trusted=True)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No stall of the machine is a silent server."""
    monkeypatch.setattr("engines.backends.kserve_client.ASK_S", 30.0)


@pytest.fixture
def stub(package, free_port):
    server = Stub(package.read_onnx(), package.name, port=free_port())
    yield server
    server.stop()


class Hand:
    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def session(package, stub, hand):
    graph = package.read_onnx()
    local = OnnxRuntimeSession(graph, name="toy")
    server = KServeServer(address=stub.address, timeout_s=30)
    remote = RemoteModel(server, package.name, stub.sha256, local.inputs, local.outputs)
    breaker = Breaker(failures=3, rest_s=10, now=hand)
    with KServeSession(remote, local, stub.sha256, timeout_s=30, breaker=breaker) as opened:
        yield opened


@pytest.fixture(scope="module")
def truth(package):
    with OnnxRuntimeSession(package.read_onnx(), name="toy") as session:
        return session.run(IMAGE)["scores"]


@pytest.mark.req("R-KSERVE-01")
def test_the_server_computes_and_the_result_names_it(session, stub, truth):
    session.begin_study(lambda: 60.0)
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert (session.backend, session.precision, session.degraded) == ("kserve", "fp32", "")
    assert stub.count("ModelInfer") == 1
    assert len(session.digest) == 64


@pytest.mark.req("R-KSERVE-01")
def test_nothing_but_tensors_and_a_counter_leaves_the_box(session, stub):
    session.run(IMAGE)
    session.run(IMAGE)
    first, second = stub.requests
    assert (first.id, second.id) == ("1", "2")
    assert not first.parameters
    assert [one.name for one in first.inputs] == ["image"]
    assert first.raw_input_contents == [IMAGE["image"].tobytes()]
    assert first.ByteSize() - IMAGE["image"].nbytes < 100


@pytest.mark.req("R-KSERVE-01")
def test_the_outputs_are_the_callers_own(session):
    scores = session.run(IMAGE)["scores"]
    scores[:] = 0
    assert session.run(IMAGE)["scores"][0, 0] != 0


def test_a_wrong_input_is_refused_before_anything_is_sent(session, stub):
    with pytest.raises(SessionError, match="float64, expected float32"):
        session.run({"image": IMAGE["image"].astype(np.float64)})
    assert stub.calls == []


def test_a_closed_session_runs_nothing(session, stub):
    session.close()
    session.close()
    with pytest.raises(SessionError, match="after close"):
        session.run(IMAGE)
    assert stub.calls == []


def other(value):
    def change(response):
        if value is None:
            del response.parameters["model_sha256"]
        else:
            response.parameters["model_sha256"].string_param = value
        return response

    return change


def changed(**fields):
    def change(response):
        for name, value in fields.items():
            setattr(response, name, value)
        return response

    return change


def output(**fields):
    def change(response):
        for name, value in fields.items():
            if name == "shape":
                response.outputs[0].shape[:] = value
            else:
                setattr(response.outputs[0], name, value)
        return response

    return change


def raw(*contents):
    def change(response):
        response.raw_output_contents[:] = contents
        return response

    return change


def doubled(response):
    response.outputs.append(response.outputs[0])
    response.raw_output_contents.append(response.raw_output_contents[0])
    return response


WRONG = {
    "wrong digest": (other("0" * 64), "ran a graph of SHA-256 000"),
    "no digest": (other(None), "does not say which graph it ran"),
    "another request's answer": (changed(id="7"), "to another request"),
    "another model's answer": (changed(model_name="other"), "model 'other'"),
    "another name": (output(name="logits"), r"outputs \['logits'\] came"),
    "another type": (output(datatype="FP64"), "is FP64, FP32 is due"),
    "an unknown type": (output(datatype="BYTES"), "is BYTES, FP32 is due"),
    "another shape": (output(shape=[1, 2]), r"has shape \(1, 2\)"),
    "another rank": (output(shape=[1]), r"has shape \(1,\)"),
    "a negative shape": (output(shape=[-1, -1]), "has shape"),
    "truncated contents": (raw(b"\0\0\0"), "has 3 bytes"),
    "longer contents": (raw(bytes(8)), "has 8 bytes"),
    "no contents": (raw(), "0 raw contents came"),
    "an output twice": (doubled, "came"),
}


@pytest.mark.req("R-KSERVE-02")
@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_that_is_not_what_was_asked_is_never_used(session, stub, truth, wrong):
    change, words = WRONG[wrong]
    stub.faults += [change]
    session.begin_study(lambda: 60.0)
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert session.backend == "kserve+onnxruntime"
    assert re.search(words, session.degraded), session.degraded
    # At once, not after three: it would answer the next study no better.
    session.run(IMAGE)
    assert stub.count("ModelInfer") == 1


@pytest.mark.req("R-KSERVE-02")
def test_what_is_no_message_at_all_is_an_answer_that_fails(session, stub, truth):
    stub.faults += [lambda _: b"\xff\xff\xff garbage"]
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert "INTERNAL" in session.degraded


@pytest.mark.req("R-KSERVE-02")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "picture"}, "it has the inputs ['picture'], the package ['image']"),
        ({"datatype": "UINT8"}, "input 'image' is UINT8 there, FP32 here"),
        ({"shape": [1, 1, 128, 128]}, "shape (1, 1, 128, 128) there"),
        ({"shape": [1, 256, 256]}, "shape (1, 256, 256) there"),
    ],
)
def test_a_server_with_another_model_is_sent_no_tensor(session, stub, truth, change, words):
    stub.tensors["inputs"][0] |= change
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert words in session.degraded
    assert "serve the ONNX file of the package there" in session.degraded
    assert stub.requests == []


@pytest.mark.req("R-KSERVE-02")
def test_a_server_whose_sizes_vary_where_ours_are_fixed_will_do(session, stub):
    stub.tensors["inputs"][0]["shape"] = [-1, 1, 256, 256]
    session.run(IMAGE)
    assert session.degraded == ""


@pytest.mark.req("R-KSERVE-02")
@pytest.mark.parametrize("what", ["live", "ready", "model_ready"])
def test_a_server_that_is_not_ready_is_sent_no_tensor(session, stub, what):
    setattr(stub, what, False)
    session.run(IMAGE)
    assert "not ready" in session.degraded
    assert stub.requests == []


def abort(code):
    def change(_):
        raise Abort(code, "told to\n" + "x" * 1000)

    return change


@pytest.mark.req("R-KSERVE-03")
def test_unavailable_is_asked_a_second_time_and_no_third(session, stub, truth):
    stub.faults += [abort(grpc.StatusCode.UNAVAILABLE)]
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert (session.backend, stub.count("ModelInfer")) == ("kserve", 2)
    stub.faults += [abort(grpc.StatusCode.UNAVAILABLE)] * 2
    session.run(IMAGE)
    assert (session.backend, stub.count("ModelInfer")) == ("kserve+onnxruntime", 4)
    # Foreign words are cut, and are one line.
    assert "UNAVAILABLE: told to xxx" in session.degraded
    assert len(session.degraded) < 400


@pytest.mark.req("R-KSERVE-03")
@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_nothing_else_is_asked_a_second_time(session, stub, code):
    stub.faults += [abort(code)]
    session.run(IMAGE)
    assert stub.count("ModelInfer") == 1


@pytest.mark.req("R-KSERVE-03")
def test_after_three_failures_the_server_rests_and_is_found_again(session, stub, hand):
    for _ in range(3):
        stub.faults += [abort(grpc.StatusCode.INTERNAL)]
        session.run(IMAGE)
    asked = len(stub.calls)
    for _ in range(5):
        session.run(IMAGE)
    assert len(stub.calls) == asked
    assert "INTERNAL" in session.degraded
    hand.at = 10.0
    session.begin_study(lambda: 60.0)
    session.run(IMAGE)
    assert (session.backend, session.degraded) == ("kserve", "")
    # Looked at again before tensors were sent.
    assert stub.count("ModelMetadata") == 4


@pytest.mark.req("R-KSERVE-03")
def test_the_server_gets_half_of_what_is_left_and_never_more_than_its_own_time(session, monkeypatch):
    session.run(IMAGE)
    given = []
    real = session._remote.infer
    monkeypatch.setattr(
        session._remote, "infer", lambda tensors, within_s: (given.append(within_s), real(tensors, 30))[1]
    )
    for left_s in (600.0, 4.0):
        session.begin_study(lambda left_s=left_s: left_s)
        session.run(IMAGE)
    assert given == [30.0, 2.0]


@pytest.mark.req("R-KSERVE-03")
def test_a_slow_server_is_not_waited_for(session, stub, truth):
    session.run(IMAGE)
    stub.faults += [lambda response: stub.go_on.wait(60) and response]
    session.begin_study(lambda: 2.0)
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert "DEADLINE_EXCEEDED" in session.degraded


@pytest.mark.req("R-KSERVE-03")
def test_a_study_without_time_left_sends_nothing(session, stub, truth):
    session.begin_study(lambda: -1.0)
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert stub.calls == []
    assert "no time is left" in session.degraded


@pytest.mark.req("R-KSERVE-03")
def test_a_server_that_dies_and_comes_back(session, stub, truth, hand):
    session.run(IMAGE)
    stub.stop()
    assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert "UNAVAILABLE" in session.degraded
    stub.start()
    # The channel tries to connect again at times of its own; until then the box computes.
    deadline = time.monotonic() + 60
    while session.backend != "kserve":
        assert time.monotonic() < deadline, session.degraded
        time.sleep(0.05)
        hand.at += 300.0  # no rest is longer
        session.begin_study(lambda: math.inf)
        assert np.array_equal(session.run(IMAGE)["scores"], truth)
    assert session.degraded == ""


@pytest.mark.req("R-KSERVE-02")
def test_each_study_says_for_itself_who_computed_it(session, stub):
    session.begin_study(lambda: 60.0)
    session.run(IMAGE)
    served = session.digest
    stub.faults += [abort(grpc.StatusCode.INTERNAL)]
    session.run(IMAGE)
    # A part of this study was computed here.
    assert session.backend == "kserve+onnxruntime"
    assert session.digest != served
    session.begin_study(lambda: 60.0)
    session.run(IMAGE)
    assert (session.backend, session.digest) == ("kserve", served)


@pytest.mark.req("R-KSERVE-03")
def test_a_server_that_is_not_there_yet_does_not_keep_a_package_from_opening(package, truth, free_port):
    server = KServeServer(address=f"127.0.0.1:{free_port()}")
    with open_kserve(package, 0, server) as session:
        session.warmup()
        assert session.backend == "kserve+onnxruntime"
        assert "UNAVAILABLE" in session.degraded
        assert np.array_equal(session.run(IMAGE)["scores"], truth)


def test_a_package_of_two_stages_has_two_models_there_and_opens_whole_or_not_at_all(package, stub, monkeypatch):
    from engines.backends import kserve

    asked, closed = [], []
    two = dataclasses.replace(
        package, manifest=package.manifest.model_copy(update={"stages": package.manifest.stages * 2})
    )

    def close(session):
        closed.append(session)

    monkeypatch.setattr(kserve.KServeSession, "close", close)
    real = kserve.open_kserve

    def opens(given, index, server, *, threads):
        asked.append(kserve.model_name(given, index))
        if len(asked) == 4:
            raise SessionError("no more")
        return real(given, index, server, threads=threads)

    monkeypatch.setattr(kserve, "open_kserve", opens)
    assert len(kserve.open_all(two, KServeServer(address=stub.address))) == 2
    assert (asked, closed) == (["toy-bright-blob", "toy-bright-blob-1"], [])
    with pytest.raises(SessionError, match="no more"):
        kserve.open_all(two, KServeServer(address=stub.address))
    assert len(closed) == 1


def test_a_private_key_is_in_no_message():
    assert "SECRET" not in repr(KServeServer(address="127.0.0.1:1", key="SECRET"))


def test_opened_by_package_the_server_is_asked_by_the_packages_name(package, stub, truth):
    with open_kserve(package, 0, KServeServer(address=stub.address)) as session:
        session.warmup()
        assert np.array_equal(session.run(IMAGE)["scores"], truth)
        assert (session.backend, session.degraded) == ("kserve", "")
    assert ask_server(KServeServer(address=stub.address), 30.0) == "stub 1"


@pytest.mark.req("R-KSERVE-03")
def test_a_proxy_of_the_environment_is_not_asked(package, stub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    assert ask_server(KServeServer(address=stub.address), 30.0) == "stub 1"


def test_named_sizes_of_outputs_are_those_of_the_inputs():
    response = MESSAGES.ModelInferResponse()
    response.outputs.add(name="mask", datatype="UINT8", shape=[3, 2])
    response.raw_output_contents.append(bytes(6))
    specs = [TensorSpec("mask", "uint8", ("n", None))]
    assert read_outputs(specs, response, {"n": 3})["mask"].shape == (3, 2)
    with pytest.raises(SessionError, match=r"shape \(3, 2\)"):
        read_outputs(specs, response, {"n": 4})


def test_a_type_that_cannot_travel_raw_is_refused_when_the_session_is_opened():
    with pytest.raises(SessionError, match="is str"):
        RemoteModel(KServeServer(address="127.0.0.1:1"), "x", "", [TensorSpec("words", "str", (1,))], [])


@pytest.mark.req("R-KSERVE-04")
def test_without_grpcio_the_error_names_the_extra(tmp_path):
    (tmp_path / "grpc.py").write_text("raise ModuleNotFoundError('none', name='grpc')\n", "utf-8")
    code = (
        "from engines.backends.kserve import KServeServer, ask_server\n"
        "from engines.errors import SessionError\n"
        "try:\n    ask_server(KServeServer(address='127.0.0.1:1'))\n"
        "except SessionError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "grpc is not installed" in done.stdout
    assert "pip install 'scanside[kserve]'" in done.stdout


# -- TLS ---------------------------------------------------------------------------------------------------------------


def certificate(name, issuer=None, *, address=None):
    """(certificate PEM, key PEM, (certificate, key)): signed by ``issuer``, or by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if address:
        names = [x509.IPAddress(ipaddress.ip_address(address))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode(), (signed, key)


@pytest.fixture(scope="module")
def pki():
    ca, _, issuer = certificate("CA")
    return {
        "ca": ca,
        "server": certificate("server", issuer, address="127.0.0.1")[:2],
        "box": certificate("box", issuer)[:2],
        "foreign": certificate("foreign")[:2],
    }


@pytest.fixture
def tls_stub(package, pki):
    cert, key = pki["server"]
    credentials = grpc.ssl_server_credentials([(key.encode(), cert.encode())], pki["ca"].encode(), True)
    server = Stub(package.read_onnx(), package.name, credentials=credentials)
    yield server
    server.stop()


@pytest.mark.req("R-KSERVE-05")
def test_tls_with_certificates_of_both_sides(package, tls_stub, pki, truth):
    cert, key = pki["box"]
    server = KServeServer(address=tls_stub.address, ca=pki["ca"], certificate=cert, key=key)
    with open_kserve(package, 0, server) as session:
        assert np.array_equal(session.run(IMAGE)["scores"], truth)
        assert session.degraded == ""


@pytest.mark.req("R-KSERVE-05")
@pytest.mark.parametrize("case", ["plain", "no certificate", "foreign certificate", "foreign server", "other name"])
def test_no_tensor_reaches_a_server_that_does_not_prove_itself_or_refuses_us(package, tls_stub, pki, case):
    box, foreign = pki["box"], pki["foreign"]
    given = {
        "plain": {},
        "no certificate": {"ca": pki["ca"]},
        "foreign certificate": {"ca": pki["ca"], "certificate": foreign[0], "key": foreign[1]},
        "foreign server": {"ca": foreign[0], "certificate": box[0], "key": box[1]},
        "other name": {"ca": pki["ca"], "certificate": box[0], "key": box[1], "server_name": "elsewhere.test"},
    }[case]
    with open_kserve(package, 0, KServeServer(address=tls_stub.address, **given)) as session:
        session.run(IMAGE)
        assert session.backend == "kserve+onnxruntime"
    assert tls_stub.calls == []


def test_the_digest_tells_graphs_and_servers_apart(session):
    session.run(IMAGE)
    facts = {"onnx": session._sha256, "backend": "kserve", "server": "stub 1"}
    assert session.digest == hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
