"""Logs for the service team: what our code says, never what it was said with; brought up once, signed."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import ssl
import zipfile
from pathlib import Path

import pytest
from fleet_jobs_kit import JobBox
from fleet_kit import FleetCa
from http_kit import http_stub

from appliance.fleet import keys
from appliance.fleet.device.logs import LogTail
from appliance.fleet.wire import Op

ROOT = Path(__file__).resolve().parents[4]
MARKER = "Mustermann"
TOKEN = "t0ken_for-one-upload"  # noqa: S105 - of a stub
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


@pytest.fixture
def tail():
    made = LogTail(lines=3)
    log = logging.getLogger("appliance.marker")
    log.addHandler(made)
    yield made
    log.removeHandler(made)


def lines(tail):
    return [json.loads(line) for line in tail.lines().splitlines()]


@pytest.mark.req("R-FLEET-49")
def test_line_holds_level_place_and_text_of_our_code_and_no_value(tail):
    log = logging.getLogger("appliance.marker")
    log.warning("study %s of %s was refused", "1.2.3.4", MARKER)
    (line,) = lines(tail)
    assert (line["level"], line["module"]) == ("WARNING", "appliance.marker")
    assert line["event"] == "study %s of %s was refused"
    assert MARKER not in tail.lines().decode()


@pytest.mark.req("R-FLEET-49")
def test_exception_is_told_by_its_kind_and_place_alone(tail):
    log = logging.getLogger("appliance.marker")
    try:
        JobBox(None)
    except TypeError:
        log.exception("a bug")
    try:
        int(MARKER)
    except ValueError:
        log.exception("a bug")
    assert [line["error"] for line in lines(tail)] == ["TypeError", "ValueError"]
    assert MARKER not in tail.lines().decode()


@pytest.mark.req("R-FLEET-49")
def test_lines_of_other_software_stay_here(tail):
    other = logging.getLogger("pynetdicom.marker")
    other.addHandler(tail)
    other.warning("Patient %s", MARKER)
    other.warning(f"Patient {MARKER}")
    other.removeHandler(tail)
    assert lines(tail) == []


@pytest.mark.req("R-FLEET-49")
def test_only_the_newest_lines_are_kept(tail):
    for n in range(5):
        logging.getLogger("appliance.marker").warning("line %d", n)
    assert len(lines(tail)) == 3


@pytest.mark.req("R-FLEET-49")
def test_every_text_that_our_code_logs_is_written_out():
    """Else a value could stand in the text itself."""
    wrong = []
    for path in [*(ROOT / "appliance").rglob("*.py"), *(ROOT / "engines").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in LEVELS and ast.unparse(node.func.value) in {"log", "logger", "logging"}:
                text = node.args[1 if node.func.attr == "log" else 0]
                if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


# Up ------------------------------------------------------------------------------------------------------------------


def support_bundle():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("status.json", "{}")
    return out.getvalue()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return FleetCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(authority):
    """A server of files; ``answer(got)`` may be replaced."""
    issued = authority.issue("localhost", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)

    def keep(got):
        return 200, {}, json.dumps({"sha256": hashlib.sha256(got.body).hexdigest()}).encode()

    with http_stub(keep, tls=context) as stub:
        yield stub


@pytest.fixture
def box(tmp_path, clock, server, authority):
    made = JobBox(tmp_path, clock=clock, url=f"https://localhost:{server.port}", ca=authority.path.read_bytes())
    made.acts.archive = support_bundle()
    yield made
    made.close()


@pytest.mark.req("R-FLEET-43", "R-FLEET-49")
def test_logs_go_up_once_under_the_token_signed_by_the_device(box, server):
    box.tail.handle(logging.makeLogRecord({"name": "appliance.x", "msg": "said", "levelno": 20, "levelname": "INFO"}))
    job = box.give(Op.COLLECT_LOGS, upload=TOKEN)
    box.run()
    (got,) = server.got
    assert (got.method, got.path) == ("PUT", f"/v1/upload/{TOKEN}")
    assert got.headers["x-scanside-device"] == box.inbox.identity.enrolment.device
    public = keys.public_of(box.inbox.identity.certificate_path.read_bytes())
    signature = got.headers["x-scanside-signature"]
    assert keys.holds(public, f"scanside/upload/v1/{TOKEN}", got.body, signature)
    assert not keys.holds(public, "scanside/upload/v1/another-token-0000", got.body, signature)
    with zipfile.ZipFile(io.BytesIO(got.body)) as packed:
        assert sorted(packed.namelist()) == ["log.jsonl", "status.json"]
        assert json.loads(packed.read("log.jsonl"))["event"] == "said"
    assert (box.state(job), box.row(job).figures) == ("SUCCEEDED", {"bytes": float(len(got.body))})


@pytest.mark.req("R-FLEET-43")
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((403, {}, b'{"error": "no such token"}'), ("FAILED", "UPLOAD_REFUSED")),
        ((200, {}, b'{"sha256": "00"}'), ("FAILED", "UPLOAD_DAMAGED")),
        ((503, {}, b'{"error": "full"}'), "ACCEPTED"),
        (None, "ACCEPTED"),
    ],
)
def test_server_that_does_not_keep_them_is_told_from_one_that_cannot_now(box, server, answer, state):
    keep = server.answer
    server.answer = lambda _: answer
    job = box.give(Op.COLLECT_LOGS, upload=TOKEN)
    box.run()
    assert box.state(job) == state
    if state == "ACCEPTED":
        server.answer = keep
        box.run()
        assert len(server.got) == 1, "not at once"
        box.clock.advance(31)
        box.run()
        assert box.state(job) == "SUCCEEDED"


@pytest.mark.req("R-FLEET-43")
def test_bundle_that_is_too_large_for_anybody_is_told(box):
    out = io.BytesIO(support_bundle())
    with zipfile.ZipFile(out, "a") as packed:
        packed.writestr("large", bytes(17 * 1024 * 1024))
    box.acts.archive = out.getvalue()
    job = box.give(Op.COLLECT_LOGS, upload=TOKEN)
    box.run()
    assert box.state(job) == ("FAILED", "TOO_LARGE")
