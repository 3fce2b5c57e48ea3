"""The demo's fleet, where it cannot be had: one line says what is missing and how to get it."""

from __future__ import annotations

import json
import sys

import pytest

import appliance.fleet.server.broker as of_broker
from appliance.cli.demo_fleet import DemoFleet
from appliance.cli.demo_fleet_server import main
from appliance.errors import ConfigError


def missing():
    raise ConfigError("mosquitto is not installed, and boxes talk through it; call: apt-get install mosquitto")


@pytest.mark.req("R-FLEET-60")
def test_without_the_libraries_of_a_server_it_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "appliance.fleet.server.up", None)
    main(tmp_path, "DEMO-1")
    assert "call: pip install 'scanside[server]'" in json.loads(capsys.readouterr().out)["why"]


@pytest.mark.req("R-FLEET-60")
def test_without_mosquitto_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(of_broker, "find_mosquitto", missing)
    main(tmp_path, "DEMO-1")
    assert "apt-get install mosquitto" in json.loads(capsys.readouterr().out)["why"]


@pytest.mark.req("R-FLEET-60")
def test_a_server_that_dies_later_is_told_and_the_demo_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.cli.demo_fleet.SERVER", "this")  # python -m this: says a poem, no JSON
    fleet = DemoFleet(tmp_path / "log")
    fleet.start()
    try:
        assert not fleet.join(tmp_path / "fleet")
        assert fleet.why == "its server did not start; see the log"
        assert fleet.state() == {}
        assert fleet.settle(lambda: False, 60) == {}, "it does not wait for what cannot come"
    finally:
        fleet.close()
    assert not (tmp_path / "fleet").exists()
