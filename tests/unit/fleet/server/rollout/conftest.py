"""Roll-outs on SQLite; what is asked of a database in a way of its own is tested on both."""

from __future__ import annotations

import shutil

import pytest
from rollout_kit import PaperFleet

from appliance.fleet.server import db


@pytest.fixture(scope="session")
def paper_template(sqlite_template, tmp_path_factory):
    """A fleet that is made once and copied."""
    folder = tmp_path_factory.mktemp("paper")
    shutil.copy(sqlite_template, folder / "fleet.db")
    engine = db.open_engine(f"sqlite:///{folder / 'fleet.db'}")
    PaperFleet(engine, folder)
    engine.dispose()
    return folder


@pytest.fixture
def engine(request, tmp_path):
    """``@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)`` for a test on both."""
    if getattr(request, "param", "sqlite") == "postgresql":
        url = request.getfixturevalue("postgres_url")
    else:
        template = request.getfixturevalue("paper_template")
        shutil.copy(template / "fleet.db", tmp_path / "fleet.db")
        shutil.copytree(template / "keys", tmp_path / "keys")
        url = f"sqlite:///{tmp_path / 'fleet.db'}"
    made = db.open_engine(url)
    yield made
    made.dispose()
