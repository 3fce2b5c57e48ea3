"""Signing in and out over HTTP: sessions, waits, what the journal hears, and a password of one's own."""

from __future__ import annotations

import re

import pytest
from web_kit import Browser, served

from appliance.config import Config
from appliance.records import SYSTEM, UserRole
from appliance.screen import live, screen_app
from appliance.store.facts import Kind
from appliance.web import access
from appliance.web.passwords import Passwords

GOOD = "staple battery horse"


@pytest.fixture(scope="module")
def kept():
    return Passwords().hashed(GOOD)


@pytest.fixture
def add(store, kept):
    """``add(role)``: an account of that name with the good password."""

    def make(role="technologist", **more):
        return store.accounts.add(role, f"The {role}", UserRole(role), kept, SYSTEM, **more)

    return make


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config(), scenes.packages(), clock)


@pytest.fixture
def browser(app):
    """``browser()``: a new one."""
    opened = []

    def make(**more):
        opened.append(Browser(app, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def told(store):
    """``told(kind)``: bodies of journal rows."""
    return lambda kind: [fact.body for fact in store.journal.after(0, 500, (kind,))]


@pytest.mark.req("R-ACCESS-01")
def test_who_is_unknown_signs_in_and_comes_to_the_page_that_was_asked_for(add, browser):
    add()
    someone = browser()
    asked = someone.get("/alert?x=1")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Falert%3Fx%3D1")
    form = someone.get(asked.headers["location"]).text
    assert 'name="next" value="/alert?x=1"' in form
    answer = someone.sign_in("Technologist", GOOD, next="/alert?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/alert?x=1")
    flags = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("scanside_session="))
    assert "HttpOnly" in flags
    assert "SameSite=strict" in flags
    assert "Max-Age" not in flags
    assert someone.get("/alert").status_code == 200
    assert someone.get("/sign-in?next=/account").headers["location"] == "/account"
    # Unless they are to prove themselves again.
    assert 'data-testid="again"' in someone.get("/sign-in?again=1&next=/account").text
    before = someone.session
    assert someone.sign_in("Technologist", GOOD, next="/account").headers["location"] == "/account"
    assert someone.session != before


@pytest.mark.req("R-ACCESS-02")
def test_whose_session_is_over_is_told_so_where_they_sign_in_again(add, browser, clock):
    add()
    someone = browser()
    assert 'data-testid="over"' not in someone.get("/sign-in").text
    someone.sign_in("technologist", GOOD)
    clock.advance(86_400)
    asked = someone.get("/studies?q=x")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Fstudies%3Fq%3Dx")
    for locale, words in (("en", "Your session is over."), ("zh_Hans_CN", "登录已失效")):
        page = someone.get(f"{asked.headers['location']}&lang={locale}").text
        assert words in re.search('data-testid="over">([^<]*)<', page)[1]
        assert 'name="next" value="/studies?q=x"' in page
    assert 'data-testid="over"' not in someone.sign_in("technologist", "wrong").text  # says what is wrong instead
    clock.advance(60)
    assert someone.sign_in("technologist", GOOD, next="/studies?q=x").headers["location"] == "/studies?q=x"
    someone.form("/sign-out")
    assert 'data-testid="over"' not in someone.get("/sign-in").text


@pytest.mark.req("R-ACCESS-01")
def test_scripts_are_told_401_and_forms_lead_to_the_nearest_page(browser):
    someone = browser()
    assert someone.get("/alert", headers={"Accept": "*/*"}).status_code == 401
    assert someone.get("/alert", headers={"Accept": "text/html", "HX-Request": "true"}).status_code == 401
    assert someone.form("/users/3/role").headers["location"] == "/sign-in?next=%2Fusers%2F3"
    assert someone.form("/screens/3/revoke").headers["location"] == "/sign-in?next=%2Fscreens"


@pytest.mark.req("R-ACCESS-01")
def test_who_comes_from_a_page_of_somebody_else_is_sent_on_with_the_strict_cookie(add, browser):
    add()
    someone = browser()
    answer = someone.get("/alert?<x>", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/alert?%3Cx%3E"' in answer.text


@pytest.mark.req("R-ACCESS-02")
def test_a_session_is_always_a_new_one_and_the_old_one_of_the_browser_ends(add, browser, store):
    add()

    def signed_in(cookie):
        answer = browser(cookie=cookie).sign_in("technologist", GOOD)
        return re.search(r"scanside_session=([\w-]{43});", " ".join(answer.headers.get_list("set-cookie")))[1]

    first = signed_in("chosen-by-somebody-else")
    assert store.sessions.find("chosen-by-somebody-else") is None
    assert store.sessions.find(first)
    second = signed_in(first)
    assert store.sessions.find(first) is None
    assert store.sessions.find(second)


@pytest.mark.req("R-ACCESS-01")
def test_a_wrong_name_a_wrong_password_and_a_switched_off_account_look_the_same(add, browser, told, store, clock):
    add("administrator")
    off = add("viewer")
    store.accounts.set_active(off, SYSTEM, active=False)
    store.accounts.add("oidc", "Of elsewhere", UserRole.VIEWER, None, SYSTEM)
    pages = set()
    for name, password in (("nobody", GOOD), ("administrator", "wrong"), ("viewer", GOOD), ("oidc", ""), ("", "")):
        clock.advance(2)
        answer = browser().sign_in(name, password)
        assert answer.status_code == 401
        assert "scanside_session" not in str(answer.headers)
        pages.add(re.sub(r'(value|content|name="csrf" value)="[^"]*"', "", answer.text))
    assert len(pages) == 1
    accounts = [body["account"] for body in told(Kind.SIGN_IN_FAILED)]
    assert accounts == ["", "administrator", "viewer", "oidc", ""]
    assert not told(Kind.SIGNED_IN)


@pytest.mark.req("R-ACCESS-06")
def test_after_five_failures_one_waits_and_is_told_how_long_and_then_may_again(add, browser, clock):
    add()
    someone = browser()
    for _ in range(5):
        assert someone.sign_in("technologist", "wrong").status_code == 401
    answer = someone.sign_in("technologist", GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "30" in re.search('data-testid="wait">([^<]*)<', answer.text)[1]
    clock.advance(30)
    assert someone.sign_in("technologist", GOOD).status_code == 303
    assert someone.sign_in("technologist", "wrong").status_code == 401


@pytest.mark.req("R-ACCESS-06")
def test_an_attacker_cannot_fill_the_journal(browser, told, store, clock):
    someone = browser()
    for n in range(10):
        someone.sign_in(f"name{n}", "wrong")
    assert len(told(Kind.SIGN_IN_FAILED)) == 1
    clock.advance(1)
    someone.sign_in("another", "wrong")
    assert len(told(Kind.SIGN_IN_FAILED)) <= 2


@pytest.mark.req("R-ACCESS-01")
def test_a_password_of_somebody_else_must_be_changed_before_anything_else(add, browser, store, told):
    add(must_change=True)
    someone = browser()
    assert someone.sign_in("technologist", GOOD, next="/alert").headers["location"] == "/account"
    assert someone.get("/alert").headers["location"] == "/account"
    assert someone.get("/alert", headers={"Accept": "*/*"}).status_code == 403
    assert 'data-testid="must-change"' in someone.get("/account").text
    before = someone.session

    def change(old, new, again=None):
        return someone.form("/account/password", old=old, new=new, again=new if again is None else again)

    for wrong in (
        change(GOOD, "short"),
        change(GOOD, GOOD),
        change(GOOD, "another good one", "and not the same"),
        change("not mine at all", "another good one"),
    ):
        assert wrong.status_code == 422
        assert "error" in wrong.text
    assert change(GOOD, "another good one").headers["location"] == "/account?done=password"
    assert someone.session != before
    assert store.sessions.find(before) is None
    assert someone.get("/alert").status_code == 200
    assert [body["change"] for body in told(Kind.ACCOUNT_CHANGED)] == ["added", "password"]
    assert browser().sign_in("technologist", GOOD).status_code == 401
    assert browser().sign_in("technologist", "another good one").status_code == 303


@pytest.mark.req("R-ACCESS-02")
def test_signing_out_ends_the_session_and_takes_the_cookie(add, browser, store, told):
    add()
    someone = browser()
    someone.sign_in("technologist", GOOD)
    cookie = someone.session
    assert someone.form("/sign-out").headers["location"] == "/sign-in"
    assert someone.session is None
    assert store.sessions.find(cookie) is None
    assert told(Kind.SIGNED_OUT) == [{"why": "asked"}]


@pytest.mark.req("R-ACCESS-02")
def test_a_stream_ends_soon_after_its_session_and_says_so(add, app, store, monkeypatch):
    monkeypatch.setattr(access, "LEASE_S", 0.0)
    monkeypatch.setattr(live, "BEAT_S", 0.05)
    account = add()
    with served(app) as address, Browser(address) as someone:
        someone.sign_in("technologist", GOOD)
        with someone.stream("GET", "/events/page") as answer:
            lines = answer.iter_lines()
            assert any(line == "event: beat" for line in lines)
            assert any(line == "event: beat" for line in lines)
            store.accounts.set_password(account, "another", SYSTEM, must_change=False)
            assert any(line == "event: over" for line in lines)
            assert [line for line in lines if line] == ["data: {}"]


@pytest.mark.req("R-ACCESS-01")
def test_a_box_without_accounts_says_how_the_first_is_made_and_opens_nothing(browser, store, add):
    someone = browser()
    page = someone.get("/sign-in").text
    assert "scanside user add NAME \\\n  --role administrator" in page
    assert 'href="/setup"' in page
    assert someone.sign_in("administrator", "").status_code == 401
    add("administrator")
    assert "scanside user add" not in someone.get("/sign-in").text


def test_an_outdated_hash_is_renewed_at_sign_in(browser, store):
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(GOOD)
    store.accounts.add("li", "Li", UserRole.VIEWER, old, SYSTEM)
    assert browser().sign_in("li", GOOD).status_code == 303
    assert "m=19456,t=2,p=1" in store.accounts.by_name("li")[1]
    assert browser().sign_in("li", GOOD).status_code == 303
