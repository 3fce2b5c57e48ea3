"""A console over a fleet of two hospitals, without a socket."""

from __future__ import annotations

import shutil

import pytest
import web_kit
from console_kit import Visitor, add_fleet, signed_in
from fleet_kit import NOW

from appliance.clock import FakeClock
from appliance.fleet.server import db
from appliance.fleet.server.console import app as console_module
from appliance.fleet.server.console import console_app
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.i18n import Catalogues
from appliance.web.passwords import Passwords


@pytest.fixture(scope="package", autouse=True)
def _what_all_applications_share_is_made_once():
    catalogues, passwords = Catalogues(), Passwords()
    with pytest.MonkeyPatch.context() as patch, web_kit.made_once():
        patch.setattr(console_module, "Catalogues", lambda: catalogues)
        patch.setattr(console_module, "Passwords", lambda: passwords)
        yield


@pytest.fixture
def fleet(sqlite_template, tmp_path):
    """The database of a fleet."""
    path = tmp_path / "fleet.db"
    shutil.copy(sqlite_template, path)
    made = db.open_engine(f"sqlite:///{path}")
    with db.write(made) as connection:
        add_fleet(connection)
    yield made
    made.dispose()


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return ServerKeys.open(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def app(fleet, keys, clock, tmp_path):
    made = console_app(fleet, keys, clock, folder=tmp_path)
    yield made
    made.state.context.pool.close()


@pytest.fixture
def visit(app, fleet, clock):
    """``visit(name)``: the browser of somebody of ``console_kit.PEOPLE``; of nobody without a name."""

    def start(name=""):
        return Visitor(app, signed_in(fleet, name, clock.now()) if name else None)

    return start
