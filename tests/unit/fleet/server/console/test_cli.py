"""``scanside-fleet user``: the first operator is made at the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from console_kit import Visitor
from fleet_kit import HOSPITAL, PLATFORM

from appliance.fleet.server.cli import main

pytestmark = pytest.mark.req("R-FLEET-51")


def test_the_password_that_is_printed_once_opens_the_console(fleet, app, tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(f"folder: {tmp_path}\n")

    def call(*words):
        return CliRunner().invoke(main, ["user", *words, "--config", str(file)])

    done = call("add", "ada", "--tenant", PLATFORM, "--role", "operator")
    password = done.stdout.strip()
    answer = Visitor(app).form("/sign-in", name="ada", password=password)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert call("add", "bo", "--tenant", HOSPITAL, "--role", "operator").exit_code == 6
    assert call("add", "bo", "--tenant", "nowhere-01", "--role", "viewer").exit_code == 4
    listed = json.loads(call("list", "--json").stdout)["users"]
    assert listed[0]["roles"] == [{"tenant": PLATFORM, "role": "operator"}]
    again = call("password", "ada").stdout.strip()
    assert Visitor(app).form("/sign-in", name="ada", password=password).status_code == 401
    assert Visitor(app).form("/sign-in", name="ada", password=again).status_code == 303
