"""The line of ``scanside doctor`` about screens that watch a source which is not configured."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.records import SYSTEM


@pytest.mark.req("R-ACCESS-04")
def test_a_screen_whose_source_is_gone_fails_with_7_and_is_named(store, tmp_path):
    state = store.spool.root.parent
    store.screens.offer("ct-room", ("CT-1",), "123456", SYSTEM)
    path = tmp_path / "appliance.yaml"

    def line(name):
        sources = f"sources: [{{name: {name}, ae_title: CT1}}]"
        path.write_text(f"state_path: {state}\ndicom: {{port: 0}}\nscreen: {{port: 0}}\n{sources}\n", "utf-8")
        done = CliRunner().invoke(main, ["doctor", "--json", "--config", str(path)])
        lines = {line["what"]: line for line in json.loads(done.output)["checks"]}
        return done.exit_code, lines["screens"]

    code, found = line("CT-A")
    assert (code, found["state"]) == (7, "fail")
    assert "ct-room watches CT-1" in found["found"]
    assert line("CT-1")[1]["state"] == "ok"
