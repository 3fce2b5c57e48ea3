"""The server's database, each test on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil

import pytest
from fleet_kit import FleetCa, PaperBox, add_box, add_tree
from sqlalchemy.engine import make_url

from appliance.fleet.server import db


def pytest_collection_modifyitems(items):
    """``POSTGRES_IS_LONG`` in a module: both databases in a long run alone, as nothing there is of one of the two."""
    for item in items:
        called = getattr(item, "callspec", None)
        if called and called.params.get("engine") == "postgresql" and getattr(item.module, "POSTGRES_IS_LONG", False):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    path = tmp_path_factory.mktemp("fleet") / "template.db"
    engine = db.open_engine(f"sqlite:///{path}")
    db.migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_template(fleet_postgres):
    url = fleet_postgres.fresh()
    engine = db.open_engine(url)
    db.migrate(engine)
    engine.dispose()
    return make_url(url).database


@pytest.fixture
def postgres_url(fleet_postgres, postgres_template):
    with fleet_postgres.lent(postgres_template) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    if request.param == "sqlite":
        path = tmp_path / "fleet.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    else:
        url = request.getfixturevalue("postgres_url")
    made = db.open_engine(url)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def ca(tmp_path_factory):
    return FleetCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def box(engine, ca):
    """A box that is enrolled, at a site of the hospital."""
    made = PaperBox("box-0000001")
    with db.write(engine) as connection:
        add_tree(connection)
        add_box(connection, made, ca)
    return made
