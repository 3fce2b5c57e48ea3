"""An engine that breaks its device ends the worker, never the study that it worked on."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import pytest

from appliance.clock import SystemClock
from appliance.records import Role
from appliance.triage import desk as desk_module
from appliance.triage import engine_desk
from appliance.triage.engine_messages import EngineLost, SpotCheck
from appliance.triage.protocol import (
    PROTOCOL,
    Finish,
    Hello,
    InstanceRef,
    Load,
    Loaded,
    Progress,
    SeriesInput,
)
from appliance.triage.worker_client import WorkerLink
from appliance.triage.worker_events import WorkerLost
from engines.errors import SessionError

INPUTS = {"image": SeriesInput(series_key="1", kind="xray", instances=(InstanceRef(key="1", path="/x"),))}
LOAD = Load(package="toy", folder="/p", digest="d", role=Role.LIVE)


class Ended(BaseException):
    """The process would have ended."""


def sticky(*_, **__):
    error = SessionError("CUDA error 700: an illegal memory access was encountered")
    error.sticky = True
    raise error


@pytest.fixture
def worker(monkeypatch):
    """A desk whose engine has lost its device, and what it said."""

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(engine_desk.os, "_exit", end)
    monkeypatch.setattr(desk_module, "Analysis", lambda *_: SimpleNamespace(run=sticky))
    said = []
    opened = SimpleNamespace(
        package=SimpleNamespace(digest="d"),
        pipeline=SimpleNamespace(digest="e"),
        fallback="",
        can_fall_back=True,
        check=sticky,
    )
    shelf = SimpleNamespace(load=sticky, package=lambda _: opened)
    tools = SimpleNamespace(shelf=shelf, say=said.append, limited=lambda _: contextlib.nullcontext())
    engines = engine_desk.EngineDesk(tools, soon=lambda _: None, cancelled=threading.Event())
    return desk_module.Desk(tools, engines), said


@pytest.mark.req("R-SERVE-05")
@pytest.mark.parametrize(
    "message",
    [
        LOAD,
        SpotCheck(package="toy"),
        Finish(analysis_id=1, package="toy", inputs=INPUTS, limit_s=5),
    ],
    ids=["load", "spot check", "analysis"],
)
def test_a_lost_device_ends_the_worker_with_its_last_words(worker, message):
    desk, said = worker
    with pytest.raises(Ended, match=str(engine_desk.LOST)):
        desk.handle(message)
    assert isinstance(said[-1], EngineLost)
    assert "illegal memory access" in said[-1].message


@pytest.fixture
def link(tmp_path):
    """The daemon's end, its worker played by the test."""
    made = WorkerLink(tmp_path / "w.sock", tmp_path, clock=SystemClock(), packages=[LOAD], spawn=False)
    made.want(wanted=True)

    def say(message):
        made.on_frame(message.model_dump_json().encode())

    def start():
        made.on_started(1)
        say(Hello(protocol=PROTOCOL, pid=1))
        say(Loaded(package="toy", digest="d", engine_digest="e", backend="tensorrt", precision="fp16", ms=1.0))

    start()
    yield made, say, start
    made.stop()


@pytest.mark.req("R-SERVE-05")
def test_an_engines_end_is_not_counted_against_the_study_and_the_second_one_brings_the_reference(link, wait_until):
    made, say, start = link
    for number in (1, 2):
        lost = []

        def finish(number=number, lost=lost):
            try:
                made.finish(number, "toy", INPUTS, limit_s=30)
            except WorkerLost as error:
                lost.append(error)

        asking = threading.Thread(target=finish)
        asking.start()
        wait_until(lambda number=number: number in made._answers)
        say(Progress(step="infer", analysis_id=number))
        say(EngineLost(package="toy", message="CUDA error 700"))
        made.on_ended(1, "exited with status 70", by_alarm=False)
        asking.join(30)
        assert lost[0].analysis_id is None
        start()
    assert "ended the worker 2 times" in made._engines.load(LOAD).no_engine
