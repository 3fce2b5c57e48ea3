"""The box's side of enrolment and renewal: whom it believes, what lies on disk, and that a kill leaves an identity."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import random
import shutil

import pytest
from cryptography import x509
from fleet_link_kit import BROKERS, DEVICE, Authority, enrol_with
from forked_death import in_child, killed_at

from appliance.clock import FakeClock
from appliance.errors import ConfigError, ConflictError, TransientError
from appliance.fleet import keys
from appliance.fleet.device import enrolment, identity
from appliance.fleet.device.enrolment import EnrolError, RenewStage, renew_at, serial_number
from appliance.fleet.device.identity import Identity
from appliance.fleet.keys import DeviceKey, public_of
from engines import durable, signing

pytestmark = pytest.mark.req("R-FLEET-22")

GOOD = "box-aaaaaaaaaaaaaaaa." + "x" * 32 + "." + "0" * 64
WATCHED = {module.__file__ for module in (identity, keys, durable)}


@pytest.fixture
def box(tmp_path, authority, server_key):
    """An enrolled box, as the folder of its identity."""
    key = DeviceKey.generate()
    return enrol_with(tmp_path / "fleet", key, authority.certify(key.csr(DEVICE)), authority.pem, server_key, BROKERS)


@pytest.fixture
def server(monkeypatch, authority):
    """Answers renewals; ``asked`` = the addresses that were."""

    class Answers:
        def __init__(self):
            self.asked, self.failing, self.refusing = [], False, False

        def post(self, path, body, signature=""):
            self.asked.append(path)
            if self.failing:
                raise TransientError("away")
            if self.refusing:
                raise EnrolError("no")
            if path == "/v1/present":
                return {"known": True}
            return {"chain": authority.certify(json.loads(body)["csr"].encode()).decode()}

        @property
        def renewals(self):
            return self.asked.count("/v1/renew")

    answers = Answers()
    monkeypatch.setattr(enrolment.Server, "post", answers.post)
    return answers


def certificate(found):
    return x509.load_pem_x509_certificate(found.certificate_path.read_bytes())


def stage(box, clock, **more):
    return RenewStage(box.folder, clock, rng=random.Random(3), **more)


# In time -------------------------------------------------------------------------------------------------------------


def test_a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_all_at_one_moment(authority):
    moments = set()
    for _ in range(20):
        found = x509.load_pem_x509_certificate(authority.certify(DeviceKey.generate().csr(DEVICE)))
        life = found.not_valid_after_utc - found.not_valid_before_utc
        share = (renew_at(found) - found.not_valid_before_utc) / life
        assert 2 / 3 <= share <= 2 / 3 + 0.05
        assert renew_at(found) == renew_at(found)  # a restart draws no other moment
        moments.add(share)
    assert len(moments) > 10


def test_the_stage_renews_when_it_is_time_and_once(box, server):
    clock = FakeClock(renew_at(certificate(box)) - dt.timedelta(seconds=1))
    renewed = []
    one = stage(box, clock, renewed=lambda: renewed.append(1))
    one.step()
    assert server.renewals == 0
    clock.advance(2)
    one.step()
    assert (server.renewals, renewed) == (1, [1])
    one.step()  # the link has not looked yet
    found = Identity.load(box.folder)
    assert found.is_on_trial
    clock.advance(86_400)
    one.step()  # no second trial before the first has ended
    assert server.renewals == 1
    found.prove()
    one.ask()  # a job says so
    one.step()
    assert server.renewals == 2


def test_a_server_that_is_away_is_asked_again_less_and_less_often(box, server):
    clock = FakeClock(renew_at(certificate(box)))
    one = stage(box, clock)
    server.failing = True
    for _ in range(48 * 60):
        clock.advance(60)
        try:
            one.step()
        except TransientError:
            continue
    tries = server.renewals / 3  # each is three requests
    assert 5 <= tries <= 25
    server.failing = False
    clock.advance(7 * 3600)
    one.step()
    assert Identity.load(box.folder).is_on_trial


def test_the_certificate_is_shown_to_the_server_soon_and_then_every_six_hours(box, server):
    clock = FakeClock(certificate(box).not_valid_before_utc)
    one = stage(box, clock)
    for _ in range(24 * 60):
        clock.advance(60)
        one.step()
    assert 4 <= server.asked.count("/v1/present") <= 6
    assert server.renewals == 0


def test_a_box_that_is_in_no_fleet_asks_nobody(tmp_path, server):
    one = RenewStage(tmp_path / "none", FakeClock())
    one.ask()
    assert one.step() is False
    assert server.asked == []


# Killed --------------------------------------------------------------------------------------------------------------


def test_a_renewal_killed_at_any_line_leaves_an_identity_that_works(box, authority, scale):
    """The new pair, its taking into use, its proof: after kill -9 before each line the box has a key and its chain."""
    old = certificate(box)
    new = DeviceKey.generate()
    chain = authority.certify(new.csr(DEVICE))

    def deed():
        Identity.load(box.folder).renew(new, chain)
        Identity.load(box.folder).prove()

    assert ended_well(box.folder, deed, [old.public_key(), public_of(chain)], scale) > 100
    assert Identity.load(box.folder).key.fits(public_of(chain))


def test_going_back_to_the_old_pair_killed_at_any_line_leaves_one_that_works(box, authority, scale):
    old, new = certificate(box), DeviceKey.generate()
    chain = authority.certify(new.csr(DEVICE))

    def deed():
        Identity.load(box.folder).renew(new, chain)
        Identity.load(box.folder).fall_back()
        Identity.load(box.folder)

    assert ended_well(box.folder, deed, [old.public_key(), public_of(chain)], scale) > 100
    assert Identity.load(box.folder).key.fits(old.public_key())


def ended_well(folder, deed, publics, scale):
    """Kill ``deed``, begun anew each time, before every third line or some; returns how many lines it has."""
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    line = 1
    while in_child(functools.partial(killed_at, line, WATCHED, deed)):
        found = Identity.load(folder)
        assert any(found.key.fits(public) for public in publics), line
        assert found.key.fits(public_of(found.certificate_path.read_bytes())), line
        assert not found.is_on_trial or Identity.load(folder).fall_back()
        assert Identity.load(folder).key.fits(publics[0]) or not found.is_on_trial, line
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        line += 3 if scale == 1 else 7
    return line


def test_an_enrolment_killed_at_any_line_is_whole_or_none(tmp_path, authority, server_key, scale):
    key = DeviceKey.generate()
    chain = authority.certify(key.csr(DEVICE))
    folder = tmp_path / "fleet"

    def deed():
        enrol_with(folder, key, chain, authority.pem, server_key, BROKERS)

    line = 1
    while in_child(functools.partial(killed_at, line, WATCHED, deed)):
        if (folder / "identity.json").exists():
            assert Identity.load(folder).key.fits(public_of(chain)), line
        line += 5 if scale == 1 else 9
    assert line > 50


# Whom it believes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", GOOD[:-1], GOOD.upper(), GOOD.replace(".", ":")])
def test_a_token_that_was_cut_off_is_said_to_be_so_before_anybody_is_asked(tmp_path, token):
    with pytest.raises(ConfigError, match="copy all of it"):
        enrolment.enrol(tmp_path, "https://127.0.0.1:9", token, serial="1")


@pytest.mark.parametrize("url", ["http://fleet.example.org", "fleet.example.org", "https://user@fleet.example.org"])
def test_an_address_that_is_not_https_is_refused(tmp_path, url):
    with pytest.raises(ConfigError, match="as https://"):
        enrolment.enrol(tmp_path, url, GOOD, serial="1")


def test_a_box_in_a_fleet_does_not_enter_another(box):
    with pytest.raises(ConflictError, match="leave"):
        enrolment.enrol(box.folder, "https://127.0.0.1:9", GOOD, serial="1")


def test_nobody_there_is_passing_and_leaves_nothing(tmp_path):
    with pytest.raises(TransientError, match="does not answer"):
        enrolment.enrol(tmp_path / "fleet", "https://127.0.0.1:9", GOOD, serial="1")
    assert not (tmp_path / "fleet").exists()


def test_the_serial_number_is_the_first_that_a_maker_wrote(tmp_path):
    texts = {"none": "None\n", "filled": "To Be Filled By O.E.M.\n", "own": "J1234-ABC\0\n", "later": "other"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = tuple(str(tmp_path / name) for name in ("missing", *texts))
    assert serial_number(paths) == "J1234-ABC"
    with pytest.raises(ConfigError, match="--serial"):
        serial_number(paths[:2])


def test_a_chain_for_another_key_is_taken_by_nobody(box, server, authority, monkeypatch):
    other = Authority()
    monkeypatch.setattr(
        enrolment.Server, "post", lambda *_: {"chain": other.certify(DeviceKey.generate().csr(DEVICE)).decode()}
    )
    with pytest.raises(keys.KeyFault):
        enrolment.renew(box)
    assert not (box.folder / "next").exists()
    assert signing.load_public(box.trust.online[0])


@pytest.mark.fault("T35")
@pytest.mark.req("R-FLEET-22")
@pytest.mark.parametrize("to", ["1970-01-02", "2038-01-19"])
def test_a_clock_that_jumps_to_another_age_and_back_costs_the_box_no_certificate(box, server, to):
    """In 2038 every certificate is long over: it asks, and goes on with what it has. In 1970 nothing is due."""
    begin = certificate(box).not_valid_before_utc
    clock = FakeClock(begin + dt.timedelta(days=1))
    one = stage(box, clock)
    one.step()
    before = {path.name: path.read_bytes() for path in box.folder.iterdir() if path.is_file()}
    away = (dt.datetime.fromisoformat(f"{to}T00:00+00:00") - clock.now()).total_seconds()
    server.failing = True  # a server that knows the time gives none for that age
    clock.jump(away)
    tries = server.renewals
    for _ in range(24 * 60):
        clock.advance(60)
        with contextlib.suppress(TransientError):
            one.step()
    asked = (server.renewals - tries) / 3
    assert (0 < asked <= 12) if to.startswith("2038") else asked == 0
    clock.jump(-away)
    server.failing = False
    for _ in range(24 * 60):
        clock.advance(60)
        one.step()
    assert {path.name: path.read_bytes() for path in box.folder.iterdir() if path.is_file()} == before
    found = Identity.load(box.folder)
    assert not found.is_on_trial
