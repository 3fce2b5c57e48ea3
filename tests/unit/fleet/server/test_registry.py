"""Who is in the fleet, who sees whom, and what was done."""

from __future__ import annotations

import datetime as dt

import pytest
from fleet_kit import DEALER, HOSPITAL, NOW, PLATFORM, SITE, VENDOR, PaperBox, add_box, add_tree
from sqlalchemy import insert, select

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.keys import KeyFault
from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import DeviceState, Scope, TenantKind

LATER = NOW + dt.timedelta(hours=1)


@pytest.fixture
def two_dealers(engine, ca):
    """A box in a hospital of each of two dealers of one vendor; returns them by hospital."""
    boxes = {HOSPITAL: PaperBox("box-0000001"), "hospital-02": PaperBox("box-0000002", tenant="hospital-02")}
    with db.write(engine) as connection:
        add_tree(connection)
        registry.add_tenant(connection, "dealer-0011", "Other", TenantKind.DEALER, parent=VENDOR, now=NOW)
        registry.add_tenant(connection, "hospital-02", "Two", TenantKind.HOSPITAL, parent="dealer-0011", now=NOW)
        registry.add_site(connection, "site-0002", "hospital-02", "Two", now=NOW)
        add_box(connection, boxes[HOSPITAL], ca)
        add_box(connection, boxes["hospital-02"], ca, site="site-0002")
    return boxes


@pytest.mark.req("R-FLEET-19")
def test_each_tenant_sees_its_own_boxes_and_those_below_and_no_others(engine, two_dealers):
    sees = {
        PLATFORM: {"box-0000001", "box-0000002"},
        VENDOR: {"box-0000001", "box-0000002"},
        DEALER: {"box-0000001"},
        HOSPITAL: {"box-0000001"},
        "dealer-0011": {"box-0000002"},
        "hospital-02": {"box-0000002"},
    }
    with db.read(engine) as connection:
        for tenant, expected in sees.items():
            scope = Scope.of(connection, tenant)
            held = connection.scalars(select(t.device.c.id).where(scope.holds(t.device.c.tenant)))
            assert set(held) == expected, tenant
            for device in ("box-0000001", "box-0000002"):
                if device in expected:
                    assert registry.find_device(connection, scope, device).id == device
                else:  # in the words of one that does not exist
                    with pytest.raises(NotFoundError, match=f"no device '{device}'"):
                        registry.find_device(connection, scope, device)
        with pytest.raises(NotFoundError):
            Scope.of(connection, "nobody-here")


@pytest.mark.req("R-FLEET-19")
def test_a_tenant_whose_id_begins_alike_is_another(engine):
    with db.write(engine) as connection:
        add_tree(connection)
        registry.add_tenant(connection, f"{HOSPITAL}-annex", "Annex", TenantKind.HOSPITAL, parent=DEALER, now=NOW)
        registry.add_site(connection, "site-annex", f"{HOSPITAL}-annex", "Annex", now=NOW)
        registry.add_device(connection, "box-0000009", "site-annex", "S", now=NOW)
        scope = Scope.of(connection, HOSPITAL)
        assert connection.scalars(select(t.device.c.id).where(scope.holds(t.device.c.tenant))).all() == []


def test_an_act_on_a_box_of_another_tenant_is_refused_and_changes_nothing(engine, two_dealers):
    with db.write(engine) as connection:
        scope = Scope.of(connection, "dealer-0011")
        for act in (
            lambda: registry.disable_device(connection, scope, "box-0000001", now=NOW),
            lambda: registry.enable_device(connection, scope, "box-0000001"),
            lambda: registry.replace_device(connection, scope, "box-0000001", "box-0000002", now=NOW),
            lambda: registry.replace_device(connection, scope, "box-0000002", "box-0000001", now=NOW),
        ):
            with pytest.raises(NotFoundError):
                act()
        assert set(connection.scalars(select(t.device.c.state))) == {"enrolled"}


@pytest.mark.parametrize(
    "ident", ["short", "UPPERCASE", "with+plus", "with#hash", "with/slash", "a" * 41, "", "büchse-01"]
)
def test_an_id_that_could_name_anothers_topic_is_refused(engine, ident):
    with db.write(engine) as connection:
        add_tree(connection)
        for add in (
            lambda: registry.add_tenant(connection, ident, "x", TenantKind.HOSPITAL, parent=None, now=NOW),
            lambda: registry.add_site(connection, ident, HOSPITAL, "x", now=NOW),
            lambda: registry.add_device(connection, ident, SITE, "x", now=NOW),
        ):
            with pytest.raises(ConflictError, match="8 to 40"):
                add()


def test_boxes_are_numbered_in_turn_and_ids_are_taken_once(engine):
    with db.write(engine) as connection:
        add_tree(connection)
        numbers = [registry.add_device(connection, f"box-000000{n}", SITE, "S", now=NOW) for n in (3, 1, 2)]
        assert numbers == [1, 2, 3]
        with pytest.raises(ConflictError, match="already"):
            registry.add_device(connection, "box-0000001", SITE, "S", now=NOW)
        with pytest.raises(ConflictError, match="already"):
            registry.add_tenant(connection, HOSPITAL, "x", TenantKind.HOSPITAL, parent=None, now=NOW)
        with pytest.raises(ConflictError, match="already"):
            registry.add_site(connection, SITE, HOSPITAL, "x", now=NOW)
        with pytest.raises(NotFoundError):
            registry.add_device(connection, "box-0000009", "site-nowhere", "S", now=NOW)


@pytest.mark.req("R-FLEET-19")
def test_a_replaced_box_is_out_for_good_with_its_certificates(engine, box, ca):
    new = PaperBox("box-0000002")
    with db.write(engine) as connection:
        add_box(connection, new, ca)
        registry.replace_device(connection, Scope.everything(), box.device, new.device, now=LATER)
        row = registry.find_device(connection, Scope.everything(), box.device)
        assert (row.state, row.replaced_by, row.disabled_at) == (DeviceState.REPLACED, new.device, LATER)
        states = connection.execute(select(t.certificate.c.device, t.certificate.c.state)).all()
        assert {tuple(one) for one in states} == {(box.device, "revoked"), (new.device, "trial")}
        for act in (
            lambda: registry.enable_device(connection, Scope.everything(), box.device),
            lambda: registry.replace_device(connection, Scope.everything(), box.device, new.device, now=LATER),
        ):
            with pytest.raises(ConflictError, match="was replaced by 'box-0000002'"):
                act()


def test_a_box_is_replaced_by_another_enrolled_one_of_its_site_alone(engine, two_dealers):
    with db.write(engine) as connection:
        everything = Scope.everything()
        with pytest.raises(ConflictError, match="at the same site"):
            registry.replace_device(connection, everything, "box-0000001", "box-0000002", now=NOW)
        with pytest.raises(ConflictError, match="must be another"):
            registry.replace_device(connection, everything, "box-0000001", "box-0000001", now=NOW)


def test_a_certificate_that_names_another_device_is_not_registered(engine, box, ca):
    with db.write(engine) as connection, pytest.raises(KeyFault, match="not the device 'box-0000001' alone"):
        registry.add_certificate(connection, box.device, ca.issue("box-0000002").pem, now=NOW)
    with db.write(engine) as connection, pytest.raises(KeyFault, match="no certificate"):
        registry.add_certificate(connection, box.device, "nonsense", now=NOW)


@pytest.mark.req("R-FLEET-19")
def test_the_audit_shows_whoever_changes_leaves_out_or_adds_a_row(engine):
    def write(connection, n):
        registry.write_audit(
            connection,
            act="device.disable",
            subject=f"box-{n}",
            actor="ann",
            now=NOW,
            detail={"before": "enrolled", "n": n},
        )

    with db.write(engine) as connection:
        add_tree(connection)
        for n in range(5):
            write(connection, n)
    with db.read(engine) as connection:
        assert registry.broken_audit(connection) is None
        third = connection.execute(select(t.audit).order_by(t.audit.c.number).offset(2).limit(1)).one()
    damages = [
        t.audit.update().where(t.audit.c.number == third.number).values(actor="bob"),
        t.audit.update().where(t.audit.c.number == third.number).values(detail={"before": "disabled", "n": 2}),
        t.audit.delete().where(t.audit.c.number == third.number),
        insert(t.audit).values(
            **{**third._asdict(), "number": 99, "tenant": HOSPITAL},
        ),
    ]
    for damage in damages:
        with engine.connect() as connection, connection.begin() as transaction:
            connection.execute(damage)
            assert registry.broken_audit(connection) is not None
            transaction.rollback()


def test_roles_of_an_account_come_with_their_tenants(engine):
    with db.write(engine) as connection:
        add_tree(connection)
        row = {"name": "ann", "full_name": "Ann", "must_change": False, "is_active": True, "made_at": NOW}
        connection.execute(insert(t.account).values(**row))
        connection.execute(insert(t.account_role).values(account=1, tenant=DEALER, role="viewer"))
        assert registry.roles_of(connection, 1) == [(DEALER, "viewer")]
        assert registry.roles_of(connection, 2) == []
