"""Roll-outs to look at, made as people and the driver make them; what boxes say of their jobs is put in their rows."""

from __future__ import annotations

from console_kit import DAY, MINUTE, add_box, signed_in
from fleet_kit import NOW, SITE, VENDOR
from sqlalchemy import insert, select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import people
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import acts
from appliance.fleet.server.rollout.drive import Driver
from appliance.fleet.server.rollout.plan import Chosen, Gates, Plan
from appliance.fleet.server.server_keys import add_key
from engines.signing import generate

DIGEST = "a" * 64
MAKES = (("GE MEDICAL SYSTEMS", "Revolution"), ("SIEMENS", "SOMATOM Force"), ("UIH", "uCT 960+"))


def add_model(connection, version="3.0.0", package="ich-ct", *, now=NOW, **more):
    """A version that boxes can fetch."""
    row = {"package": package, "version": version, "digest": DIGEST, "target": f"models/{package}/{version}.zip"}
    row |= {"size": 4_000_000, "sha256": "b" * 64, "status": "cleared", "markets": ["CN"], "added_by": "test"}
    row |= {"title": {"en": "Head CT: haemorrhage", "zh_Hans": "头颅 CT：出血"}, "added_at": now}
    connection.execute(insert(t.model).values(**row | more))


def add_boxes(connection, numbers, site=SITE, *, now=NOW):
    """Boxes, each with a source, on which version 2 serves."""
    for n in numbers:
        device = f"box-{n:07d}"
        add_box(connection, device, site, now=now, seen=MINUTE / 30)
        make, model = MAKES[n % len(MAKES)]
        gear = {"device": device, "source": 1, "modality": "CT", "make": make, "model": model, "kernels": []}
        connection.execute(insert(t.equipment).values(**gear, at=now, stream=1, seq=1))
        had = {"device": device, "package": "ich-ct", "version": "2.0.0", "serves": True, "role": "live"}
        connection.execute(insert(t.package_state).values(**had, points={}, stream=1, seq=1))


def plan(**more):
    """One that stops from the third end on."""
    gates = {"failed_from": 3, "min_ended": 4, **more.pop("gates", {})}
    return Plan(gates=Gates(**gates), **more)


def drafted(
    engine, maker="operator", *, now=NOW, version="3.0.0", role="silent", chosen=None, planned=None, tenant=VENDOR
):
    """The id of a draft of somebody of ``console_kit.PEOPLE``."""
    signed_in(engine, maker, now)
    with db.write(engine) as connection:
        account = people.by_name(connection, maker)[0].number
        return acts.make(
            connection,
            Scope.everything(),
            tenant=tenant,
            package="ich-ct",
            version=version,
            digest=DIGEST,
            target=f"models/ich-ct/{version}.zip",
            role=role,
            chosen=chosen or Chosen(canaries=6),
            plan=planned or plan(),
            account=account,
            actor=maker,
            now=now,
        )


def submitted(engine, maker="operator", **more):
    """One that waits for approval."""
    ident = drafted(engine, maker, **more)
    with db.write(engine) as connection:
        account = people.by_name(connection, maker)[0].number
        everything = Scope.everything()
        acts.submit(connection, everything, ident, account=account, actor=maker, now=more.get("now", NOW))
    return ident


def running(engine, keys, maker="operator", approver="vendor", *, now=NOW, **more):
    """One that runs: approved by a second person, signed, started, its first wave told."""
    ident = submitted(engine, maker, now=now, **more)
    signed_in(engine, approver, now)
    release, everything = generate(), Scope.everything()
    with db.write(engine) as connection:
        add_key(connection, release.public, "release", f"Wang {ident[-4:]}", now=now - DAY)
        account = people.by_name(connection, approver)[0].number
        who = {"account": account, "actor": approver, "now": now}
        assert acts.approve(connection, everything, ident, threshold=1, release=release, **who)
        acts.start(connection, everything, ident, **who)
    drive(engine, keys, now)
    return ident


def drive(engine, keys, now=NOW, steps=4):
    """Some steps of the driver."""
    driver = Driver(keys)
    with db.write(engine) as connection:
        for _ in range(steps):
            driver.step(connection, now)


def told(engine, ident, states, *, now=NOW):
    """What boxes say of their jobs: {device: (state, code)}."""
    with db.write(engine) as connection:
        for device, (state, code) in states.items():
            mine = select(t.wave_device.c.job).where(
                t.wave_device.c.roll_out == ident, t.wave_device.c.device == device
            )
            values = {"state": state, "code": code, "state_at": now, "state_version": 3, "sent_at": now}
            connection.execute(t.job.update().where(t.job.c.id == mine.scalar_subquery()).values(**values))


def devices_of(engine, ident, wave=1):
    """Boxes of a wave, by number."""
    with db.read(engine) as connection:
        c = t.wave_device.c
        rows = connection.scalars(select(c.device).where(c.roll_out == ident, c.wave == wave).order_by(c.device))
        return list(rows)
