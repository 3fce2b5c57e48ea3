"""Whose certificate the broker takes no more: the list that it reads, and those on the line who are thrown out."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from appliance.errors import ApplianceError
from appliance.fleet.server import tables as t
from appliance.fleet.server.broker import Broker
from appliance.fleet.server.ca import CertAuthority, Revoked
from appliance.fleet.server.db import read
from appliance.fleet.server.registry import CertificateState, DeviceState

log = logging.getLogger(__name__)

#: The list is made anew so often also where nothing changed: an old one would shut everybody out.
_ANEW = timedelta(days=1)
_NO_MORE = (str(CertificateState.SUPERSEDED), str(CertificateState.REVOKED))


class Revocation:
    """Keeps the broker's list as the registry says."""

    def __init__(self, engine: Engine, authority: CertAuthority, broker: Broker) -> None:
        """Begin without a list; ``look`` makes the first."""
        self._engine = engine
        self._authority = authority
        self._broker = broker
        self._serials: frozenset[str] | None = None
        #: Devices that are off the line, and those that are to be.
        self._out: frozenset[str] = frozenset()
        self._to_go: frozenset[str] = frozenset()
        self._seen: tuple[object, ...] = ()
        self._made_at: datetime | None = None

    def look(self, now: datetime, *, first: bool = False) -> bool:
        """Make the list anew where it must be. Returns whether it was.

        Args:
            now: The server's clock.
            first: Before the broker runs: there must be a list, and nobody is on the line.

        Raises:
            ApplianceError: The first list cannot be made.
        """
        try:
            mark = self._mark()
            is_old = self._made_at is None or now - self._made_at >= _ANEW or now < self._made_at
            if mark == self._seen and not is_old:
                self._throw_out(self._to_go)
                return False
            revoked, out = self._registry(now)
            serials = frozenset(one.serial for one in revoked)
            if serials == self._serials and not is_old:
                self._seen, self._to_go = mark, out
                self._throw_out(out)
                return False
            self._broker.put(self._broker.files.crl, self._authority.crl(revoked, now))
        except (ApplianceError, SQLAlchemyError) as error:
            if first:
                raise
            log.error("fleet: the list of revoked certificates is not made anew: %s", error)  # noqa: TRY400 - expected
            return False
        self._seen, self._to_go = mark, out
        self._serials, self._made_at = serials, now
        if first:
            self._out = out
            return True
        self._broker.reload()
        self._throw_out(out)
        return True

    def _mark(self) -> tuple[object, ...]:
        """Changes whenever the list may: cheaper than the list."""
        c, d = t.certificate.c, t.device.c
        lists = select(c.state, func.count()).where(c.state.in_(_NO_MORE))
        devices = select(func.count(), func.max(d.disabled_at)).where(d.state != str(DeviceState.ENROLLED))
        with read(self._engine) as connection:
            certificates = connection.execute(lists.group_by(c.state).order_by(c.state)).all()
            return (*map(tuple, certificates), *connection.execute(devices).one())

    def _registry(self, now: datetime) -> tuple[list[Revoked], frozenset[str]]:
        c, d = t.certificate.c, t.device.c
        heard = str(DeviceState.ENROLLED)
        asked = (
            select(c.serial, c.revoked_at, c.made_at, d.disabled_at)
            .join(t.device, d.id == c.device)
            .where(c.not_after > now, or_(c.state.in_(_NO_MORE), d.state != heard))
        )
        with read(self._engine) as connection:
            revoked = [
                Revoked(row.serial, row.revoked_at or row.disabled_at or row.made_at)
                for row in connection.execute(asked)
            ]
            out = frozenset(connection.scalars(select(d.id).where(d.state != heard)))
        return revoked, out

    def _throw_out(self, out: frozenset[str]) -> None:
        """The list is for who connects; who is connected stays unless it is taken off the line."""
        for device in sorted(out - self._out):
            try:
                self._broker.throw_out(device)
            except OSError as error:
                log.warning("fleet: %s is still on the line: %s", device, error)
                return
            self._out |= {device}
            log.info("fleet: %s is heard no more", device)
        self._out &= out
