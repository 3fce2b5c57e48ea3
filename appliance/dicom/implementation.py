"""How the box names itself to its peers (PS3.7 §D.3.3.2) and in the objects that it makes."""

from __future__ import annotations

from typing import NamedTuple

#: Root 2.25 (a UUID written as a number, PS3.5 §B.2): needs no registration.
IMPLEMENTATION_CLASS_UID = "2.25.96972698741689914135749239764466984865"
IMPLEMENTATION_VERSION_NAME = "SCANSIDE_1"


class Implementation(NamedTuple):
    """Who speaks in an association; no ``version_name``, no item of it."""

    class_uid: str
    version_name: str = ""


BOX = Implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)
#: The simulated scanners and PACS: peers of the box, so never under its name.
SIMULATOR = Implementation("2.25.150713219203457283902374562019283740011")
