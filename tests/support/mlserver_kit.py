"""A real KServe v2 server (mlserver) in an environment of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from kserve_stub import metadata

from engines.backends.kserve import KServeServer, ask_server, model_name
from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import SessionError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".venv-mlserver" / "bin" / "mlserver"
_START_S = 90.0


@dataclass(frozen=True)
class MlServer:
    """A running server."""

    address: str
    pid: int


def require_mlserver():
    """Skip where `make test` could not bring mlserver in."""
    if not PROGRAM.exists():
        pytest.skip("mlserver is not installed (tools/venv .venv-mlserver mlserver python3)")


@contextlib.contextmanager
def mlserver(folder, packages, free_port):
    """Serve the graphs of packages, each stage under the name that our client asks for."""
    require_mlserver()
    grpc_port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "grpc_max_message_length": 1 << 28,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    for package in packages:
        for index, stage in enumerate(package.manifest.stages):
            name = model_name(package, index)
            path = package.path / stage.onnx
            with OnnxRuntimeSession(path.read_bytes(), name=name) as session:
                told = metadata(session)
            model = {
                "name": name,
                "implementation": "mlserver_runtime.OnnxModel",
                "parameters": {"uri": str(path)},
                **told,
            }
            (folder / name).mkdir()
            (folder / name / "model-settings.json").write_text(json.dumps(model), "utf-8")
    log = folder / "mlserver.log"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support"), "PYTHONDONTWRITEBYTECODE": ""}
    with (
        log.open("wb") as said,
        subprocess.Popen([PROGRAM, "start", folder], stdout=said, stderr=subprocess.STDOUT, env=env) as process,
    ):
        try:
            address = f"127.0.0.1:{grpc_port}"
            _wait(process, KServeServer(address=address), log)
            yield MlServer(address, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process, server, log):
    deadline = time.monotonic() + _START_S
    while True:
        try:
            return ask_server(server, 1.0)
        except SessionError:
            if process.poll() is not None or time.monotonic() > deadline:
                return pytest.fail(f"mlserver did not start: {log.read_text('utf-8')[-2000:]}")
            time.sleep(0.1)
