"""The web server under attack: refused, told to the journal, and nothing of the box's state in the answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings

import pytest
import yaml
from box_kit import Box
from tls_kit import Authority
from web_kit import Browser, served, session

from appliance.clock import FakeClock
from appliance.config import Config, load_config
from appliance.daemon import Daemon
from appliance.errors import ConfigError
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.web.passwords import Passwords
from appliance.web.tls import server_context

GOOD = "staple battery horse"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("box", names=("localhost", "ct.example"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = Store.open(tmp_path_factory.mktemp("state"), FakeClock(), reserve_bytes=0)
    opened.accounts.add("ada", "Ada", UserRole.ADMINISTRATOR, None, SYSTEM)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def make_app(store, pair):
    """``make_app(...)``: the application of a box with TLS; keywords go into ``screen``."""

    def make(**screen):
        tls = {"certificate_path": pair.certificate, "key_path": pair.key}
        return screen_app(store, Config.model_validate({"screen": {"tls": tls} | screen}), {}, store.db.clock)

    return make


@pytest.fixture(scope="module")
def address(make_app, pair):
    with served(make_app(), server_context(pair.certificate, pair.key)) as found:
        yield found


@pytest.fixture(scope="module")
def trusting(authority):
    """What a browser that knows the hospital's CA checks with."""
    return ssl.create_default_context(cafile=authority.path)


@pytest.fixture
def browser(address, trusting, store):
    """``browser()``: a new one. Whatever was tried in an earlier test is forgotten."""
    store.db.clock.advance(2 * 3600)
    opened = []

    def make(**more):
        opened.append(Browser(address, verify=trusting, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def kept():
    return Passwords().hashed(GOOD)


@pytest.fixture
def theo(store, kept):
    """The name of a new technologist with the good password."""
    name = f"theo{len(store.accounts.all())}"
    store.accounts.add(name, f"The {name}", UserRole.TECHNOLOGIST, kept, SYSTEM)
    return name


@pytest.fixture
def technologist(browser, theo):
    """A browser in which they are signed in."""
    someone = browser()
    assert someone.sign_in(theo, GOOD).status_code == 303
    return someone


def handshake(address, context):
    """Version and suite that a client and the server agree on."""
    plain = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 60)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        return connection.version(), connection.cipher()[0]


def careless(ciphers="", newest=None):
    """A client that trusts everybody, and offers old things where it is told to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ciphers:
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = newest or ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.fault("T43")
def test_an_old_protocol_or_a_weak_suite_is_refused(address):
    for ciphers, newest in (
        ("ALL", ssl.TLSVersion.TLSv1),
        ("ALL", ssl.TLSVersion.TLSv1_1),
        ("AES256-SHA:AES128-SHA:AES128-GCM-SHA256", None),
        ("ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA:DHE-RSA-AES256-SHA256", None),
        ("aNULL:eNULL", None),
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(address, careless(ciphers, newest))
    assert handshake(address, careless("ECDHE+AESGCM"))[0] == "TLSv1.2"
    assert handshake(address, careless())[0] == "TLSv1.3"


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.fault("T43")
def test_whatever_a_client_offers_the_suites_of_the_box_have_forward_secrecy_and_authenticated_encryption(pair):
    suites = [suite["name"] for suite in server_context(pair.certificate, pair.key).get_ciphers()]
    assert suites
    for name in suites:
        assert name.startswith(("TLS_", "ECDHE-", "DHE-")), name
        assert "GCM" in name or "POLY1305" in name, name
        assert not any(weak in name for weak in ("RC4", "NULL", "EXP", "DES", "MD5", "anon", "ADH")), name


@pytest.fixture(scope="module")
def shown_by(make_app, authority, tmp_path_factory):
    """``shown_by(fault)``: the address of the box's pages under such a certificate."""
    self_signed = Authority(tmp_path_factory.mktemp("self"), "localhost", number=2)
    pairs = {
        "good": lambda: authority.issue("box", names=("localhost",)),
        "expired": lambda: authority.issue("box", days=(-9, -2), tag="-expired"),
        "not yet valid": lambda: authority.issue("box", days=(2, 9), tag="-future"),
        "of another name": lambda: authority.issue("box", names=("ct.example",), addresses=(), tag="-name"),
        "self-signed": lambda: self_signed.issue("localhost"),
        "of another CA": lambda: Authority(tmp_path_factory.mktemp("ca2"), "hospital", number=1).issue("box"),
    }

    @contextlib.contextmanager
    def serve(fault):
        found = pairs[fault]()
        with served(make_app(), server_context(found.certificate, found.key)) as address:
            yield address

    return serve


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.fault("T43")
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("of another name", "Hostname mismatch|IP address mismatch|doesn't match"),
        ("self-signed", "self-signed certificate|unable to get local issuer"),
        ("of another CA", "signature failure|unable to get local issuer|certificate verify failed"),
    ],
)
def test_a_browser_refuses_a_certificate_that_is(shown_by, trusting, fault, why):
    with shown_by(fault) as address:
        with pytest.raises(ssl.SSLCertVerificationError, match=why):
            handshake(address, trusting)
        # The box goes on serving: whoever looks past the warning of their browser still sees alerts.
        with Browser(address, verify=False) as browser:
            assert browser.get("/sign-in").status_code == 200


@pytest.mark.req("R-FAULT-T43", "R-ADMIN-02")
@pytest.mark.fault("T43")
@pytest.mark.parametrize(("days", "code"), [((-9, -2), "CERTIFICATE_INVALID"), ((-9, 9), "CERTIFICATE_ENDS")])
def test_a_box_whose_own_certificate_is_over_or_ends_soon_starts_serves_and_says_so(tmp_path, authority, days, code):
    """What is shown was read at the start, and so is what is said: a new file changes neither before a restart."""
    pair = authority.issue("box", days=days, tag=f"-{code}")
    tls = {"certificate_path": pair.certificate, "key_path": pair.key}
    document = {"state_path": tmp_path / "state", "dicom": {"port": 0}, "screen": {"port": 0, "tls": tls}}
    with Box(Config.model_validate(document)) as box:
        box.wait(lambda: [one for one in box.store.issues.open() if one.subject == "screen.tls"], "issue")
        assert [one.code for one in box.store.issues.open()] == [code]
        address = f"https://127.0.0.1:{box.daemon.screen_port}"
        with Browser(address, session(box.store, "service"), verify=False) as keeper:
            page = keeper.get("/health").text
    assert code in page
    assert "it holds from" in page


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.fault("T43")
def test_plain_http_on_the_port_of_tls_gets_no_page_and_harms_nobody(address, browser):
    port = int(address.rpartition(":")[2])
    for said in (b"GET /sign-in HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 4096, b"\x16\x03\x01\xff\xff", b""):
        with socket.create_connection(("127.0.0.1", port), 60) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in connection.recv(4096)
    assert browser().get("/sign-in").status_code == 200


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.fault("T43")
def test_a_box_that_others_reach_does_not_start_without_tls_or_with_a_key_that_does_not_fit(tmp_path, pair, authority):
    path = tmp_path / "box.yaml"
    path.write_text(yaml.safe_dump({"state_path": str(tmp_path), "screen": {"host": "0.0.0.0"}}), "utf-8")  # noqa: S104
    with pytest.raises(ConfigError, match=r"screen\.tls"):
        load_config(path, None)
    another = authority.issue("another", key=11)
    tls = {"certificate_path": pair.certificate, "key_path": another.key}
    document = {"state_path": tmp_path / "state", "dicom": {"port": 0}, "screen": {"port": 0, "tls": tls}}
    with pytest.raises(ConfigError, match=r"screen\.tls"):
        Daemon(Config.model_validate(document))


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_over_tls_cookies_never_leave_it_and_browsers_never_ask_without_it_again(technologist, theo):
    answer = technologist.get("/account")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    with Browser(technologist.address, verify=False) as fresh:
        cookies = [value.lower() for value in fresh.get("/sign-in").headers.get_list("set-cookie")]
        cookies += [value.lower() for value in fresh.sign_in(theo, GOOD).headers.get_list("set-cookie")]
    assert len(cookies) == 2
    for cookie in cookies:
        assert cookie.startswith("__host-scanside_")
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
        assert "domain" not in cookie


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_a_form_of_another_page_or_without_the_token_does_nothing(technologist, store):
    for headers, csrf in (
        ({"Origin": "https://evil.example"}, None),
        ({"Origin": "null"}, None),
        ({"Origin": technologist.address.replace("https", "http")}, None),
        ({"Origin": ""}, None),
        ({}, "x" * 32),
        ({}, ""),
    ):
        fields = {} if csrf is None else {"csrf": csrf}
        assert technologist.form("/sign-out", headers, **fields).status_code == 403
    sent = technologist.post("/sign-out", json={}, headers={"Origin": technologist.address})
    assert sent.status_code == 403
    assert store.sessions.find(technologist.session)
    assert technologist.form("/sign-out").status_code == 303


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_nobody_is_led_to_another_server_by_an_address_of_ours(technologist, browser, theo):
    for target in (
        "//evil.example", "/\\evil.example", "https://evil.example", "\\\\evil.example", "/\t/evil.example",
        "javascript:alert(1)", "", " /x", "/\r\nSet-Cookie: a=b", "\x00/",
    ):  # fmt: skip
        for answer in (
            technologist.get("/sign-in", params={"next": target}),
            technologist.get("/language", params={"next": target, "to": "en"}),
        ):
            assert (answer.status_code, answer.headers["location"]) == (303, "/"), target
            assert "a=b" not in str(answer.headers)
    assert browser().sign_in(theo, GOOD, next="//evil.example").headers["location"] == "/"


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_no_file_but_the_assets_is_served(technologist):
    build = technologist.get("/account").text.partition('data-build="')[2].partition('"')[0]
    assert technologist.get(f"/assets/{build}/base.css").status_code == 200
    for path in (
        "../guard.py", "..%2fguard.py", "%2e%2e/guard.py", "....//guard.py", "/etc/passwd", "%2fetc%2fpasswd",
        "vendor/../../guard.py", "base.css%00", "..\\guard.py", "",
    ):  # fmt: skip
        answer = technologist.get(f"/assets/{build}/{path}")
        assert answer.status_code == 404, path
        assert "import" not in answer.text
    assert technologist.get("/assets/000000000000/base.css").status_code == 404


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_another_name_for_our_address_gets_nothing(technologist, theo):
    assert theo in technologist.get("/account").text
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::2]"):
        answer = technologist.get("/account", headers={"Host": host})
        assert answer.status_code in {400, 421}, host
        assert theo not in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_only_pages_that_the_site_names_may_show_ours_in_a_frame(address, browser, make_app):
    shut = browser().get("/sign-in").headers
    assert "frame-ancestors 'none'" in shut["content-security-policy"]
    assert shut["x-frame-options"] == "DENY"
    with Browser(make_app(frames=["https://console.example"])) as inside:
        headers = inside.get("/sign-in").headers
    assert headers["content-security-policy"].endswith("frame-ancestors https://console.example")
    assert "x-frame-options" not in headers
    with pytest.raises(ValueError, match="frames"):
        make_app(frames=["*"])
    with pytest.raises(ValueError, match="frames"):
        make_app(frames=["https://a.example; script-src *"])


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-06")
@pytest.mark.fault("T42")
def test_passwords_are_not_found_by_trying_and_the_owner_still_comes_in(technologist, browser, store, theo):
    attacker, before = browser(), store.journal.last_seq()
    statuses = [attacker.sign_in(theo, f"guess {n}").status_code for n in range(30)]
    assert statuses[:4] == [401] * 4
    assert set(statuses[-20:]) == {429}
    assert len(store.journal.after(before, 100, (Kind.SIGN_IN_FAILED,))) == 1
    assert technologist.get("/alert").status_code == 200
    store.db.clock.advance(901)
    assert browser().sign_in(theo, GOOD).status_code == 303


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-02")
@pytest.mark.fault("T42")
def test_a_cookie_that_somebody_planted_or_kept_opens_nothing(technologist, browser, store, theo):
    planted = browser(cookie="p" * 43)
    assert planted.get("/alert").status_code == 303
    answer = planted.sign_in(theo, GOOD)
    assert "p" * 43 not in str(answer.headers)
    assert store.sessions.find("p" * 43) is None
    kept = technologist.session
    technologist.form("/sign-out")
    with Browser(technologist.address, kept, verify=False) as thief:
        assert thief.get("/alert").status_code == 303


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-02")
@pytest.mark.fault("T42")
def test_the_cookie_of_a_switched_off_account_opens_nothing(technologist, store, theo):
    store.accounts.set_active(store.accounts.by_name(theo)[0].id, SYSTEM, active=False)
    assert technologist.get("/alert").status_code == 303
    assert technologist.get("/alert", headers={"Accept": "*/*"}).status_code == 401


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_there_is_no_websocket_to_hijack_no_stream_for_other_pages_and_no_method_but_three(technologist):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://evil.example",
    }
    for path in ("/events", "/events/page", "/account", "/"):
        with technologist.stream("GET", path, headers=upgrade) as answer:
            assert answer.status_code in {200, 303}, path
            assert "upgrade" not in answer.headers
            # A page of elsewhere may ask, but its browser sends no strict cookie and lets it read nothing.
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"):
        assert technologist.request(method, "/account").status_code in {400, 405}


@pytest.mark.req("R-FAULT-T42", "R-ACCESS-07")
@pytest.mark.fault("T42")
def test_a_body_without_end_is_cut(technologist):
    big = {"csrf": technologist.cookies[technologist.csrf_name], "name": "x" * 1_000_000}
    answer = technologist.post("/sign-in", data=big, headers={"Origin": technologist.address})
    assert answer.status_code in {403, 413}
