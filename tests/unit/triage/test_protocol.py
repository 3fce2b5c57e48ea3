"""What crosses the worker's socket, and what ends it."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import Detail, Measurement, Reason, Region
from appliance.triage.frames import MAX_MESSAGE_BYTES, Frames, ProtocolError, socket_address
from appliance.triage.protocol import (
    Add,
    Failed,
    Finish,
    Hello,
    InstanceRef,
    Result,
    Scored,
    SeriesInput,
    encode,
    from_worker,
    to_worker,
)

RESULT = Result(
    analysis_id=7,
    findings=(
        Scored(
            id="bleed",
            score=12.5,
            measurements=(Measurement(name="volume", value=12.5, unit="ml"),),
            key_instances=("1.2.3",),
            regions=(Region(sop_instance_uid="1.2.3", kind="box", points=((1.0, 2.0), (3.0, 4.5)), finding="bleed"),),
        ),
    ),
    numbers={"slices": 32.0},
    package_digest="p",
    engine_digest="e",
    backend="onnxruntime",
    precision="fp32",
    pictures=("pictures/ab/" + "ab" * 16 + ".png",),
    hops_ms={"inference": 3.25},
)


def body(message):
    return encode(message)[4:]


def test_a_result_arrives_as_it_was_sent():
    assert from_worker(body(RESULT)) == RESULT


def test_a_finish_of_two_thousand_slices_fits_into_one_message():
    refs = tuple(InstanceRef(key=str(n), path="/var/lib/scanside/spool/store/ab/" + "0" * 36) for n in range(2000))
    asked = Finish(
        analysis_id=1,
        package="p",
        inputs={"head": SeriesInput(series_key="1", kind="ct", instances=refs)},
        limit_s=60,
    )
    assert to_worker(body(asked)) == asked


def test_a_message_above_one_mebibyte_is_not_sent():
    with pytest.raises(ProtocolError, match="at most 1048576"):
        encode(Failed.model_construct(analysis_id=1, reason=Reason.FAILED, details=(Detail("x" * MAX_MESSAGE_BYTES),)))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_messages_survive_whatever_way_the_stream_is_cut(bodies, data):
    stream = b"".join(struct.pack(">I", len(b)) + b for b in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    frames, got = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += frames.feed(stream[start:end])
    assert got == bodies
    assert not frames.is_partial


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_anything_is_kept(length):
    with pytest.raises(ProtocolError, match="announced"):
        Frames().feed(struct.pack(">I", length))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"type":"hello"}',
        b'{"type":"format_disk"}',
        b'{"type":"hello","protocol":1,"pid":1,"surprise":1}',
        b'{"type":"hello","protocol":NaN,"pid":1}',
        b'{"type":"add","series_key":"1","version_key":"1","path":"/x"}',
        b'{"type":"failed","analysis_id":1,"reason":"normal","details":[]}',
        b'{"type":"compared","request_id":1,"same":true,"detail":"' + b"x" * 5000 + b'"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_from_a_worker_is_refused_and_not_repeated(text):
    with pytest.raises(ProtocolError) as caught:
        from_worker(text)
    assert len(str(caught.value)) < 600
    assert 'surprise":1' not in str(caught.value)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(data):
    for read in (from_worker, to_worker):
        with pytest.raises(ProtocolError):
            read(data)


@pytest.mark.parametrize("path", ["/etc/passwd", "pictures/../x.png", "store/ab/" + "0" * 32 + ".dcm"])
def test_a_worker_can_name_nothing_but_pictures_as_pictures(path):
    text = body(RESULT).replace(RESULT.pictures[0].encode(), path.encode())
    with pytest.raises(ProtocolError):
        from_worker(text)


@pytest.mark.fault("T31")
def test_a_score_that_is_no_number_cannot_be_said():
    with pytest.raises(ValueError, match="finite"):
        Scored(id="x", score=float("nan"))
    with pytest.raises(ProtocolError):
        from_worker(body(RESULT).replace(b'"score":12.5', b'"score":NaN'))


def test_a_worker_cannot_ask_and_a_daemon_cannot_answer():
    with pytest.raises(ProtocolError):
        from_worker(body(Add(series_key="1", version_key="2", path="/a")))
    with pytest.raises(ProtocolError):
        to_worker(body(Hello(protocol=1, pid=1)))


def test_a_socket_whose_path_is_too_long_for_the_kernel_still_works(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 150:
        folder /= "long-folder-name"
    folder.mkdir(parents=True)
    path = folder / "worker.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with socket_address(path) as address:
            server.bind(address)
        server.listen()
        with socket_address(path) as address:
            client.connect(address)
    assert path.is_socket()
