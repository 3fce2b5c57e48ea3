"""Which presentation contexts the box accepts: a pure rule over what the peer proposes (PS3.8 §9.3.3.2).

Configured contexts (170 storage classes x 45 syntaxes) cost 60 ms of CPU per connection and know no private class; a
library's "unrestricted" mode takes any syntax, also those that we could neither read nor forward.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pydicom._uid_dict import UID_dictionary

from appliance.dicom.classes import STORAGE_COMMITMENT_PUSH
from appliance.dicom.pdus import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    ContextAnswer,
    ProposedContext,
    Result,
    RoleSelection,
)

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

#: What has "Storage" in its name and is not taken.
_NOT_STORE = frozenset(
    {
        # No C-STORE service: DICOMDIR and storage commitment.
        *("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"),
        # Of no patient and no study (PS3.4 Annex GG): hanging protocols, palettes, implant templates, inventories.
        "1.2.840.10008.5.1.4.38.1",
        "1.2.840.10008.5.1.4.39.1",
        *("1.2.840.10008.5.1.4.43.1", "1.2.840.10008.5.1.4.44.1", "1.2.840.10008.5.1.4.45.1"),
        "1.2.840.10008.5.1.4.1.1.201.1",
        # The same: procedure protocols that a scanner is to follow, and their approval.
        *("1.2.840.10008.5.1.4.1.1.200.1", "1.2.840.10008.5.1.4.1.1.200.7", "1.2.840.10008.5.1.4.1.1.200.3"),
    }
)

#: What we keep, read the header of and can forward. Left out on purpose: deflated syntaxes (a bomb of 200 kB unpacks
#: to 200 MB), JPIP and SMPTE (the pixels are elsewhere), and private ones (their encoding cannot be known).
ACCEPTED_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.1.98",  # encapsulated uncompressed
        "1.2.840.10008.1.2.2",  # explicit VR big endian, retired, alive in old scanners
        "1.2.840.10008.1.2.5",  # RLE
        *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)),  # JPEG
        *(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)),  # JPEG-LS
        *(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93)),  # JPEG 2000
        *(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)),  # JPEG XL
        *(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)),  # HTJ2K
        *(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109)),  # MPEG-2, H.264, H.265: kept and forwarded
        *(f"1.2.840.10008.1.2.4.{n}.1" for n in range(100, 107)),  # the same, in fragments
    }
)


#: Of what is no C-STORE: small data sets, which need no other syntax than the plain ones.
_SERVICE_SYNTAXES = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN})

_NAMED_AT_MOST = 4


@dataclass(frozen=True, slots=True)
class ContextResult(ContextAnswer):
    """Our answer to one proposed context, and what it is about."""

    abstract_syntax: str


def is_storage(abstract_syntax: str) -> bool:
    """Whether a C-STORE of this class is taken.

    Storage classes by the standard's own names, and whatever the standard's table does not know: private classes and
    those of later editions. Known other services (query, worklist, print, commitment) are not.
    """
    known = UID_dictionary.get(abstract_syntax)
    if known is None:
        return bool(abstract_syntax)
    name, kind = known[0], known[1]
    if kind != "SOP Class" or abstract_syntax in _NOT_STORE:
        return False
    # The table has classes without a name among the storage ones.
    return "Storage" in name or not name


def negotiate(
    proposed: Iterable[ProposedContext], services: Collection[str] = frozenset(), *, may_store: bool = True
) -> tuple[ContextResult, ...]:
    """Answer every proposed context, in the order of the request.

    Of a context with several transfer syntaxes the first that is on our list is taken: the peer names first what it
    has, and we never ask a scanner to convert.

    Args:
        proposed: What the peer proposes.
        services: Classes besides storage and verification that the box gives.
        may_store: Whether storage is given to this peer.
    """
    answers = []
    for context in proposed:
        is_service = context.abstract_syntax == VERIFICATION or context.abstract_syntax in services
        possible = _SERVICE_SYNTAXES if is_service else ACCEPTED_SYNTAXES
        chosen = next((syntax for syntax in context.transfer_syntaxes if syntax in possible), None)
        if not is_service and not (may_store and is_storage(context.abstract_syntax)):
            result = Result.ABSTRACT_SYNTAX_NOT_SUPPORTED
        elif chosen is None:
            result = Result.TRANSFER_SYNTAXES_NOT_SUPPORTED
        else:
            result = Result.ACCEPTANCE
        answers.append(
            ContextResult(context.context_id, result, chosen or IMPLICIT_VR_LITTLE_ENDIAN, context.abstract_syntax)
        )
    return tuple(answers)


def accept_roles(proposed: Iterable[RoleSelection]) -> tuple[RoleSelection, ...]:
    """What a requestor may be: a PACS that reports on storage commitment is the SCP of it; all else stays as it is."""
    return tuple(role for role in proposed if role.sop_class_uid == STORAGE_COMMITMENT_PUSH)


def refusal(proposed: Sequence[ProposedContext], results: Sequence[ContextResult]) -> str | None:
    """What a person must know of the answer: storage classes of which no transfer syntax was accepted, or None.

    The peer cannot send such objects at all, and no C-STORE will ever show it. Named by the standard's words: a UID
    of a peer's own choice has no place in the journal.
    """
    taken = {result.abstract_syntax for result in results if result.accepted}
    lost: dict[str, dict[str, None]] = {}
    for context, result in zip(proposed, results, strict=True):
        if result.result == Result.TRANSFER_SYNTAXES_NOT_SUPPORTED and context.abstract_syntax not in taken:
            offered = lost.setdefault(_named(context.abstract_syntax), {})
            offered.update(dict.fromkeys(map(_named, context.transfer_syntaxes[:_NAMED_AT_MOST])))
    if not lost:
        return None
    told = [f"{name} (proposed: {', '.join(offered)})" for name, offered in list(lost.items())[:_NAMED_AT_MOST]]
    more = f" and {len(lost) - _NAMED_AT_MOST} more" if len(lost) > _NAMED_AT_MOST else ""
    return f"no transfer syntax accepted for {'; '.join(told)}{more}; let the sender propose an undeflated standard one"


def _named(uid: str) -> str:
    known = UID_dictionary.get(uid)
    return known[0] if known is not None and known[0] else "one that the standard does not name"
