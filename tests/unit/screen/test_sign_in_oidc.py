"""Signing in with the hospital's account, against a provider written with Authlib over HTTPS."""

from __future__ import annotations

import re
import ssl
import time
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from idp_kit import CLIENT, SECRET, serving_idp
from joserfc.jwk import OctKey, RSAKey
from tls_kit import Authority
from web_kit import Browser

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.web.passwords import Passwords

pytestmark = pytest.mark.req("R-ACCESS-05")

HERE = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


@pytest.fixture(scope="module")
def running_idp(authority):
    with serving_idp(authority.issue("idp")) as running:
        running.clients.redirect_uris = {f"{HERE}/sign-in/oidc/callback"}
        yield running


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No stall of the machine is a silent provider."""
    monkeypatch.setattr("appliance.web.oidc._TIMEOUT_S", 60.0)


@pytest.fixture
def idp(running_idp):
    running_idp.reset()
    return running_idp


@pytest.fixture
def store(tmp_path):
    """On the machine's clock: the provider has no other."""
    opened = Store.open(tmp_path / "state", SystemClock(), reserve_bytes=0)
    opened.accounts.add("ada", "Ada", UserRole.ADMINISTRATOR, None, SYSTEM)
    yield opened
    opened.close()


@pytest.fixture
def settings(idp, authority, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n", "utf-8")
    return {
        "issuer": idp.issuer,
        "client_id": CLIENT,
        "client_secret_path": secret,
        "ca_path": authority.path,
        "roles": {"admins": "administrator", "radiologists": "radiologist", "everybody": "viewer"},
    }


@pytest.fixture
def app(store, settings, scenes):
    config = Config.model_validate({"screen": {"oidc": settings}})
    return screen_app(store, config, scenes.packages(), store.db.clock)


@pytest.fixture
def at_idp(authority):
    """``at_idp(url)``: what a browser does at the provider; the address that it is sent back to, without our host."""

    def go(url):
        answer = httpx.get(url, verify=ssl.create_default_context(cafile=authority.path), timeout=60)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"].removeprefix(HERE)

    return go


@pytest.fixture
def come_back(app, at_idp):
    """``come_back()``: the whole way; the browser and the last answer."""
    opened = []

    def go(query=""):
        browser = Browser(app)
        opened.append(browser)
        begun = browser.get(f"/sign-in/oidc{query}")
        assert begun.status_code == 303
        return browser, browser.get(at_idp(begun.headers["location"]))

    yield go
    for browser in opened:
        browser.close()


def is_refused(browser, answer, status=403):
    """On the page with the form of local accounts, and nobody."""
    assert answer.status_code == status, answer.text
    assert 'data-testid="error"' in answer.text
    assert 'name="password"' in answer.text
    assert browser.session is None
    return True


def test_somebody_of_the_hospital_signs_in_with_the_role_of_their_first_group(store, come_back, idp):
    idp.person["groups"] = ["everybody", "radiologists"]
    browser, answer = come_back("?next=/studies")
    assert 'content="0;url=/studies"' in answer.text
    session = store.sessions.find(browser.session)
    assert (session.account.name, session.account.full_name, session.role) == ("li.wei", "Li Wei", "radiologist")
    assert session.account.subject == f"{idp.issuer} 4711"
    assert not session.account.has_password
    assert [fact.body["how"] for fact in store.journal.after(0, 100, (Kind.SIGNED_IN,))] == ["oidc"]
    assert "scanside_oidc" not in browser.cookies


def test_the_request_carries_pkce_state_and_nonce_and_each_is_new(app, idp):
    with Browser(app) as browser:
        first, second = (parse_qs(urlsplit(browser.get("/sign-in/oidc").headers["location"]).query) for _ in range(2))
    assert first["code_challenge_method"] == ["S256"]
    assert first["response_type"] == ["code"]
    assert first["scope"] == ["openid profile"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) >= 32
        assert first[name] != second[name]


def test_the_role_follows_the_directory_at_every_sign_in_and_the_account_stays_one(store, come_back, idp):
    browser, _ = come_back()
    idp.person |= {"groups": ["admins"], "preferred_username": "renamed"}
    again, _ = come_back()
    account = store.sessions.find(again.session).account
    assert (account.name, account.role) == ("li.wei", "administrator")
    assert store.sessions.find(browser.session) is None
    assert len(store.accounts.all()) == 2


def test_a_claim_inside_another_and_a_single_group_count_too(store, settings, scenes, idp, at_idp):
    oidc = settings | {"claim": "realm_access.roles"}
    app = screen_app(store, Config.model_validate({"screen": {"oidc": oidc}}), scenes.packages(), store.db.clock)
    idp.person["realm_access"] = {"roles": "everybody"}
    with Browser(app) as browser:
        browser.get(at_idp(browser.get("/sign-in/oidc").headers["location"]))
        assert store.sessions.find(browser.session).role == "viewer"


def test_who_calls_themselves_as_an_administrator_of_ours_is_not_that_administrator(store, come_back, idp):
    idp.person |= {"preferred_username": "ada", "name": "Ada"}
    browser, _ = come_back()
    account = store.sessions.find(browser.session).account
    assert (account.name, account.full_name, account.role) == ("ada.2", "Ada 2", "radiologist")


def test_somebody_in_no_group_of_ours_is_refused_and_the_journal_says_so(store, come_back, idp):
    for groups in (["cooks"], [], None, 7, {"radiologists": 1}, ["Radiologists"]):
        idp.person["groups"] = groups
        assert is_refused(*come_back())
    assert len(store.accounts.all()) == 1
    assert {fact.body["how"] for fact in store.journal.after(0, 100, (Kind.SIGN_IN_FAILED,))} == {"oidc"}


def test_somebody_whose_account_is_switched_off_is_refused(store, come_back):
    browser, _ = come_back()
    store.accounts.set_active(store.sessions.find(browser.session).account.id, SYSTEM, active=False)
    assert is_refused(*come_back())


@pytest.mark.fault("T42")
@pytest.mark.req("R-FAULT-T42")
def test_a_token_that_proves_nothing_is_refused(come_back, idp):
    now = int(time.time())
    for changes in (
        {"nonce": "of another sign-in"},
        {"nonce": ""},
        {"exp": now - 120},
        {"iat": now + 600},
        {"nbf": now + 600},
        {"aud": "another client"},
        {"aud": ["another client"]},
        {"aud": ["another client"], "azp": CLIENT},
        {"azp": "another client"},
        {"iss": "https://evil.example"},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    ):
        idp.changes = changes
        assert is_refused(*come_back()), changes


@pytest.mark.fault("T42")
@pytest.mark.req("R-FAULT-T42")
def test_a_token_that_the_provider_did_not_sign_is_refused(come_back, idp):
    for key, algorithm in (
        (RSAKey.generate_key(2048, {"kid": "1"}), "RS256"),
        (RSAKey.generate_key(2048, {"kid": "2"}), "RS256"),
        (OctKey.import_key(SECRET * 2, {"kid": "1"}), "HS256"),
    ):
        idp.signs_with, idp.algorithm = key, algorithm
        assert is_refused(*come_back())


def test_keys_that_the_provider_changed_are_fetched_anew(store, come_back, idp):
    come_back()
    idp.key = idp.signs_with = RSAKey.generate_key(2048, {"kid": "2", "use": "sig", "alg": "RS256"})
    browser, _ = come_back()
    assert store.sessions.find(browser.session)


@pytest.mark.fault("T42")
@pytest.mark.req("R-FAULT-T42")
def test_an_answer_is_taken_once_and_only_in_the_browser_that_asked(app, at_idp, store):
    with Browser(app) as victim, Browser(app) as attacker:
        back = at_idp(attacker.get("/sign-in/oidc").headers["location"])
        assert is_refused(victim, victim.get(back), 400)
        assert is_refused(attacker, attacker.get(back), 400)
        back = at_idp(attacker.get("/sign-in/oidc").headers["location"])
        assert attacker.get(re.sub("state=[^&]+", "state=x", back)).status_code == 400
        assert attacker.get(back.replace("code=", "code=x")).status_code == 403
        back = at_idp(attacker.get("/sign-in/oidc").headers["location"])
        assert attacker.get(back + "&iss=https%3A%2F%2Fevil.example").status_code == 403
        assert attacker.session is None


@pytest.mark.req("R-REVIEW-01")
def test_who_has_no_password_proves_themselves_again_there_before_they_sign(app, store, come_back, at_idp, idp):
    def proved(browser):
        return store.db.clock.now() - store.sessions.find(browser.session).proved_at

    idp.changes = {"auth_time": int(time.time()) - 3600}
    browser, _ = come_back()
    assert proved(browser) > timedelta(minutes=59)
    form = browser.get("/sign-in?again=1&next=/studies/1/review")
    assert 'data-testid="again"' in form.text
    link = re.search(r'href="(/sign-in/oidc[^"]*)"', form.text)[1].replace("&amp;", "&")
    assert link == "/sign-in/oidc?again=1&next=/studies/1/review"
    # A provider that lets them through unasked proves nothing, and the old session stays as it was.
    before = browser.session
    answer = browser.get(at_idp(browser.get(link).headers["location"]))
    assert answer.status_code == 403
    assert "did not ask you again" in answer.text
    assert f'href="{link.replace("&", "&amp;")}"' in answer.text
    assert browser.session == before
    idp.changes = {}
    begun = browser.get(link).headers["location"]
    asked = parse_qs(urlsplit(begun).query)
    assert (asked["prompt"], asked["max_age"]) == (["login"], ["0"])
    assert 'content="0;url=/studies/1/review"' in browser.get(at_idp(begun)).text
    assert browser.session != before
    assert proved(browser) < timedelta(minutes=1)
    # One that does not say when proves nothing to sign with, though it lets in; ours is the later of two clocks.
    for auth_time, least in ((0, timedelta(days=365)), (int(time.time()) + 50, timedelta(0))):
        idp.changes = {"auth_time": auth_time}
        silent, _ = come_back()
        assert proved(silent) >= least
    # And who would sign is told why it cannot be, and what to do.
    idp.changes = {"auth_time": 0}
    answer = silent.get(at_idp(silent.get(link).headers["location"]))
    assert answer.status_code == 403
    assert "does not say when you proved who you are (auth_time)" in answer.text
    assert "Sign with an account of this box" in answer.text


def test_who_cancels_there_is_back_at_the_form(come_back, idp):
    idp.person = None
    assert is_refused(*come_back())


def test_what_an_address_says_of_an_error_makes_no_line_of_the_log_and_is_cut(app, caplog):
    with Browser(app) as browser:
        begun = httpx.URL(browser.get("/sign-in/oidc").headers["location"])
        answer = browser.get(
            "/sign-in/oidc/callback",
            params={"state": begun.params["state"], "error": "no\nERROR all images are lost" + "x" * 4000},
        )
        assert is_refused(browser, answer)
    (said,) = (record.getMessage() for record in caplog.records if "the provider said" in record.getMessage())
    assert "\n" not in said
    assert "'no\\nERROR all images" in said
    assert len(said.partition("the provider said ")[2]) == 80


def test_a_sign_in_that_takes_longer_than_ten_minutes_is_begun_again(app, at_idp, monkeypatch):
    with Browser(app) as browser:
        back = at_idp(browser.get("/sign-in/oidc").headers["location"])
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 601)
        assert browser.get(back).status_code == 400


def test_a_provider_that_is_down_leaves_the_accounts_of_the_box(app, idp, store):
    idp.is_down = True
    kept = Passwords().hashed("staple battery horse")
    store.accounts.set_password(store.accounts.by_name("ada")[0].id, kept, SYSTEM, must_change=False)
    with Browser(app) as browser:
        assert 'data-testid="oidc"' in browser.get("/sign-in").text
        assert is_refused(browser, browser.get("/sign-in/oidc?next=/users"), 503)
        assert browser.sign_in("ada", "staple battery horse", next="/users").headers["location"] == "/users"
        assert browser.get("/users").status_code == 200


def test_a_provider_that_fails_half_way_or_is_somebody_else_lets_nobody_in(app, idp, at_idp, settings, store, tmp_path):
    with Browser(app) as browser:
        back = at_idp(browser.get("/sign-in/oidc").headers["location"])
        idp.is_down = True
        assert is_refused(browser, browser.get(back), 503)
        idp.is_down = False
    other = Authority(tmp_path, "another", number=1)
    for changes in ({"ca_path": other.path}, {"issuer": idp.issuer.replace("localhost", "127.0.0.1")}):
        config = Config.model_validate({"screen": {"oidc": settings | changes}})
        with Browser(screen_app(store, config, {}, store.db.clock)) as browser:
            assert is_refused(browser, browser.get("/sign-in/oidc"), 503)


def test_what_cannot_work_is_said_at_start(settings, store, tmp_path):
    for changes in ({"issuer": "http://idp.example"}, {"roles": {}}, {"roles": {"a": "screen"}}, {"scope": "profile"}):
        with pytest.raises(ValueError, match=r"oidc"):
            Config.model_validate({"screen": {"oidc": settings | changes}})
    for changes in ({"ca_path": tmp_path / "none"}, {"client_secret_path": tmp_path / "none"}):
        config = Config.model_validate({"screen": {"oidc": settings | changes}})
        with pytest.raises(ConfigError, match=r"screen\.oidc"):
            screen_app(store, config, {}, store.db.clock)


def test_without_a_provider_there_is_no_such_address(store):
    with Browser(screen_app(store, Config(), {}, store.db.clock)) as browser:
        assert browser.get("/sign-in/oidc").status_code == 404
        assert 'data-testid="oidc"' not in browser.get("/sign-in").text
