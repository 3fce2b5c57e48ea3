"""``scanside alert told`` and ``scanside alert test``: the same acts as the page's."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.commands import Exit
from appliance.store import Store

CONFIG = """
state_path: {0}
sources: [{{name: CT-1, ae_title: CT1}}]
alert_sinks: [{{kind: light, name: lamp, device_path: /dev/null}}]
"""
TOLD = ("--to", "Dr Chen", "--by", "phone", "--read-back", "--name", "Li Wei")


@pytest.fixture
def scanside(tmp_path, scenes):
    """``scanside("alert", ...)`` on a box with one urgent alert."""
    store = Store.open(tmp_path, SystemClock(), reserve_bytes=0)
    with store.db.write() as tx:
        scenes.urgent(tx)
    store.close()
    path = tmp_path / "appliance.yaml"
    path.write_text(CONFIG.format(tmp_path), "utf-8")
    return lambda *words: CliRunner().invoke(main, [*words, "--config", str(path)])


@pytest.fixture
def reopened(tmp_path):
    opened = []

    def read():
        opened.append(Store.open(tmp_path, SystemClock(), reserve_bytes=0))
        return opened[-1]

    yield read
    for store in opened:
        store.close()


@pytest.mark.req("R-ALERT-02")
def test_who_was_told_is_one_line_of_the_register(scanside, reopened):
    done = scanside("alert", "told", "1", *TOLD, "--json")
    assert json.loads(done.stdout) == {"communication": 1, "alert": 1}
    store = reopened()
    (line,) = store.communications.of_alerts([1])[1]
    assert (line.told_by, line.received_by, str(line.method), line.read_back, line.evaluation) == (
        "Li Wei", "Dr Chen", "phone", True, True
    )  # fmt: skip
    assert json.loads(scanside("alert", "list", "--json").stdout)["alerts"][0]["state"] == "communicated"
    assert scanside("alert", "told", "9", *TOLD).exit_code == Exit.NOT_FOUND
    assert scanside("alert", "told", "1", "--to", "Dr Chen", "--by", "phone").exit_code == Exit.USAGE


@pytest.mark.req("R-ALERT-06")
def test_a_test_alert_is_raised_where_it_was_asked_for(scanside, reopened):
    assert json.loads(scanside("alert", "test", "--source", "CT-1", "--json").stdout) == {"test": 1, "source": "CT-1"}
    store = reopened()
    (test,) = store.alert_tests.open()
    assert test.source == "CT-1"
    assert [one.step for one in store.escalations.owed("lamp", store.db.clock.now())] == ["test"]
    assert len(store.views.alerts()) == 1, "the real one"
    assert scanside("alert", "test", "--source", "CT-1").exit_code == Exit.CONFLICT
    assert scanside("alert", "test", "--source", "CT-7").exit_code == Exit.NOT_FOUND
    assert "every screen" in scanside("alert", "test").stdout
