"""What a package is worth on studies whose truth is known: proportions with intervals, nothing hidden. Pure.

* Of a proportion the interval is Wilson's (E. B. Wilson, 1927) at 95 %; of an AUC the percentile bootstrap's.
* What was not analysed is in no table of four, but is counted beside each one, and ``sensitivity_owed`` counts a
  positive study that was not analysed as missed. A study that the package does not claim was not owed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.manifest import Manifest

#: Of the normal distribution, for 95 %.
_Z = 1.959963984540054
_RESAMPLES = 2000
_ALL = "all"
#: The package claims no series of the study: stands where a reason of NOT_ANALYSED would.
NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One study, as the package saw it.

    Attributes:
        names: By which truth may name it: Study Instance UID, accession number, folders and file.
        source: What made the images, in the header's words.
        date: StudyDate, empty where the header has none.
        scores: By finding id; empty where there is a reason.
        reason: Why it was not analysed, or ``not_applicable``; empty where there are scores.
        detail: In English, beside the reason.
    """

    names: tuple[str, ...]
    source: str
    date: str
    scores: dict[str, float]
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study and one finding whose truth is known."""

    study: Evaluated
    finding: str
    present: bool
    source: str


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share with its 95 % interval; without a denominator it is not known, which is not 0."""

    numerator: int
    denominator: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; ``None`` where there were too few studies for it."""

    value: float | None
    low: float | None
    high: float | None


def proportion(numerator: int, denominator: int) -> Proportion:
    """A share with Wilson's interval."""
    if denominator == 0:
        return Proportion(numerator, denominator)
    share, n = numerator / denominator, denominator
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # At 0 and at n the interval ends there exactly; rounding must not carry it beyond.
    low = 0.0 if numerator == 0 else max(0.0, middle - half)
    high = 1.0 if numerator == denominator else min(1.0, middle + half)
    return Proportion(numerator, denominator, share, low, high)


def auc(positive: Sequence[float], negative: Sequence[float], *, seed: int = 0) -> Estimate:
    """Area under the ROC curve: how often a positive study scores above a negative one, ties counted half.

    The interval is that of resampling positives and negatives apart, 2.5 % to 97.5 %; it needs two of each.
    """
    if not positive or not negative:
        return Estimate(None, None, None)
    yes, no = np.asarray(positive, float), np.asarray(negative, float)
    value = _area(yes, np.sort(no))
    if min(len(yes), len(no)) < 2:
        return Estimate(value, None, None)
    rng = np.random.default_rng(seed)
    drawn = [_area(rng.choice(yes, len(yes)), np.sort(rng.choice(no, len(no)))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _area(positive: np.ndarray[Any, Any], sorted_negative: np.ndarray[Any, Any]) -> float:
    below = np.searchsorted(sorted_negative, positive, "left")
    not_above = np.searchsorted(sorted_negative, positive, "right")
    return float((below + not_above).sum() / (2 * len(positive) * len(sorted_negative)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPoint:
    """A finding at one operating point."""

    point: str
    threshold: float
    default: bool
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    #: Of all positive studies that the package claims, those not analysed counted as missed.
    sensitivity_owed: Proportion
    #: Studies that would be flagged, of all that were looked at, truth known or not.
    flagged: Proportion
    alerts_a_day: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A finding in the studies of one source, or of all."""

    source: str
    positive: int
    negative: int
    #: By reason: how many positive and negative studies have no score.
    not_analysed: dict[str, dict[str, int]]
    not_applicable: dict[str, int]
    auc: Estimate
    points: tuple[AtPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfFinding:
    """Everything about one finding; the first group is all sources together."""

    finding: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A package on these studies."""

    studies: int
    analysed: int
    #: All studies, truth known or not, by reason.
    not_analysed: dict[str, int]
    not_applicable: int
    studies_a_day: float | None
    #: One alert for a study, whatever it has; at the default operating points.
    alerts_a_day: float | None
    findings: tuple[OfFinding, ...]


def evaluate(
    manifest: Manifest, studies: Sequence[Evaluated], cases: Sequence[Case], *, studies_a_day: float | None = None
) -> Report:
    """Every finding at every operating point, over all sources and for each.

    Args:
        manifest: The package.
        studies: All that were looked at.
        cases: Those of them whose truth is known.
        studies_a_day: How many such studies the site makes; absent: as many as the studies' own dates tell.
    """
    a_day = studies_a_day if studies_a_day is not None else _a_day(studies)
    findings = []
    for finding in manifest.findings:
        mine = [case for case in cases if case.finding == finding.id]
        sources = sorted({case.source for case in mine})
        groups = [_group(manifest, finding.id, _ALL, mine, studies, a_day)]
        if len(sources) > 1:
            for source in sources:
                of_source = [case for case in mine if case.source == source]
                # How many a day come from one source is not known.
                groups.append(_group(manifest, finding.id, source, of_source, [c.study for c in of_source], None))
        findings.append(OfFinding(finding=finding.id, groups=tuple(groups)))
    defaults = {finding.id: finding.default_point.threshold for finding in manifest.findings}
    alerted = sum(any(study.scores.get(f, -math.inf) >= t for f, t in defaults.items()) for study in studies)
    return Report(
        studies=len(studies),
        analysed=sum(not study.reason for study in studies),
        not_analysed=_counted(study.reason for study in studies if study.reason not in {"", NOT_APPLICABLE}),
        not_applicable=sum(study.reason == NOT_APPLICABLE for study in studies),
        studies_a_day=a_day,
        alerts_a_day=a_day * alerted / len(studies) if a_day is not None and studies else None,
        findings=tuple(findings),
    )


def _group(
    manifest: Manifest,
    finding: str,
    source: str,
    cases: Sequence[Case],
    studies: Sequence[Evaluated],
    a_day: float | None,
) -> Group:
    scored = [(case.study.scores[finding], case.present) for case in cases if not case.study.reason]
    left_out = [case for case in cases if case.study.reason]
    missed = sum(case.present for case in left_out if case.study.reason != NOT_APPLICABLE)
    points = []
    for point in manifest.finding(finding).operating_points:
        at = point.threshold
        tp = sum(present and score >= at for score, present in scored)
        fp = sum(not present and score >= at for score, present in scored)
        fn = sum(present and score < at for score, present in scored)
        tn = len(scored) - tp - fp - fn
        flagged = proportion(sum(study.scores.get(finding, -math.inf) >= at for study in studies), len(studies))
        points.append(
            AtPoint(
                point=point.name,
                threshold=at,
                default=point.name == manifest.finding(finding).default_point.name,
                true_positive=tp,
                false_positive=fp,
                true_negative=tn,
                false_negative=fn,
                sensitivity=proportion(tp, tp + fn),
                specificity=proportion(tn, tn + fp),
                ppv=proportion(tp, tp + fp),
                npv=proportion(tn, tn + fn),
                sensitivity_owed=proportion(tp, tp + fn + missed),
                flagged=flagged,
                alerts_a_day=a_day * flagged.value if a_day is not None and flagged.value is not None else None,
            )
        )
    by_reason = {
        reason: {
            "positive": sum(case.present for case in left_out if case.study.reason == reason),
            "negative": sum(not case.present for case in left_out if case.study.reason == reason),
        }
        for reason in (NOT_APPLICABLE, *sorted({case.study.reason for case in left_out} - {NOT_APPLICABLE}))
    }
    return Group(
        source=source,
        positive=sum(case.present for case in cases),
        negative=sum(not case.present for case in cases),
        not_applicable=by_reason.pop(NOT_APPLICABLE),
        not_analysed=by_reason,
        auc=auc([s for s, present in scored if present], [s for s, present in scored if not present]),
        points=tuple(points),
    )


def _a_day(studies: Iterable[Evaluated]) -> float | None:
    """Studies on a day that has any; ``None`` unless every study has its date."""
    dates = [study.date for study in studies]
    return len(dates) / len(set(dates)) if dates and all(dates) else None


def _counted(words: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for word in words:
        counted[word] = counted.get(word, 0) + 1
    return dict(sorted(counted.items()))
