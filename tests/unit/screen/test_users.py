"""The users page and ``scanside user``: the same acts, by an administrator and by whoever has the box itself."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from web_kit import Browser, session

from appliance.cli import main
from appliance.config import Config
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.store.facts import Kind

pytestmark = pytest.mark.req("R-ACCESS-03")


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config(), scenes.packages(), clock)


@pytest.fixture
def admin(store, app):
    with Browser(app, session(store, "administrator")) as opened:
        yield opened


@pytest.fixture
def scanside(tmp_path, store):
    """``scanside(*words)``: exit status and document or text of the command line, on the same store."""
    path = tmp_path / "box.yaml"
    path.write_text(yaml.safe_dump({"state_path": str(tmp_path)}), "utf-8")

    def call(*words, **more):
        done = CliRunner().invoke(main, [*map(str, words), "--config", str(path)], **more)
        return done.exit_code, json.loads(done.stdout) if "--json" in words and not done.exit_code else done.output

    return call


def secret_of(page):
    return re.search(r'data-testid="secret">([^<]+)<', page.text)[1]


def test_somebody_is_added_with_a_password_that_is_shown_once_and_must_be_changed(store, app, admin):
    page = admin.form("/users", name="li.wei", full_name="Li Wei 李伟", role="radiologist")
    password = secret_of(page)
    assert password not in admin.get("/users").text
    account = store.accounts.by_name("li.wei")[0]
    assert (account.role, account.full_name, account.must_change) == ("radiologist", "Li Wei 李伟", True)
    with Browser(app) as someone:
        assert someone.sign_in("li.wei", password).headers["location"] == "/account"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "", "full_name": "X"}, 422),
        ({"name": "a b", "full_name": "X"}, 422),
        ({"name": "-x", "full_name": "X"}, 422),
        ({"name": "x" * 65, "full_name": "X"}, 422),
        ({"name": "x", "full_name": "\x07"}, 422),
        ({"name": "administrator", "full_name": "X"}, 409),
        ({"name": "x", "full_name": "X", "role": "screen"}, 409),
        ({"name": "x", "full_name": "X", "role": "god"}, 400),
    ],
)
def test_what_is_no_name_or_role_is_refused_and_what_was_typed_stays(store, admin, fields, status):
    answer = admin.form("/users", **({"role": "viewer"} | fields))
    assert answer.status_code == status
    assert len(store.accounts.all()) == 1


def test_a_role_changes_with_a_reason_and_by_name(store, admin):
    one = store.accounts.add("li", "Li", UserRole.VIEWER, None, SYSTEM)
    assert admin.form(f"/users/{one}/role", role="technologist", reason=" ").status_code == 422
    assert admin.form(f"/users/{one}/role", role="technologist", reason="new post").status_code == 303
    assert store.accounts.get(one).role is UserRole.TECHNOLOGIST
    fact = store.journal.after(0, 100, (Kind.ACCOUNT_CHANGED,))[-1]
    assert (fact.body["reason"], fact.actor["name"]) == ("new post", "Ada Administrator")
    assert admin.get("/users/99").status_code == 404


def test_a_role_that_somebody_else_changed_meanwhile_is_not_set_back_in_silence(store, admin):
    one = store.accounts.add("li", "Li", UserRole.VIEWER, None, SYSTEM)
    assert 'name="was" value="viewer"' in admin.get(f"/users/{one}").text
    store.accounts.set_role(one, UserRole.RADIOLOGIST, SYSTEM, reason="signs")
    answer = admin.form(f"/users/{one}/role", was="viewer", role="technologist", reason="new post")
    assert (answer.status_code, "has made li radiologist since you looked" in answer.text) == (409, True)
    assert 'name="was" value="radiologist"' in answer.text
    assert store.accounts.get(one).role is UserRole.RADIOLOGIST
    assert admin.form(f"/users/{one}/role", was="radiologist", role="viewer", reason="x").status_code == 303


def test_accounts_are_switched_off_and_on_and_the_last_administrator_stays(store, admin):
    one = store.accounts.add("li", "Li", UserRole.VIEWER, None, SYSTEM)
    for to, state in (("off", False), ("on", True)):
        assert admin.form(f"/users/{one}/active", to=to, reason="leave").status_code == 303
        assert store.accounts.get(one).is_active is state
    me = store.accounts.by_name("administrator")[0].id
    answer = admin.form(f"/users/{me}/active", to="off", reason="tired")
    assert (answer.status_code, "last administrator" in answer.text) == (409, True)
    assert admin.get("/users").status_code == 200


def test_a_forgotten_password_is_replaced_and_shown_once(store, app, admin):
    one = store.accounts.add("li", "Li", UserRole.VIEWER, "old", SYSTEM)
    password = secret_of(admin.form(f"/users/{one}/password"))
    assert password not in admin.get(f"/users/{one}").text
    with Browser(app) as someone:
        assert someone.sign_in("li", password).headers["location"] == "/account"


def test_hostile_names_are_text(store, admin):
    store.accounts.add("x", '<script>alert(1)</script>"', UserRole.VIEWER, None, SYSTEM)
    page = admin.get("/users").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_command_line_makes_the_first_administrator_and_whoever_comes_after(store, app, scanside, tmp_path):
    assert "makes the first" in scanside("user", "list")[1]
    secret = tmp_path / "secret"
    secret.write_text("staple battery horse\nsecond line\n", "utf-8")
    assert scanside("user", "add", "ada", "--role", "administrator", "--password-file", secret)[0] == 0
    with Browser(app) as someone:
        assert someone.sign_in("ada", "staple battery horse").headers["location"] == "/"
    status, document = scanside("user", "add", "li", "--role", "viewer", "--one-time", "--json")
    assert status == 0
    with Browser(app) as someone:
        assert someone.sign_in("li", document["password"]).headers["location"] == "/account"
    assert scanside("user", "role", "li", "radiologist", "--reason", "learned")[0] == 0
    assert scanside("user", "disable", "li", "--reason", "left")[0] == 0
    assert scanside("user", "enable", "li", "--reason", "back")[0] == 0
    assert scanside("user", "password", "li", "--password-file", secret)[0] == 0
    assert scanside("user", "disable", "ada", "--reason", "no")[0] == 6
    assert scanside("user", "role", "nobody", "viewer", "--reason", "no")[0] == 4
    users = {one["name"]: one for one in scanside("user", "list", "--json")[1]["users"]}
    assert (users["li"]["role"], users["li"]["active"], users["li"]["must_change"]) == ("radiologist", True, False)


def test_the_command_line_asks_only_at_a_terminal_and_takes_no_poor_password(store, scanside, tmp_path):
    status, said = scanside("user", "add", "ada", "--role", "administrator")
    assert (status, "--password-file" in said) == (2, True)
    poor = tmp_path / "poor"
    poor.write_text("password123\n", "utf-8")
    assert scanside("user", "add", "ada", "--role", "administrator", "--password-file", poor)[0] == 2
    assert scanside("user", "add", "a b", "--role", "administrator", "--one-time")[0] == 2
    assert not store.accounts.has_administrator()
