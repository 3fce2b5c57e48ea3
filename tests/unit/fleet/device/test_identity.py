"""Who the box is to its fleet: read whole or not at all, renewed without a moment between two keys."""

from __future__ import annotations

import shutil

import pytest
from fleet_link_kit import DEVICE, Authority, enrol

from appliance.errors import ConfigError
from appliance.fleet.device.identity import Identity, NotEnrolledError, Trust, days_left, save_trust
from appliance.fleet.keys import DeviceKey, KeyFault, public_of
from engines import signing


@pytest.mark.req("R-FLEET-09")
def test_what_was_written_is_read_and_nobody_else_can_read_the_key(identity, server_key, clock):
    again = Identity.load(identity.folder)
    assert again.address == identity.address
    assert again.online == (signing.PublicKey("online-1", server_key.public.raw),)
    assert again.release == ()
    assert identity.key_path.stat().st_mode & 0o077 == 0
    assert days_left(again, again.ends_at) == 0
    assert not again.is_stale()
    assert not again.is_on_trial


@pytest.mark.req("R-FLEET-09")
def test_a_box_that_is_not_enrolled_is_told_how_to_be(tmp_path):
    with pytest.raises(NotEnrolledError, match="scanside fleet enrol"):
        Identity.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("identity.json", b"{", "JSON"),
        ("identity.json", b'{"tenant": "x"}', "tenant"),
        ("trust.json", b'{"online": []}', "online"),
        ("trust.json", b'{"online": ["no key"]}', "no public key"),
        ("device.key", b"no key", "no private key"),
        ("device.crt", b"no certificate", "no certificate"),
        ("device.crt", None, "cannot be read"),
        ("trust.json", None, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_how_to_mend_it(identity, name, content, words):
    path = identity.folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises((ConfigError, KeyFault), match=words):
        Identity.load(identity.folder)


def test_a_certificate_of_another_key_is_refused_on_disk_and_when_it_comes(identity, authority):
    foreign = authority.certify(DeviceKey.generate().csr(DEVICE))
    with pytest.raises(KeyFault, match="not of the key"):
        identity.renew(DeviceKey.generate(), foreign)
    with pytest.raises(KeyFault, match="not of the key"):
        Identity.save(
            identity.folder, identity.enrolment, identity.trust, key=identity.key, chain=foreign, ca=authority.pem
        )
    assert Identity.load(identity.folder).key.fits(public_of(identity.certificate_path.read_bytes()))
    identity.certificate_path.write_bytes(foreign)
    with pytest.raises(KeyFault, match="another key"):
        Identity.load(identity.folder)


@pytest.mark.req("R-FLEET-09")
def test_a_renewal_is_on_trial_until_it_is_proven_or_taken_back(identity, authority):
    old = identity.certificate_path.read_bytes()
    fresh = DeviceKey.generate()
    new = authority.certify(fresh.csr(DEVICE))
    identity.renew(fresh, new)
    assert identity.is_stale()
    trial = Identity.load(identity.folder)
    assert trial.certificate_path.read_bytes() == new
    assert trial.is_on_trial
    assert trial.fall_back()
    back = Identity.load(identity.folder)
    assert back.certificate_path.read_bytes() == old
    assert not back.is_on_trial
    assert not back.fall_back()
    back.renew(fresh, new)
    trial = Identity.load(identity.folder)
    trial.prove()
    assert not trial.is_on_trial
    assert Identity.load(identity.folder).certificate_path.read_bytes() == new


@pytest.mark.req("R-FLEET-09")
def test_a_renewal_before_the_last_one_is_proven_goes_back_to_what_a_broker_took(identity, authority):
    old = identity.certificate_path.read_bytes()
    for _ in range(2):
        fresh = DeviceKey.generate()
        Identity.load(identity.folder).renew(fresh, authority.certify(fresh.csr(DEVICE)))
    trial = Identity.load(identity.folder)
    assert trial.fall_back()
    assert Identity.load(identity.folder).certificate_path.read_bytes() == old


@pytest.mark.req("R-FLEET-09")
def test_a_swap_that_was_cut_off_anywhere_is_ended_at_the_next_start(identity, authority, tmp_path):
    fresh = DeviceKey.generate()
    chain = authority.certify(fresh.csr(DEVICE))
    identity.renew(fresh, chain)
    for moved in ((), ("device.key",), ("device.key", "device.crt")):
        folder = tmp_path / f"cut-{len(moved)}"
        shutil.copytree(identity.folder, folder)
        for name in moved:
            (folder / "next" / name).replace(folder / name)
        found = Identity.load(folder)
        assert found.certificate_path.read_bytes() == chain
        assert not (folder / "next").exists()
        assert found.fall_back()
        assert Identity.load(folder).key.fits(public_of(found.certificate_path.read_bytes()))


def test_a_half_written_renewal_changes_nothing(identity):
    (identity.folder / "next.part").mkdir()
    (identity.folder / "next.part" / "device.key").write_bytes(b"half")
    assert not identity.is_stale()
    assert Identity.load(identity.folder).key.fits(public_of(identity.certificate_path.read_bytes()))


def test_enrolment_anew_begins_with_a_box_that_is_not_enrolled_and_ends_with_another(identity, server_key):
    other = enrol(identity.folder, Authority(), server_key, device="box-00000009")
    assert other.enrolment.device == "box-00000009"
    assert identity.is_stale()


def test_new_keys_of_the_server_are_seen(identity):
    online, release = signing.generate("a"), signing.generate("b")
    trust = Trust(online=(online.public.pem(),), release=(release.public.pem(),))
    save_trust(identity.folder, trust)
    assert identity.is_stale()
    assert [key.raw for key in Identity.load(identity.folder).release] == [release.public.raw]
