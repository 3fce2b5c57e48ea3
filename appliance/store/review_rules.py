"""What a radiologist's answers mean, finding by finding. Pure.

A study in which nothing was flagged and of which the person says that this is right states each of its findings absent:
nowhere else does "absent" come from. Who disagrees says why, since an old finding is there all the same, and of a wrong
patient nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.errors import ConflictError
from appliance.records import (
    AnalysisResult,
    Presence,
    Region,
    ReviewDecision,
    ReviewedFinding,
    ReviewReason,
    Side,
)

#: Letters of a person's own words.
NOTE_MAX = 500
#: Packages whose silence says something of a patient.
LOOKING = ("triage", "detection")
_REFUTED = {
    ReviewReason.ARTEFACT: Presence.ABSENT,
    ReviewReason.ANATOMY: Presence.ABSENT,
    ReviewReason.OLD_FINDING: Presence.PRESENT,
    ReviewReason.WRONG_SUBJECT: Presence.UNDETERMINED,
    ReviewReason.OTHER: Presence.ABSENT,
}


class ReviewRefusedError(ConflictError):
    """The answers do not make a review; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One analysis that is judged: a live one that is not superseded."""

    analysis_id: int
    package: str
    package_version: str
    intended_use: str
    result: AnalysisResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says of one finding, where they amend."""

    analysis_id: int
    #: Of the package; empty where ``code`` says what it is.
    finding: str = ""
    presence: Presence = Presence.PRESENT
    added: bool = False
    code: str = ""
    side: Side | None = None
    category: int | None = None
    region: Region | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A review before it is signed."""

    decision: ReviewDecision
    reason: ReviewReason | None = None
    note: str = ""
    answers: tuple[Answer, ...] = ()


def judge(basis: Sequence[Judged], draft: Draft) -> tuple[ReviewedFinding, ...]:
    """What a draft says of each finding that it speaks of, the package's own first.

    Raises:
        ReviewRefusedError: A part is missing or contradicts another.
    """
    if len(draft.note) > NOTE_MAX:
        raise ReviewRefusedError(f"the note has {len(draft.note)} letters; {NOTE_MAX} are the most")
    if (draft.decision is ReviewDecision.DISAGREE) != (draft.reason is not None):
        raise ReviewRefusedError("a reason is given with 'disagree', and only then")
    if draft.decision is not ReviewDecision.AMEND and draft.answers:
        raise ReviewRefusedError("only 'amend' says something of single findings")
    if not basis:
        raise ReviewRefusedError("no analysis of this study has ended; there is nothing to review yet")
    flagged = _findings(basis, flagged=True)
    subjects = flagged or _findings((one for one in basis if one.intended_use in LOOKING), flagged=False)
    if draft.decision is ReviewDecision.AMEND:
        return _amended(basis, flagged, draft.answers)
    if not subjects:
        raise ReviewRefusedError("the AI said nothing of this study; add what you see, or leave it")
    is_flagged = bool(flagged)
    if draft.decision is ReviewDecision.CANNOT_JUDGE:
        return tuple(_said(one, Presence.UNDETERMINED, flagged=is_flagged, is_right=None) for one in subjects)
    if draft.decision is ReviewDecision.AGREE:
        presence = Presence.PRESENT if flagged else Presence.ABSENT
        return tuple(_said(one, presence, flagged=is_flagged, is_right=True) for one in subjects)
    if not flagged or draft.reason is None:
        raise ReviewRefusedError("nothing was flagged; add what was missed instead of disagreeing")
    return tuple(_said(one, _REFUTED[draft.reason], flagged=True, is_right=False) for one in subjects)


def places_hold(result: AnalysisResult, said: Iterable[ReviewedFinding]) -> bool:
    """Whether what a package marked in the images still stands after a review of that analysis."""
    by_finding = {one.finding: one for one in said if not one.added}
    flagged = [by_finding.get(finding.id) for finding in result.findings if finding.flagged]
    return all(one is None or (one.is_right is not False and one.region is None) for one in flagged)


def _findings(basis: Iterable[Judged], *, flagged: bool) -> list[tuple[int, str]]:
    return [
        (one.analysis_id, finding.id) for one in basis for finding in one.result.findings if finding.flagged is flagged
    ]


def _said(
    place: tuple[int, str],
    presence: Presence,
    *,
    flagged: bool = True,
    is_right: bool | None,
    answer: Answer | None = None,
) -> ReviewedFinding:
    """What holds of a finding of the package; ``answer`` says where, where the person said so."""
    return ReviewedFinding(
        analysis_id=place[0],
        finding=place[1],
        presence=presence,
        flagged=flagged,
        is_right=is_right,
        side=answer.side if answer else None,
        category=answer.category if answer else None,
        region=answer.region if answer else None,
    )


def _amended(
    basis: Sequence[Judged], flagged: list[tuple[int, str]], answers: Sequence[Answer]
) -> tuple[ReviewedFinding, ...]:
    known = {one.analysis_id: {finding.id for finding in one.result.findings} for one in basis}
    given: dict[tuple[int, str], Answer] = {}
    for answer in answers:
        if answer.analysis_id not in known:
            raise ReviewRefusedError("an answer is about an analysis that does not count any more; reload the page")
        if answer.presence is not Presence.PRESENT and (answer.side or answer.category or answer.region):
            raise ReviewRefusedError("side, category and region belong to a finding that is there")
        if answer.category is not None and answer.category not in {1, 2, 3}:
            raise ReviewRefusedError("the category is 1, 2 or 3")
        if answer.added:
            continue
        if (answer.analysis_id, answer.finding) not in flagged:
            raise ReviewRefusedError("an answer is about a finding that was not flagged; add it instead")
        given[answer.analysis_id, answer.finding] = answer
    found: list[ReviewedFinding] = []
    for place in flagged:
        found += _changed(place, given.get(place))
    found += [_added(answer, known[answer.analysis_id], flagged) for answer in answers if answer.added]
    places = [(one.analysis_id, one.finding, one.code) for one in found if one.added]
    if len(set(places)) < len(places):
        raise ReviewRefusedError("one finding is added twice; give it once")
    if all(one.is_right and not (one.side or one.category or one.region) for one in found):
        raise ReviewRefusedError("nothing is amended; agree instead")
    return tuple(found)


def _changed(place: tuple[int, str], answer: Answer | None) -> list[ReviewedFinding]:
    """What holds of one flagged finding. Under another code it is another finding: the one that was flagged is not."""
    if answer is None or (answer.presence is Presence.PRESENT and not answer.code):
        return [_said(place, Presence.PRESENT, is_right=True, answer=answer)]
    if answer.presence is not Presence.PRESENT:
        return [_said(place, answer.presence, is_right=False if answer.presence is Presence.ABSENT else None)]
    return [_said(place, Presence.ABSENT, is_right=False), _new(answer, is_right=None)]


def _added(answer: Answer, known: set[str], flagged: list[tuple[int, str]]) -> ReviewedFinding:
    if answer.presence is not Presence.PRESENT or bool(answer.finding) == bool(answer.code):
        raise ReviewRefusedError(
            "say of an added finding what it is: one of the package's, or one of the list of codes"
        )
    if answer.finding and answer.finding not in known:
        raise ReviewRefusedError(f"the package has no finding {answer.finding!r}")
    if (answer.analysis_id, answer.finding) in flagged:
        raise ReviewRefusedError("a finding that was flagged cannot be added; amend it")
    # A finding that the package knows, and was silent of.
    return _new(answer, is_right=False if answer.finding else None)


def _new(answer: Answer, *, is_right: bool | None) -> ReviewedFinding:
    return ReviewedFinding(
        analysis_id=answer.analysis_id,
        finding="" if answer.code else answer.finding,
        presence=Presence.PRESENT,
        flagged=False,
        is_right=is_right,
        added=True,
        code=answer.code,
        side=answer.side,
        category=answer.category,
        region=answer.region,
    )
