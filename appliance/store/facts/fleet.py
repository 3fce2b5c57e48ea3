"""The fleet link: what it drew together for the server, the steps of jobs, desired documents, its identity."""

from __future__ import annotations

from typing import Any

from appliance.store.facts.kinds import Body, Kind


class FleetTold(Body):
    """A roll-up, a count, a gap or an anchor: written by the link itself, in the words of ``fleet.wire_records``."""

    kind = Kind.FLEET_TOLD
    record: dict[str, Any]


class FleetJobStep(Body):
    """A job went on; the same words go to the server, but ``why``: what a person of the site said stays here."""

    kind = Kind.FLEET_JOB_STEP
    job: str
    ctr: int
    op: str
    state: str
    version: int
    code: str = ""
    percent: float | None = None
    figures: dict[str, float] = {}
    why: str = ""


class FleetTwin(Body):
    """A desired document was applied, or refused with these codes."""

    kind = Kind.FLEET_TWIN
    dv: int
    applied: bool
    errors: tuple[str, ...] = ()


class FleetLink(Body):
    """The box was enrolled, its certificate renewed, or it left the fleet."""

    kind = Kind.FLEET_LINK
    state: str
    code: str = ""


class FleetTrust(Body):
    """Whose signatures the box obeys from now on: ids of public keys."""

    kind = Kind.FLEET_TRUST
    online: tuple[str, ...]
    release: tuple[str, ...]
    release_threshold: int
