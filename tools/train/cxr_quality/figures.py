"""Thresholds and figures from out-of-fold scores. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from cxr.data import TARGETS, Row
from cxr.figures import wilson
from numpy.typing import NDArray

from cxr_quality.faults import FAULTS, Made

Scores = NDArray[np.float64]
Some = NDArray[np.bool_]
#: Share of the good images that each fault may flag wrongly; together below the 2 % that are allowed.
ALLOWED = dict.fromkeys(FAULTS, 0.0) | {
    "lung-bases-cropped": 0.007,
    "lung-apices-cropped": 0.003,
    "lung-side-cropped": 0.002,
    "double-exposure": 0.007,
}
#: A fault that finds fewer than this with its share may flag more, alone up to the second figure.
WANTED, ALONE = 0.92, 0.017
#: No threshold lies lower, and none higher.
LEAST, MOST = 0.2, 0.99
GOOD, VARIED = "as it is", "slightly varied"


def thresholds(scores: Scores, good: Some, has: Some) -> list[float]:
    """Per fault the lowest threshold that ``ALLOWED`` permits, or a lower one for a fault that finds too little.

    Args:
        scores: [N, faults].
        good: [N], the good images.
        has: [N, faults], what is wrong with each picture.
    """
    found = []
    for number, fault in enumerate(FAULTS):
        falling = np.sort(scores[good, number])[::-1]
        found_in = np.sort(scores[has[:, number], number])
        at = falling[int(ALLOWED[fault] * len(falling))] + 1e-4
        if (found_in >= at).mean() < WANTED:
            enough = found_in[int((1 - WANTED) * len(found_in))]
            at = min(at, max(enough, falling[int(ALONE * len(falling))] + 1e-4))
        found.append(round(float(np.clip(at, LEAST, MOST)), 4))
    return found


def figures_of(pieces: list[Made], scores: Scores, folds: NDArray[np.int64], rows: list[Row]) -> dict[str, Any]:
    """All figures of the card; ``rows`` are the good images, in the order in which ``pieces`` holds them.

    Each fold is judged with thresholds that were taken from the other folds; ``thresholds``, which ship, are from all.
    An interval counts each patient, or drawn object, once.
    """
    kinds = np.array([piece.kind for piece in pieces])
    owners = np.array([piece.owner for piece in pieces])
    good = kinds == GOOD
    drawn = np.array([kind.startswith("phantom, ") for kind in kinds])
    wrong = np.array([[fault in piece.faults for fault in FAULTS] for piece in pieces]) & ~drawn[:, None]
    flagged = np.zeros(scores.shape, bool)
    for fold in np.unique(folds):
        others = folds != fold
        at = thresholds(scores[others], good[others], wrong[others])
        flagged[folds == fold] = scores[folds == fold] >= at
    shipped = thresholds(scores, good, wrong)
    findings = {}
    for number, fault in enumerate(FAULTS):
        has = wrong[:, number]
        of_kind = {
            str(kind): _share(flagged[:, number], has & (kinds == kind), owners) for kind in dict.fromkeys(kinds[has])
        }
        hit, spared = _share(flagged[:, number], has, owners), _share(~flagged[:, number], good, owners)
        findings[fault] = {
            "positive": hit["pictures"],
            "operating_points": {
                "standard": {
                    "threshold": shipped[number],
                    "sensitivity": hit["share"],
                    "sensitivity_interval": hit["interval"],
                    "specificity": spared["share"],
                    "specificity_interval": spared["interval"],
                    "false_warnings": int(flagged[good, number].sum()),
                }
            },
            "by_kind": of_kind,
        }
    anything = flagged.any(1)
    return {
        "findings": findings,
        "thresholds": shipped,
        "good": {
            "any": _share(anything, good, owners),
            "slightly varied": _share(anything, kinds == VARIED, owners),
            "phantoms": _share(anything, drawn & np.isin(kinds, [f"phantom, {k}" for k in (GOOD, VARIED)]), owners),
            "by_label": by_label(flagged[good], rows),
        },
    }


def by_label(flagged: Some, rows: list[Row]) -> dict[str, Any]:
    """How many good images with and without what is looked for are warned of, [images, faults]; the labels overlap.

    A cut is a caveat of a package that requires this one; any other warning ends that package's analysis.
    """
    owners = np.array([row.patient for row in rows])
    ends = [not fault.startswith("lung-") for fault in FAULTS]
    among = {f"with {name}": [bool(row.labels & labels) for row in rows] for name, labels in TARGETS.items()}
    among["without a finding"] = [row.labels == {"No Finding"} for row in rows]
    return {
        who: {
            "any": _share(flagged.any(1), np.array(some), owners),
            "no cut": _share(flagged[:, ends].any(1), np.array(some), owners),
        }
        for who, some in among.items()
    }


def _share(hits: Some, among: Some, owners: NDArray[np.str_]) -> dict[str, Any]:
    """Share with its interval, as if each owner counted once."""
    share, count = float(hits[among].mean()), len(set(owners[among]))
    return {
        "pictures": int(among.sum()),
        "share": round(share, 4),
        "interval": [max(0.0, end) for end in wilson(round(share * count), count)],  # 0.0, not -0.0
    }
