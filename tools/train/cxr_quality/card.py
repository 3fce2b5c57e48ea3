"""``CARD.md`` and ``model.yaml`` from the figures: no number is typed by hand."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

_HERE = Path(__file__).resolve().parent
#: What was aimed at: sensitivity of each fault, and false warnings on good images.
AIM, ALLOWED = 0.9, 0.02


def manifest_text(metrics: dict[str, Any]) -> str:
    """``model.yaml`` with the measured operating points."""
    points = {}
    for finding, held in metrics["findings"].items():
        at = held["operating_points"]["standard"]
        lines = ["      - name: standard", f"        threshold: {at['threshold']}", "        default: true"]
        lines += [f"        sensitivity: {at['sensitivity']}", f"        specificity: {at['specificity']}"]
        lines += ["        basis:", "          en: Faults made of NIH ChestX-ray14 images, patient-wise folds."]
        lines += ["          zh_Hans: 由 NIH ChestX-ray14 影像人工制作的缺陷，按患者划分的交叉验证。"]
        points[finding.replace("-", "_")] = "\n".join(lines)
    return Template((_HERE / "model.template.yaml").read_text(encoding="utf-8")).substitute(points)


def card_text(metrics: dict[str, Any]) -> str:
    """``CARD.md``."""
    m = metrics
    held_out = ", ".join(f"{kind} {share:.1%}" for kind, share in m["unseen_kinds"].items())
    return Template((_HERE / "card.template.md").read_text(encoding="utf-8")).substitute(
        points=_points(m),
        reached=_reached(m),
        kinds=_kinds(m),
        any=_told(m["good"]["any"]),
        varied=_told(m["good"]["slightly varied"]),
        phantoms=_told(m["good"]["phantoms"]),
        labels=_labels(m),
        unseen=held_out,
        tried=m["recipes_tried"],
        images=m["data"]["images"],
        patients=m["data"]["patients"],
        pictures=m["data"]["pictures"],
    )


def _told(share: dict[str, Any]) -> str:
    return f"{share['share']:.1%} ({share['interval'][0]:.1%}-{share['interval'][1]:.1%}) of {share['pictures']}"


def _labels(m: dict[str, Any]) -> str:
    rows = ["| good images | any warning | any but a cut |", "|---|---|---|"]
    for who, held in m["good"]["by_label"].items():
        rows.append(f"| {who} | {_told(held['any'])} | {_told(held['no cut'])} |")
    return "\n".join(rows)


def _span(pair: list[float]) -> str:
    return f"{pair[0]:.3f}-{pair[1]:.3f}"


def _points(m: dict[str, Any]) -> str:
    rows = []
    for fault, held in m["findings"].items():
        at = held["operating_points"]["standard"]
        rows += [
            f"**{fault}**, {held['positive']} pictures:",
            "",
            "| point | threshold | sensitivity | specificity on good images | false warnings |",
            "|---|---|---|---|---|",
            _row(at),
            "",
        ]
    return "\n".join(rows).rstrip()


def _row(at: dict[str, Any]) -> str:
    return (
        f"| standard | {at['threshold']:.4f} | {at['sensitivity']:.3f} ({_span(at['sensitivity_interval'])}) "
        f"| {at['specificity']:.3f} ({_span(at['specificity_interval'])}) | {at['false_warnings']} |"
    )


def _reached(m: dict[str, Any]) -> str:
    missed = [f for f, h in m["findings"].items() if h["operating_points"]["standard"]["sensitivity"] < AIM]
    over = m["good"]["any"]["share"] > ALLOWED
    said = f"The aim was a sensitivity of {AIM} for each fault at {ALLOWED:.0%} of false warnings on good images. "
    said += f"Sensitivity: {'not reached for ' + ', '.join(missed) if missed else 'reached for every fault'}. "
    rates = [1 - h["operating_points"]["standard"]["specificity"] for h in m["findings"].values()]
    each = "each fault alone stays below it" if max(rates) <= ALLOWED else "not even each fault alone stays below it"
    return said + (
        f"False warnings of all faults together: {m['good']['any']['share']:.1%}, "
        + (f"which is above the aim; {each}." if over else "within the aim.")
    )


def _kinds(m: dict[str, Any]) -> str:
    rows = ["| how it was made | fault | pictures | warned |", "|---|---|---|---|"]
    for fault, held in m["findings"].items():
        rows += [f"| {kind} | {fault} | {s['pictures']} | {s['share']:.3f} |" for kind, s in held["by_kind"].items()]
    return "\n".join(rows)
