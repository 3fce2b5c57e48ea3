"""Packages that are loaded and unloaded while a worker runs, against a peer that is a real process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from worker_kit import series, wait_event, wait_ready

from appliance.clock import SystemClock
from appliance.records import Reason, Role
from appliance.triage.protocol import PROTOCOL, InstanceRef, Load
from appliance.triage.worker_client import WorkerLink
from appliance.triage.worker_events import PackagesChanged, WorkerEnded, WorkerReady

#: Loads what it is told to, refuses what is called "bad", and answers an analysis with the packages that it has.
PEER = """
import json, socket, struct, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
def say(**fields):
    body = json.dumps(fields).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)
say(type="hello", protocol=int(sys.argv[2]), pid=1)
have, held = {}, []
while True:
    head = sock.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        break
    got = json.loads(sock.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL))
    kind, package = got["type"], got.get("package")
    if kind == "load" and package.startswith("slow"):
        held.append(got)
    elif kind == "load" and package == "bad":
        say(type="refused", package=package, message="not signed")
    elif kind == "load":
        have[package] = got["digest"]
        loaded = {"engine_digest": "e", "backend": "b", "precision": "fp32", "ms": 1.0}
        say(type="loaded", package=package, digest=got["digest"], **loaded)
        for late in held:
            say(type="loaded", package=late["package"], digest=late["digest"], **loaded)
        held = []
    elif kind == "unload":
        have.pop(package, None)
    elif kind == "finish":
        told = [{"text": ",".join(f"{k}={v}" for k, v in sorted(have.items()))}]
        say(type="failed", analysis_id=got["analysis_id"], reason="quality", details=told)
"""
ONE = {"image": series([InstanceRef(key="1", path="/x")], "xray")}


def load(package, digest="1", role=Role.LIVE):
    return Load(package=package, folder="/nowhere", digest=digest, role=role)


@pytest.fixture
def link(tmp_path):
    link = WorkerLink(
        tmp_path / "worker.sock", tmp_path, clock=SystemClock(), packages=[load("a"), load("b")], spawn=False
    )
    link.start()
    link.want(wanted=True)
    with subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path / "worker.sock"), str(PROTOCOL)]) as peer:
        wait_ready(link)
        yield link
        link.stop()
        peer.kill()


def had(link):
    """What the worker has loaded, by its own word."""
    return link.finish(1, next(iter(link.loaded)), ONE, limit_s=60).detail


@pytest.mark.req("R-OPERATE-10")
def test_worker_that_runs_loads_and_unloads_the_difference_only(link):
    link.serve([load("b"), load("c")])
    changed = wait_event(link, PackagesChanged)
    assert dict(changed.packages) == {"b": "1", "c": "1"}
    assert had(link) == "b=1,c=1"
    assert link.ready_since_mono is not None


def test_other_role_is_no_reason_to_load_again(link):
    link.serve([load("a", role=Role.SILENT), load("b", digest="2")])
    wait_event(link, PackagesChanged)
    assert had(link) == "a=1,b=2"


def test_refusal_while_it_runs_is_told_and_the_others_serve_on(link):
    link.serve([load("a"), load("b"), load("bad")])
    assert dict(wait_event(link, PackagesChanged).refused) == {"bad": "not signed"}
    assert link.is_ready
    assert link.finish(1, "bad", ONE, limit_s=5).reason is Reason.AI_UNAVAILABLE
    assert had(link) == "a=1,b=1"


def test_answer_for_a_package_that_was_taken_back_meanwhile_ends_nobody(link, wait_until):
    link.serve([load("a"), load("b"), load("slow")])
    assert link.is_loading
    link.serve([load("a"), load("b")])
    assert not link.is_loading
    link.serve([load("a"), load("b"), load("c")])
    wait_until(lambda: "c" in link.loaded)
    assert had(link) == "a=1,b=1,c=1"
    assert not [event for event in link.events() if isinstance(event, WorkerEnded)]


def test_next_worker_loads_what_is_wanted_by_then(link, tmp_path):
    link.serve([load("c")])
    wait_event(link, PackagesChanged)
    link.kill("a test")
    with subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path / "worker.sock"), str(PROTOCOL)]) as peer:
        assert dict(wait_event(link, WorkerReady).packages) == {"c": "1"}
        peer.kill()
