"""Whether a destination answers: what ``scanside dest test`` asks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.retry import AssociationLost, ContextRefused, NoAssociation
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """What ``dest test`` tells."""

    ok: bool
    ms: float
    words: str


def echo(peer: Peer) -> EchoResult:
    """Associate with a destination and verify it; never raises."""
    begin = time.monotonic()
    try:
        association = Association(peer, [(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])
        try:
            status = association.echo()
        finally:
            association.release()
    except (NoAssociation, AssociationLost, ContextRefused) as error:
        return EchoResult(ok=False, ms=(time.monotonic() - begin) * 1000, words=str(error))
    words = f"{peer} answers" if status == 0 else f"{peer} answers C-ECHO with status 0x{status:04X}"
    return EchoResult(ok=status == 0, ms=(time.monotonic() - begin) * 1000, words=words)
