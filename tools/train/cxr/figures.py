"""Figures of a classifier: areas, intervals, operating points, calibration. Numpy only, no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESAMPLES = 2000
PREVALENCES = (0.01, 0.05, 0.10, 0.20)


def area(scores: Floats, wanted: Bools) -> float:
    """Area under the ROC curve; ties count half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = int(wanted.sum())
    if positives in {0, len(wanted)}:
        return float("nan")
    return float((ranks[wanted].sum() - positives * (positives + 1) / 2) / (positives * (len(wanted) - positives)))


def resampled(patients: list[str], seed: int = 0) -> list[NDArray[np.int64]]:
    """Row numbers of each bootstrap sample: patients are drawn, with all their images."""
    rng = np.random.default_rng(seed)
    names, owner = np.unique(patients, return_inverse=True)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    return [np.repeat(np.arange(len(owner)), times[owner]) for times in drawn]


def interval(values: list[float]) -> list[float]:
    """The middle 95 %."""
    seen = np.array(values)[~np.isnan(values)]
    return [round(float(v), 3) for v in np.percentile(seen, (2.5, 97.5))]


def area_with_interval(scores: Floats, wanted: Bools, patients: list[str]) -> dict[str, Any]:
    """Area, its interval over patients, and how many images it stands on."""
    drawn = [area(scores[rows], wanted[rows]) for rows in resampled(patients)]
    return {
        "auc": round(area(scores, wanted), 3),
        "interval": interval(drawn),
        "images": len(wanted),
        "positive": int(wanted.sum()),
    }


def thresholds(scores: Floats, wanted: Bools) -> dict[str, float]:
    """The closed list of operating points, by rules that were fixed beforehand.

    ``sensitive``: the highest threshold that flags 90 % of the positives; ``specific``: the lowest that spares 90 % of
    the others; ``standard``: where sensitivity and specificity are nearest to each other.
    """
    tried = np.unique(np.round(scores, 4))
    sensitivity = np.array([(scores[wanted] >= t).mean() for t in tried])
    specificity = np.array([(scores[~wanted] < t).mean() for t in tried])
    return {
        "sensitive": float(tried[sensitivity >= 0.9][-1]),
        "standard": float(tried[np.abs(sensitivity - specificity).argmin()]),
        "specific": float(tried[specificity >= 0.9][0]),
    }


def point(scores: Floats, wanted: Bools, patients: list[str], threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity at a threshold, with intervals; alerts per 100 exams and PPV by prevalence."""
    flagged = scores >= threshold
    sensitivity, specificity = float(flagged[wanted].mean()), float((~flagged[~wanted]).mean())
    samples = resampled(patients)
    made: dict[str, Any] = {
        "threshold": round(threshold, 4),
        "sensitivity": round(sensitivity, 3),
        "sensitivity_interval": interval([_mean(flagged[r][wanted[r]]) for r in samples]),
        "specificity": round(specificity, 3),
        "specificity_interval": interval([_mean(~flagged[r][~wanted[r]]) for r in samples]),
        "at_prevalence": {},
    }
    for share in PREVALENCES:
        true, false = share * sensitivity, (1 - share) * (1 - specificity)
        made["at_prevalence"][f"{share:.0%}"] = {
            "alerts_per_100": round(100 * (true + false), 1),
            "ppv": round(true / (true + false), 3),
        }
    return made


def _mean(values: Bools) -> float:
    return float(values.mean()) if len(values) else float("nan")


def platt(raw: Floats, wanted: Bools) -> tuple[float, float]:
    """Slope and shift of the logistic curve that fits best (Newton's method)."""
    inputs = np.stack([raw, np.ones_like(raw)], 1)
    weights = np.zeros(2)
    for _ in range(50):
        likely = 1 / (1 + np.exp(-inputs @ weights))
        curve = (inputs * (likely * (1 - likely))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        weights -= np.linalg.solve(curve, inputs.T @ (likely - wanted))
    return float(weights[0]), float(weights[1])


def calibration(raw: Floats, wanted: Bools, folds: NDArray[np.int64]) -> dict[str, Any]:
    """How far probabilities are from shares, each fold calibrated by the others."""
    likely = np.zeros(len(raw))
    for fold in np.unique(folds):
        slope, shift = platt(raw[folds != fold], wanted[folds != fold])
        likely[folds == fold] = 1 / (1 + np.exp(-(slope * raw[folds == fold] + shift)))
    parts = np.array_split(np.argsort(likely, kind="stable"), 5)
    table = [{"predicted": round(float(likely[p].mean()), 3), "seen": round(float(wanted[p].mean()), 3)} for p in parts]
    return {
        "brier": round(float(((likely - wanted) ** 2).mean()), 4),
        "brier_of_the_prevalence": round(float(wanted.mean() * (1 - wanted.mean())), 4),
        "expected_calibration_error": round(float(np.mean([abs(r["predicted"] - r["seen"]) for r in table])), 3),
        "fifths": table,
    }


def wilson(hits: int, count: int) -> list[float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / count
    middle, half = share + z**2 / (2 * count), z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return [round(float(end / (1 + z**2 / count)), 3) for end in (middle - half, middle + half)]
