"""Who does something at the box or its screens."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.records.word import Word


class UserRole(Word):
    """What somebody may do at the screens. No role includes another; ``web.access`` says who may what."""

    #: A paired screen at the scanner: alerts of its sources, and what is done about them. Nobody has signed in.
    SCREEN = "screen"
    #: Reads.
    VIEWER = "viewer"
    TECHNOLOGIST = "technologist"
    RADIOLOGIST = "radiologist"
    #: Of the hospital: accounts, settings, destinations, models.
    ADMINISTRATOR = "administrator"
    #: Of the vendor: health, engines, destinations; never a patient.
    SERVICE = "service"


class ActorKind(Word):
    """Who did what a journal row tells."""

    SYSTEM = "system"
    PERSON = "person"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acted; stands in every journal row."""

    kind: ActorKind = ActorKind.SYSTEM
    name: str = ""
    role: str = ""


SYSTEM = Actor()
