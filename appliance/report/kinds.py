"""Which objects tell of which result. Pure: who owes what asks this before anything is built."""

from __future__ import annotations

from appliance.records import AnalysisResult, DeliveryKind, Outcome

#: CID 7035: category 1 within minutes, 2 within hours.
URGENT = 2
#: Kinds that say nothing but where something is.
PLACES = frozenset({DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.SC})


def may_show_places(intended_use: str) -> bool:
    """For triage, key slices count as a region, and a region is detection, not triage."""
    return intended_use != "triage"


def applies(kind: DeliveryKind, intended_use: str, result: AnalysisResult) -> bool:
    """Whether an object of this kind has anything to say of a result.

    The report, and what is no object of ours, is never left out: silence must be loud. Nor is the wish for rejection
    notes, which goes with the objects.

    Args:
        kind: Of the object.
        intended_use: Of the package.
        result: Of the analysis.
    """
    if kind not in {*PLACES, DeliveryKind.KO}:
        return True
    flagged = [finding for finding in result.findings if finding.flagged]
    if result.outcome is not Outcome.FINDING or not flagged:
        return False
    if kind is DeliveryKind.KO:
        return any(finding.category <= URGENT for finding in flagged)
    if not may_show_places(intended_use):
        return False
    if kind is DeliveryKind.SC:
        return key_picture(result) is not None
    has_places = any(finding.regions for finding in flagged)
    return has_places and (kind is DeliveryKind.GSPS or result.masks is not None)


def key_picture(result: AnalysisResult) -> int | None:
    """Which of the result's pictures shows a flagged finding best; None where none does.

    The first pictures are the best one of each finding in their order; two findings may share one.
    """
    best = list(dict.fromkeys(finding.key_instances[0] for finding in result.findings if finding.key_instances))
    for finding in result.findings:
        if finding.flagged and finding.key_instances:
            n = best.index(finding.key_instances[0])
            return n if n < len(result.pictures) else None
    # Its images have no ids of slices: the one picture that there is shows it.
    return 0 if result.pictures and not best else None
