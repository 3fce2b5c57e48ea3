"""The compose file of docs/fleet-at-scale is not run here; what it names is what the software has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from appliance.clock import SystemClock
from appliance.fleet.server.config import load_server_config
from appliance.fleet.server.db import read
from appliance.fleet.server.metrics import FleetCollector, IngestMetrics
from appliance.fleet.server.repository_watch import RepositoryCollector

FOLDER = Path(__file__).resolve().parents[4] / "docs" / "fleet-at-scale"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((FOLDER / "grafana" / "fleet.json").read_text("utf-8"))


def queries(dashboard, key):
    return [target[key] for panel in dashboard["panels"] for target in panel["targets"] if key in target]


@pytest.mark.req("R-FLEET-95")
def test_the_server_of_the_compose_file_listens_where_the_ports_are_let_in_and_prometheus_looks(compose):
    config = load_server_config(FOLDER / "fleet-server.yaml")
    ports = {one.rpartition(":")[2] for one in compose["services"]["fleet"]["ports"]}
    assert {str(config.broker.port), str(config.https.port), str(config.console.port)} <= ports
    looks = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    # /metrics listens on the loopback alone, so Prometheus must share the server's network.
    assert looks["scrape_configs"][0]["static_configs"] == [{"targets": [f"127.0.0.1:{config.metrics_port}"]}]
    assert compose["services"]["prometheus"]["network_mode"] == "service:fleet"
    database = compose["services"]["database"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert config.database == f"postgresql+psycopg://{user}@database/{name}"


@pytest.mark.req("R-FLEET-95")
def test_every_file_and_volume_that_the_compose_file_names_is_there(compose):
    made_by_hand = {"database.password", "pgpass"}
    named = {one.partition(":")[0] for service in compose["services"].values() for one in service.get("volumes", ())}
    for one in named:
        if one.startswith("./"):
            assert (FOLDER / one).is_file() or one.removeprefix("./") in made_by_hand, one
        else:
            assert one in compose["volumes"], one
    assert set(compose["services"]["database"]["secrets"]) <= set(compose["secrets"])


@pytest.mark.req("R-FLEET-95")
def test_every_metric_of_the_dashboard_is_one_that_the_server_shows(dashboard, sqlite_template):
    from appliance.fleet.server.db import open_engine

    registry = CollectorRegistry()
    IngestMetrics(registry)
    engine = open_engine(f"sqlite:///{sqlite_template}")
    collected = [*registry.collect(), *FleetCollector(engine, SystemClock()).collect()]
    engine.dispose()
    shown = {one.name for one in collected}
    # A family without samples yields no name of its own; the repository's collector names it in the code.
    source = Path(RepositoryCollector.collect.__code__.co_filename).read_text("utf-8")
    shown |= set(re.findall(r'"(scanside_fleet_\w+)"', source))
    asked = {name for query in queries(dashboard, "expr") for name in re.findall(r"scanside_fleet_\w+", query)}
    assert asked
    ends = ("_total", "_bucket")
    for name in asked:
        assert any(name.removesuffix(end) in shown for end in ("", *ends)), f"{name} is no metric of the server"


@pytest.mark.req("R-FLEET-95")
def test_postgresql_takes_every_query_of_the_dashboard(dashboard, fleet_postgres, postgres_template):
    from appliance.fleet.server.db import open_engine

    asked = queries(dashboard, "rawSql") + [one["query"] for one in dashboard["templating"]["list"]]
    assert len(asked) >= 5
    engine = open_engine(fleet_postgres.fresh(postgres_template))
    with read(engine) as connection:
        for query in asked:
            plain = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > now() - interval '1 hour'", query)
            connection.execute(text(plain.replace("$device", "box-0000001").replace(":", r"\:")))
    engine.dispose()
