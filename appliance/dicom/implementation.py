"""How the box names itself to its peers (PS3.7 §D.3.3.2) and in the objects that it makes."""

from __future__ import annotations

#: Root 2.25 (a UUID written as a number, PS3.5 §B.2): needs no registration.
IMPLEMENTATION_CLASS_UID = "2.25.96972698741689914135749239764466984865"
IMPLEMENTATION_VERSION_NAME = "SCANSIDE_1"
