"""What an analysis is worth, given what the packages said that its own package requires. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from appliance.records import AnalysisResult, Detail, Outcome
from engines.manifest import Requirement


@dataclass(frozen=True, slots=True)
class Standing:
    """What follows from the required packages.

    Attributes:
        caveats: What limits the result.
        refusal: Why the analysis must not run; empty where it may.
    """

    caveats: tuple[Detail, ...] = ()
    refusal: tuple[Detail, ...] = ()


def standing(requires: Iterable[Requirement], results: Mapping[str, AnalysisResult | None]) -> Standing:
    """Look at each requirement.

    A required package fails where it gave no result (it does not run for the same role, claimed nothing of this study,
    or ended NOT_ANALYSED), where its result carries a warning, and for each finding that it flags. A finding that the
    requirement names under ``caveats`` is a caveat whatever ``on_fail`` says.

    Args:
        requires: Of the package whose analysis it is.
        results: By package: the result of its not superseded analysis of the same study.
    """
    caveats: list[Detail] = []
    refusal: list[Detail] = []
    for requirement in requires:
        for finding, detail in _failures(requirement.package, results.get(requirement.package)):
            is_caveat = requirement.on_fail == "caveat" or finding in requirement.caveats
            (caveats if is_caveat else refusal).append(detail)
    # A result that does not exist has no caveats, but a person wants to know all that was wrong.
    return Standing(refusal=(*refusal, *caveats)) if refusal else Standing(caveats=tuple(caveats))


def _failures(package: str, result: AnalysisResult | None) -> Iterator[tuple[str | None, Detail]]:
    """(finding or None, what to say) of each way in which a required package failed."""
    if result is None or result.outcome is Outcome.NOT_ANALYSED:
        yield None, Detail("{package}, which this analysis requires, gave no result", {"package": package})
        return
    for found in result.findings:
        if found.flagged:
            values = {"package": package, "finding": found.id}
            yield found.id, Detail("{package}, which this analysis requires, warns of {finding}", values)
    if result.warnings:
        yield None, Detail("{package}, which this analysis requires, warns", {"package": package})
        yield from ((None, warning) for warning in result.warnings)
