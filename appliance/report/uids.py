"""UIDs that follow from what they name, so that building an object twice makes one object, not two (PS3.5 §B.2)."""

from __future__ import annotations

import uuid
from datetime import datetime

_NAMESPACE = uuid.UUID("8f5d9f1e-6a3b-5c0e-9d0a-3c1f6f2f7a11")


def derived_uid(*parts: str) -> str:
    """A UID under root 2.25 that is a function of ``parts``."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(parts)).int}"


def series_uid(study_instance_uid: str, package: str, kind: str) -> str:
    """The series of all objects of one kind that one package makes of a study, revisions included."""
    return derived_uid("series", study_instance_uid, package, kind)


def algorithm_uid(package: str, version: str, digest: str) -> str:
    """Device UID of an algorithm: another one as soon as anything of the package changes (IHE AIR 6.5.3.1)."""
    return derived_uid("algorithm", package, version, digest)


def tracking_uid(study_instance_uid: str, package: str, done_at: datetime, finding: str) -> str:
    """Tracking Unique Identifier of one finding of one analysis: the same in every object that tells of it."""
    return derived_uid("tracking", study_instance_uid, package, done_at.isoformat(), finding)


def dimension_uid(sop_instance_uid: str) -> str:
    """Dimension Organization UID of a multi-frame object."""
    return derived_uid("dimensions", sop_instance_uid)
