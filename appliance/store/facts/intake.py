"""What came from scanners, and what became of the images."""

from __future__ import annotations

from typing import Any

from appliance.store.facts.kinds import Body, Kind


class AssociationOpened(Body):  # noqa: D101
    kind = Kind.ASSOCIATION_OPENED
    association: int
    source: str


class AssociationClosed(Body):  # noqa: D101
    kind = Kind.ASSOCIATION_CLOSED
    association: int
    source: str
    how: str
    images: int


class Refused(Body):
    """An association or an object was not taken. ``times`` counts equal refusals since the last such row."""

    kind = Kind.REFUSED
    source: str
    status: int
    message: str
    association: int | None = None
    times: int = 1


class InstanceStored(Body):
    """A new image lies on disk for good. ``owed``: the destinations that the original is owed to."""

    kind = Kind.INSTANCE_STORED
    association: int
    source: str
    series: int
    version: int
    size: int
    owed: tuple[str, ...] = ()
    #: Title of the rejection note that named it before it came; empty for all others.
    rejected: str = ""


class InstanceRepeated(Body):
    """The same bytes under the same SOP Instance UID again: success, no new work."""

    kind = Kind.INSTANCE_REPEATED
    association: int
    version: int


class VersionStored(Body):
    """Another data set under a known SOP Instance UID. ``why``: identity, attributes, syntax, pixels or comparing."""

    kind = Kind.VERSION_STORED
    association: int
    version: int
    n: int
    why: str


class VersionCompared(Body):  # noqa: D101
    kind = Kind.VERSION_COMPARED
    version: int
    same_pixels: bool


class VersionChosen(Body):  # noqa: D101
    kind = Kind.VERSION_CHOSEN
    version: int
    n: int


class IdentityCorrected(Body):  # noqa: D101
    kind = Kind.IDENTITY_CORRECTED
    identity_revision: int


class ImagesRejected(Body):
    """A rejection note took images of a study back. ``note``: its version; ``images``: how many of the study's.

    ``source`` sent the note; where the note names nothing that is here, the fact stands at the note's own study.
    """

    kind = Kind.IMAGES_REJECTED
    note: int
    title: str
    source: str
    images: int
    series: tuple[int, ...] = ()


class PerformedStep(Body):
    """A modality reported where a procedure step stands, and how many images it lists in how many series."""

    kind = Kind.PERFORMED_STEP
    step: int
    source: str
    state: str
    series: int = 0
    images: int = 0


class OrderAsked(Body):
    """The RIS was asked for the order of a study; ``fills``: results carry its accession number from now on."""

    kind = Kind.ORDER_ASKED
    state: str
    entries: int
    by: str
    priority: str = ""
    raised: bool = False
    fills: bool = False


class SeriesReady(Body):
    """A series was taken as whole: by which rule, on which facts (issue "From the scanner to the alert" §3)."""

    kind = Kind.SERIES_READY
    series: int
    revision: int
    n: int
    images: int
    rule: str
    facts: dict[str, Any] = {}


class SeriesLeftOut(Body):  # noqa: D101
    kind = Kind.SERIES_LEFT_OUT
    series: int
    n: int
    why: str
    package: str = ""


class ImagesRemoved(Body):
    """Retention took the image files of a study from this box; nothing of it was owed any more."""

    kind = Kind.IMAGES_REMOVED
    images: int
    size: int


class ImageRestored(Body):
    """A source sent an image again whose file retention had removed: it is here once more, nothing else follows."""

    kind = Kind.IMAGE_RESTORED
    association: int
    version: int
