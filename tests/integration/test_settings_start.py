"""A box whose changed settings do not fit starts with older ones, says so, and forgets it when they are mended."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from appliance.simulate.scanner import Scanner

pytestmark = pytest.mark.req("R-ADMIN-05")


class Run:
    """``scanside run``, its log, and a command beside it."""

    def __init__(self, folder):
        self._folder = folder
        self._process = subprocess.Popen(
            self._command("run"), stderr=subprocess.PIPE, text=True, env={**os.environ, "INVOCATION_ID": "x"}
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self._process.stderr), daemon=True)
        self._reader.start()

    def _command(self, *words):
        return [sys.executable, "-m", "appliance.cli", *words, "--config", str(self._folder / "appliance.yaml")]

    def wait_for(self, pattern):
        deadline = time.monotonic() + 60
        pause = threading.Event()
        while time.monotonic() < deadline:
            if any(re.search(pattern, line) for line in list(self.lines)):
                return
            pause.wait(0.05)
        raise AssertionError(self.lines[-20:])

    def json(self, *words):
        done = subprocess.run(self._command(*words, "--json"), capture_output=True, text=True, check=False)
        return json.loads(done.stdout), done.stderr

    def end(self):
        self._process.send_signal(signal.SIGTERM)
        self._reader.join(60)
        self._process.stderr.close()
        assert self._process.wait(60) == 0


def test_settings_that_name_a_taken_port_do_not_keep_the_box_down(tmp_path, free_port):
    port, state = free_port(), tmp_path / "state"
    (tmp_path / "appliance.yaml").write_text(
        f"state_path: {state}\ndicom: {{port: {port}}}\nscreen: {{port: 0}}\n"
        "sources: [{name: CT-1, ae_title: CT1}]\ndisk: {reserve_bytes: 0, reserve_fraction: 0}\n",
        encoding="utf-8",
    )
    state.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (state / "site.yaml").write_text(f"dicom: {{port: {taken.getsockname()[1]}}}\n", encoding="utf-8")
        box = Run(tmp_path)
        try:
            box.wait_for(rf"receiving on port {port},")
            box.wait_for("do not fit and are left out")
            box.wait_for("the code is")  # the last of its start: the issue stands by then
            assert Scanner("CT1", "SCANSIDE", "127.0.0.1", port).echo() == 0
            status, _ = box.json("status")
            (issue,) = [one for one in status["box"]["issues"] if one["code"] == "SETTINGS_BROKEN"]
            assert str(taken.getsockname()[1]) in issue["detail"]["why"]
            shown, _ = box.json("config", "show")
            assert [name.rpartition("/")[2] for name in shown["files"]] == ["appliance.yaml", "site.yaml"]
        finally:
            box.end()
    (state / "site.yaml").write_text("site: {name: Mended}\n", encoding="utf-8")
    box = Run(tmp_path)
    try:
        box.wait_for(rf"receiving on port {port},")
        box.wait_for("the code is")
        status, _ = box.json("status")
        assert [one for one in status["box"]["issues"] if one["code"] == "SETTINGS_BROKEN"] == []
        code, _ = box.json("setup-code")
        assert re.fullmatch(r"[A-Z2-9]{5}-[A-Z2-9]{5}", code["code"])
        assert (state / "site.good.yaml").read_text(encoding="utf-8") == "site: {name: Mended}\n"
    finally:
        box.end()
