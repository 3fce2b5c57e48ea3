"""The fleet server's file: the shipped one holds, and what is wrong is told with its line."""

from __future__ import annotations

import re

import pytest
import yaml

from appliance.errors import ConfigError
from appliance.fleet.server.config import (
    BrokerConfig,
    ConsoleConfig,
    EnrolConfig,
    HttpsConfig,
    KeepConfig,
    ModelsConfig,
    ServerConfig,
    StepCaConfig,
    load_server_config,
)

pytestmark = pytest.mark.req("R-FLEET-28")


@pytest.fixture
def shipped(repo):
    return repo / "config" / "fleet-server.yaml"


def load(tmp_path, text):
    path = tmp_path / "fleet.yaml"
    path.write_text(text, "utf-8")
    return load_server_config(path)


def test_the_shipped_file_says_what_holds_where_nothing_is_said(shipped, tmp_path):
    assert load_server_config(shipped) == ServerConfig() == load(tmp_path, "")


def test_everything_that_can_be_set_stands_in_the_shipped_file(shipped):
    text = shipped.read_text("utf-8")
    for section in (
        ServerConfig,
        BrokerConfig,
        HttpsConfig,
        ConsoleConfig,
        EnrolConfig,
        KeepConfig,
        ModelsConfig,
        StepCaConfig,
    ):
        for name in section.model_fields:
            assert re.search(rf"^[# ]*{name}:", text, re.MULTILINE), name


def test_the_parts_of_the_shipped_file_that_are_comments_hold_too(shipped, tmp_path):
    text = shipped.read_text("utf-8")
    for begin, until in (("# ca:\n", "\n\n"), ("# brokers:\n", "\n\n"), ("# metrics_port", "\n")):
        part = text[text.index(begin) :].partition(until)[0]
        loaded = load(tmp_path, re.sub(r"^# ?", "", part, flags=re.MULTILINE))
        assert loaded != ServerConfig()
    assert yaml.safe_load(text)["folder"] == str(ServerConfig().folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("broker:\n  port: 99999\n", r"line 2: broker\.port"),
        ("broker:\n  prot: 1\n", r"line 2: broker\.prot: .*see config/fleet-server\.yaml"),
        ("broker:\n  host: 0.0.0.0\n", r"names: boxes elsewhere cannot reach"),
        ("ca:\n  kind: step\n  url: http://ca\n", r"line 3: ca\.url: give an https address"),
        ("ca:\n  kind: own\n", r"line 1: ca"),
        ("names: []\n", r"line 1: names"),
        ("names: ['a b']\n", r"line 1: names\.0"),
        ("release_threshold: 0\n", "line 1: release_threshold"),
        ("folder: a\nfolder: b\n", "stands twice"),
    ],
)
def test_a_fault_is_told_with_file_line_and_key(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told) as fault:
        load(tmp_path, text)
    assert "fleet.yaml" in str(fault.value)


def test_boxes_elsewhere_need_a_name_of_the_machine(tmp_path):
    loaded = load(tmp_path, "broker: {host: 0.0.0.0}\nnames: [fleet.example.org, localhost]\n")
    assert loaded.names[0] == "fleet.example.org"


def test_rows_lie_in_the_folder_unless_told_otherwise(tmp_path):
    assert load(tmp_path, "folder: /srv/fleet\n").database_url == "sqlite:////srv/fleet/fleet.db"
    elsewhere = load(tmp_path, "database: postgresql+psycopg://scanside@db/fleet\n")
    assert (elsewhere.database_url, elsewhere.database_path) == ("postgresql+psycopg://scanside@db/fleet", None)
