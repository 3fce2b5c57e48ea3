"""The line of ``scanside doctor`` about a screen on this machine that has nothing to draw Chinese with."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main


@pytest.mark.req("R-CLI-04")
@pytest.mark.parametrize(
    ("programs", "state"),
    [
        ({}, None),
        ({"chromium": ":", "fc-list": "echo /fonts/a.ttc: A"}, "ok"),
        ({"chromium": ":", "fc-list": ":"}, "warn"),
        ({"chromium": ":"}, "warn"),
    ],
)
def test_chromium_without_a_font_for_chinese_is_said_with_the_line_that_mends_it(
    tmp_path, monkeypatch, programs, state
):
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    path = tmp_path / "appliance.yaml"
    path.write_text(f"state_path: {tmp_path}\ndicom: {{port: 0}}\nscreen: {{port: 0}}\n", "utf-8")
    done = CliRunner().invoke(main, ["doctor", "--json", "--config", str(path)])
    line = {line["what"]: line for line in json.loads(done.output)["checks"]}.get("fonts", {})
    assert line.get("state") == state
    assert ("fonts-wqy-microhei" in line.get("mend", "")) is (state == "warn")
    assert done.exit_code == 0
