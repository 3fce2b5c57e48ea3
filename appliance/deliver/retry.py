"""When to try again, and what an answer of a PACS means. Pure rules, no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from appliance.errors import TransientError
from appliance.records import Word

FIRST_S, LONGEST_S = 1.0, 300.0


def next_try(attempt: int, rng: random.Random) -> float:
    """Seconds until the next try: doubling from 1 s to 5 min, jittered so that boxes do not knock in step.

    Args:
        attempt: How many tries have failed, at least 1. There is no last one.
        rng: Where the jitter comes from.
    """
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, 20))
    return max(FIRST_S, rng.uniform(longest / 2, longest))


class Verdict(Word):
    """What follows from one try."""

    STORED = "stored"
    RETRY = "retry"
    PARK = "park"


class Fault(Word):
    """Whose fault it is that an object is tried again: what lies in the object itself is not tried for ever."""

    #: It lacks room, time or rights; others would fare alike.
    DESTINATION = "destination"
    #: It may be either: parked after so many tries, once others were stored meanwhile.
    EITHER = "either"
    #: It refuses this object and does not say why: parked after so many tries.
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict with words that a person can act on; no patient data and nothing that a peer wrote."""

    verdict: Verdict
    words: str = ""
    #: The code that was answered: a DIMSE status, or what HTTP or HL7 has in its place.
    status: int | None = None
    #: Of a try that is made again.
    fault: Fault = Fault.DESTINATION


class NoAssociation(TransientError):  # noqa: N818 - reads as the fact that it is
    """The destination cannot be reached or refuses the association: nothing is known of any object."""


class AssociationLost(TransientError):  # noqa: N818
    """The association ended while an object was being sent: it may be stored or not, so it is sent again."""


class QueryRefused(TransientError):  # noqa: N818
    """The destination answers this one question with a failure; the association stands for the next."""


class ContextRefused(TransientError):  # noqa: N818
    """The destination takes the association but not this pair of SOP Class and Transfer Syntax."""

    def __init__(self, words: str, *, for_good: bool) -> None:
        """``for_good``: it named the class or the syntax as unsupported (PS3.8 Table 9-18, results 3 and 4)."""
        super().__init__(words)
        self.for_good = for_good


#: C-STORE statuses (PS3.4 Table B.2-1, PS3.7 Annex C) that mean another thing than their class does.
_STATUS = {
    0x0000: Judgement(verdict=Verdict.STORED),
    0x0001: Judgement(verdict=Verdict.STORED, words="stored, with a warning"),
    0x0107: Judgement(verdict=Verdict.STORED, words="stored, with a warning about attributes"),
    0x0116: Judgement(verdict=Verdict.STORED, words="stored, with a warning about attribute values"),
    0x0110: Judgement(verdict=Verdict.RETRY, words="it could not process the object", fault=Fault.EITHER),
    0x0117: Judgement(verdict=Verdict.PARK, words="it calls the SOP Instance UID invalid"),
    0x0122: Judgement(verdict=Verdict.PARK, words="it does not support this SOP Class; let the PACS accept it"),
    0x0124: Judgement(verdict=Verdict.RETRY, words="it does not authorise this box; give it the right to store"),
    0x0210: Judgement(verdict=Verdict.RETRY, words="it met the same Message ID twice"),
    0x0211: Judgement(verdict=Verdict.PARK, words="it does not know C-STORE; check host and port"),
    0x0212: Judgement(verdict=Verdict.PARK, words="it could not read the request"),
    0x0213: Judgement(verdict=Verdict.RETRY, words="it lacks resources"),
    0xB000: Judgement(verdict=Verdict.STORED, words="stored, but it changed attributes"),
    0xB006: Judgement(verdict=Verdict.STORED, words="stored, but it discarded attributes"),
    0xB007: Judgement(verdict=Verdict.STORED, words="stored, but it finds that the object does not match its class"),
}
_CLASSES = (
    (0xA700, 0xA7FF, Judgement(verdict=Verdict.RETRY, words="it is out of resources; look at its disk")),
    (0xA800, 0xA8FF, Judgement(verdict=Verdict.PARK, words="it does not support this SOP Class")),
    (0xA900, 0xA9FF, Judgement(verdict=Verdict.PARK, words="it finds that the object does not match its SOP Class")),
    (0xB000, 0xBFFF, Judgement(verdict=Verdict.STORED, words="stored, with a warning")),
    (0xC000, 0xCFFF, Judgement(verdict=Verdict.PARK, words="it cannot understand the object")),
)
_DUPLICATE = 0x0111


def judge(answer: int | TransientError, *, version_n: int = 1) -> Judgement:
    """What an answer to a C-STORE means for the object.

    Args:
        answer: The DIMSE status, or why there is none.
        version_n: Above 1 the object is a later data set under a SOP Instance UID that was sent before.
    """
    if isinstance(answer, ContextRefused):
        return Judgement(verdict=Verdict.PARK if answer.for_good else Verdict.RETRY, words=str(answer))
    if isinstance(answer, TransientError):
        return Judgement(verdict=Verdict.RETRY, words=str(answer))
    if answer == _DUPLICATE:
        if version_n == 1:
            return Judgement(verdict=Verdict.STORED, words="stored already")
        # The PACS has the earlier data set and keeps it, so the correction would never be seen.
        words = "it keeps the earlier version of this image; let it take the corrected one, then retry"
        return _with_status(Judgement(verdict=Verdict.PARK, words=words), answer)
    for first, last, judgement in ((answer, answer, _STATUS.get(answer)), *_CLASSES):
        if judgement is not None and first <= answer <= last:
            return _with_status(judgement, answer)
    unknown = Judgement(verdict=Verdict.RETRY, words="it answered with a failure", fault=Fault.EITHER)
    return _with_status(unknown, answer)


def _with_status(judgement: Judgement, status: int) -> Judgement:
    words = f"status 0x{status:04X}: {judgement.words}" if judgement.words else ""
    return replace(judgement, words=words, status=status)
