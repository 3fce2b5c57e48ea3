"""Tokens, enrolment, renewal, and what a restored server still knows; each on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading

import httpx
import pytest
from cryptography import x509
from fleet_kit import HOSPITAL, PLATFORM, SITE, add_tree
from sqlalchemy import select

from appliance.clock import FakeClock
from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.device import enrolment
from appliance.fleet.device.enrolment import PRESENT, RENEW
from appliance.fleet.device.identity import Broker
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import enrol as server_side
from appliance.fleet.server import registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.ca import AuthorityDown, DevCa, RequestFault
from appliance.fleet.server.config import EnrolConfig
from appliance.fleet.server.db import read, write
from appliance.fleet.server.door import SIGNATURE, Door, device_app
from appliance.fleet.server.enrol import Enrolment, Refused, Welcome, lineage
from appliance.fleet.server.server_keys import add_key
from appliance.fleet.server.tokens import make_token
from appliance.web.pool import Pool
from engines.signing import generate

pytestmark = pytest.mark.req("R-FLEET-21")

EVERYTHING = registry.Scope.everything()
DAY = dt.timedelta(days=1)
SERIAL = "SN-0001"


class Service:
    """A server's side of enrolment, and a person who makes tokens."""

    def __init__(self, engine, folder):
        self.engine = engine
        # Certificates hold by the real clock; the server's own moves by hand from there.
        self.clock = FakeClock(dt.datetime.now(dt.timezone.utc))
        self.ca = DevCa.open(folder)
        self.welcome = Welcome("https://localhost:8443", (Broker(host="localhost", port=8883),))
        self.enrolment = Enrolment(engine, self.ca, self.clock, lambda: self.welcome, EnrolConfig())
        with write(engine) as connection:
            add_tree(connection)
            add_key(connection, generate("server").public, "online", "server", now=self.clock.now())

    def token(self, serial=SERIAL, **more):
        with write(self.engine) as connection:
            given = {"serial": serial, "site": SITE, "root": self.ca.root(), "now": self.clock.now(), "minutes": 15}
            return make_token(connection, EVERYTHING, **{**given, **more})

    def enrol(self, token, key=None, *, serial=SERIAL, device=None):
        key = key or DeviceKey.generate()
        body = {"token": token.text, "serial": serial, "csr": key.csr(device or token.device).decode()}
        return self.enrolment.enrol(json.dumps(body).encode())

    def box(self, serial=SERIAL, **more):
        """A box that has enrolled: its id, its key, its chain."""
        token, key = self.token(serial, **more), DeviceKey.generate()
        return token.device, key, self.enrol(token, key, serial=serial)["chain"]

    def renew(self, device, key, new, *, signer=None):
        body = json.dumps({"device": device, "csr": new.csr(device).decode()}).encode()
        return self.enrolment.renew(body, (signer or key).sign(RENEW, body))

    def present(self, device, key, chain):
        body = json.dumps({"device": device, "chain": chain}).encode()
        return self.enrolment.present(body, key.sign(PRESENT, body))

    def rows(self, table, *where):
        with read(self.engine) as connection:
            return list(connection.execute(select(table).where(*where)))


@pytest.fixture
def service(engine, tmp_path):
    return Service(engine, tmp_path / "ca")


def test_the_box_and_the_server_sign_for_the_same_things():
    assert (server_side.RENEW, server_side.PRESENT, SIGNATURE) == (RENEW, PRESENT, enrolment.SIGNATURE)


def test_a_machine_with_its_token_becomes_the_device_that_the_token_says(service):
    token, key = service.token(), DeviceKey.generate()
    told = service.enrol(token, key)
    assert (told["device"], told["tenant"]) == (token.device, HOSPITAL)
    assert told["brokers"][0]["host"] == "localhost"
    assert told["trust"]["online"]
    (row,) = service.rows(t.device)
    assert (row.id, row.serial, row.site, row.state) == (token.device, SERIAL, SITE, "enrolled")
    assert key.fits(x509.load_pem_x509_certificate(told["chain"].encode()).public_key())
    assert [row.act for row in service.rows(t.audit)] == ["token.make", "device.enrol"]


def test_the_database_holds_no_token_only_its_digest(service):
    secret = service.token().text.split(".")[1]
    told = json.dumps(
        [[str(value) for value in row] for table in t.METADATA.sorted_tables for row in service.rows(table)]
    )
    assert secret not in told


def test_a_token_counts_once(service):
    token = service.token()
    service.enrol(token)
    with pytest.raises(Refused, match="has been used"):
        service.enrol(token)
    assert len(service.rows(t.device)) == len(service.rows(t.certificate)) == 1


def test_two_machines_with_one_token_at_the_same_moment_are_one_device(service):
    token, gate, ended = service.token(), threading.Barrier(4), []

    def one():
        gate.wait()
        try:
            ended.append(service.enrol(token)["device"])
        except Refused:
            ended.append(None)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended, key=str) == [None, None, None, token.device]
    assert len(service.rows(t.certificate)) == 1


def test_the_answer_that_got_lost_is_given_again_to_the_same_key(service):
    token, key = service.token(), DeviceKey.generate()
    first = service.enrol(token, key)
    assert service.enrol(token, key) == first
    assert len(service.rows(t.certificate)) == 1


def test_a_token_ends_after_15_minutes(service):
    token, late = service.token(), service.token()
    service.clock.advance(15 * 60 - 1)
    service.enrol(token)
    service.clock.advance(1)
    with pytest.raises(Refused, match="expired"):
        service.enrol(late)


def test_a_token_is_for_one_machine(service):
    token = service.token()
    with pytest.raises(Refused, match="another machine"):
        service.enrol(token, serial="SN-0002")
    service.enrol(token)  # it holds still for the right one


@pytest.mark.parametrize("broken", ["", "box-aaaaaaaaaaaaaaaa.x.y", "{0}x", "box-aaaaaaaaaaaaaaaa{1}"])
def test_a_token_that_nobody_made_opens_nothing(service, broken):
    token = service.token()
    text = broken.format(token.text, token.text.removeprefix(token.device))
    body = {"token": text, "serial": SERIAL, "csr": DeviceKey.generate().csr(token.device).decode()}
    with pytest.raises(Refused, match="no such token"):
        service.enrolment.enrol(json.dumps(body).encode())


def test_nobody_enrols_as_another_box(service):
    device, _, _ = service.box()
    token = service.token("SN-0002")
    with pytest.raises(RequestFault, match="does not name"):
        service.enrol(token, serial="SN-0002", device=device)
    service.enrol(token, serial="SN-0002")  # and the token was not used up by it


def test_where_the_ca_is_away_the_token_still_holds(service):
    token, issue = service.token(), service.ca.issue

    def away(*_):
        raise AuthorityDown("away")

    service.ca.issue = away
    with pytest.raises(AuthorityDown):
        service.enrol(token)
    service.ca.issue = issue
    assert service.enrol(token)["device"] == token.device


def test_a_token_is_made_for_a_site_that_one_may_see_and_a_serial_number_that_is_one(service):
    with write(service.engine) as connection:
        registry.add_tenant(
            connection, "hospital-02", "Other", registry.TenantKind.HOSPITAL, parent=PLATFORM, now=service.clock.now()
        )
        theirs = registry.Scope.of(connection, "hospital-02")
        given = {"root": service.ca.root(), "now": service.clock.now(), "minutes": 15, "site": SITE}
        with pytest.raises(NotFoundError):
            make_token(connection, theirs, serial=SERIAL, **given)
        with pytest.raises(ConflictError):
            make_token(connection, EVERYTHING, serial="a b\n", **given)


# Replacing -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-25")
def test_the_history_of_a_replaced_box_stays_with_the_one_in_its_place(service):
    first, _, _ = service.box()
    second, _, _ = service.box("SN-0002", replaces=first)
    third, _, _ = service.box("SN-0003")
    with write(service.engine) as connection:
        registry.replace_device(connection, EVERYTHING, second, third, now=service.clock.now())
        assert lineage(connection, EVERYTHING, third) == [third, second, first]
        assert lineage(connection, EVERYTHING, first) == [first]
    states = {row.id: (row.state, row.replaced_by) for row in service.rows(t.device)}
    assert states[first] == ("replaced", second)
    assert [row.state for row in service.rows(t.certificate, t.certificate.c.device == first)] == ["revoked"]


@pytest.mark.req("R-FLEET-25")
def test_a_machine_whose_place_somebody_else_took_meanwhile_is_told_so_and_is_no_device(service):
    first, _, _ = service.box()
    token = service.token("SN-0002", replaces=first)
    other, _, _ = service.box("SN-0003")
    with write(service.engine) as connection:
        registry.replace_device(connection, EVERYTHING, first, other, now=service.clock.now())
    with pytest.raises(Refused, match=r"was replaced by .* have another token made") as refused:
        service.enrol(token, serial="SN-0002")
    assert refused.value.status == 409
    assert token.device not in {row.id for row in service.rows(t.device)}


# Renewing ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-22")
def test_a_renewal_is_signed_by_the_present_key_and_brings_a_certificate_of_the_new_one(service):
    device, key, _ = service.box()
    new = DeviceKey.generate()
    told = service.renew(device, key, new)
    assert new.fits(x509.load_pem_x509_certificate(told["chain"].encode()).public_key())
    assert service.renew(device, key, new) == told  # its answer got lost
    assert [row.state for row in service.rows(t.certificate)] == ["trial", "trial"]


@pytest.mark.req("R-FLEET-22")
def test_a_renewal_under_another_key_or_name_is_refused(service):
    device, key, _ = service.box()
    other, other_key, _ = service.box("SN-0002")
    with pytest.raises(Refused, match="signature"):
        service.renew(device, key, DeviceKey.generate(), signer=other_key)
    with pytest.raises(Refused, match="new key"):
        service.renew(device, key, key)
    with pytest.raises(Refused, match="not in the fleet"):
        service.renew("box-aaaaaaaaaaaaaaaa", key, DeviceKey.generate())
    body = json.dumps({"device": device, "csr": DeviceKey.generate().csr(other).decode()}).encode()
    with pytest.raises(RequestFault):
        service.enrolment.renew(body, key.sign(RENEW, body))
    with pytest.raises(Refused, match="signature"):  # made for something else
        service.enrolment.renew(body, key.sign(PRESENT, body))


@pytest.mark.req("R-FLEET-22")
def test_a_box_may_renew_until_30_days_after_the_end_and_not_later(service):
    device, key, _ = service.box()
    service.clock.jump((120 * DAY).total_seconds() - 60)
    service.renew(device, key, DeviceKey.generate())
    service.clock.jump(180)
    with pytest.raises(Refused, match="too long ago"):
        service.renew(device, key, DeviceKey.generate())


@pytest.mark.req("R-FLEET-22")
def test_a_disabled_box_renews_nothing_and_a_box_that_renews_on_and_on_is_stopped(service):
    device, key, _ = service.box()
    for _ in range(11):
        service.renew(device, key, DeviceKey.generate())
    with pytest.raises(Refused) as refused:
        service.renew(device, key, DeviceKey.generate())
    assert refused.value.status == 429
    with write(service.engine) as connection:
        registry.disable_device(connection, EVERYTHING, device, now=service.clock.now())
    with pytest.raises(Refused, match="not in the fleet"):
        service.renew(device, key, DeviceKey.generate())


@pytest.mark.req("R-FLEET-26")
def test_a_restored_server_knows_a_certificate_again_that_its_box_shows(service):
    device, key, _ = service.box()
    with read(service.engine) as connection:
        backup = [row._asdict() for row in connection.execute(select(t.certificate))]
    new = DeviceKey.generate()
    chain = service.renew(device, key, new)["chain"]
    assert service.present(device, new, chain) == {"known": True}
    with write(service.engine) as connection:
        connection.execute(t.certificate.delete())
        connection.execute(t.certificate.insert(), backup)
    assert service.present(device, new, chain) == {"known": False}
    assert service.present(device, new, chain) == {"known": True}
    states = {row.fingerprint: row.state for row in service.rows(t.certificate)}
    assert sorted(states.values()) == ["current", "trial"]


@pytest.mark.req("R-FLEET-26")
def test_what_is_shown_must_be_of_our_ca_of_this_box_and_not_revoked(service, tmp_path):
    device, key, chain = service.box()
    other, other_key, other_chain = service.box("SN-0002")
    stranger = Service.__new__(Service)
    stranger.ca = DevCa.open(tmp_path / "stranger")
    from appliance.fleet.server.ca import read_request

    forged_key = DeviceKey.generate()
    forged = stranger.ca.issue(read_request(forged_key.csr(device), device), device, 90).decode()
    for name, signer, shown in ((device, forged_key, forged), (device, key, other_chain), (device, other_key, chain)):
        with pytest.raises(Refused):
            service.present(name, signer, shown)
    with pytest.raises(Refused):
        service.present(other, key, chain)
    with write(service.engine) as connection:
        registry.revoke_certificates(connection, device, now=service.clock.now())
    with pytest.raises(Refused, match="does not hold"):
        service.present(device, key, chain)


# Over HTTP -----------------------------------------------------------------------------------------------------------


def asked(app, *calls):
    async def go():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://fleet.test") as client:
            return [await client.request(method, path, **more) for method, path, more in calls]

    return asyncio.run(go())


@pytest.fixture
def app(service):
    pool = Pool(2, "test-door")
    yield device_app(Door(service.enrolment, pool, service.clock).routes())
    pool.close()


def test_over_http_refusals_have_a_status_and_a_sentence(service, app):
    token, key = service.token(), DeviceKey.generate()
    good = json.dumps({"token": token.text, "serial": SERIAL, "csr": key.csr(token.device).decode()}).encode()
    calls = [
        ("POST", "/v1/enrol", {"content": good}),
        ("POST", "/v1/enrol", {"content": b"{"}),
        ("POST", "/v1/enrol", {"content": b"x" * 70_000}),
        ("POST", "/v1/renew", {"content": b'{"device":"x","csr":"y"}', "headers": {SIGNATURE: "!"}}),
        ("GET", "/v1/ca.crt", {}),
        ("GET", "/v1/enrol", {}),
        ("POST", "/v1/enrol/", {"content": good}),
    ]
    answers = asked(app, *calls)
    assert [answer.status_code for answer in answers] == [200, 422, 413, 403, 200, 405, 404]
    assert answers[4].content == service.ca.root()
    assert all("error" in answers[n].json() for n in (1, 2, 3))
    assert answers[0].headers["cache-control"] == "no-store"


def test_who_guesses_tokens_waits_and_nobody_else_does(service, app):
    wrong = json.dumps({"token": "x", "serial": "y", "csr": "z"}).encode()
    answers = asked(app, *[("POST", "/v1/enrol", {"content": wrong})] * 30)
    statuses = [answer.status_code for answer in answers]
    assert statuses[:20] == [403] * 20
    assert set(statuses[20:]) == {429}
    assert int(answers[-1].headers["retry-after"]) > 0
    service.clock.advance(3600)
    (answer,) = asked(app, ("POST", "/v1/enrol", {"content": wrong}))
    assert answer.status_code == 403


def test_where_the_ca_is_away_the_box_is_told_to_come_again(service, app):
    def away(*_):
        raise AuthorityDown("away")

    service.ca.issue = away
    token, key = service.token(), DeviceKey.generate()
    body = json.dumps({"token": token.text, "serial": SERIAL, "csr": key.csr(token.device).decode()}).encode()
    (answer,) = asked(app, ("POST", "/v1/enrol", {"content": body}))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
