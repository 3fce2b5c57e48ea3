"""The README's table of what the bundled packages are worth, from manifests and ``metrics.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes import RECIPES, Recipe, held_at, metrics_of

from engines.manifest import Finding
from engines.package import load_package

BEGIN, END = "<!-- models: written by make models -->", "<!-- models: end -->"
_HEAD = (
    "| package | looks for | data | figures at the default operating point (95 % interval) "
    "| does not find, among much else |"
)


def table(folders: Mapping[str, Path]) -> str:
    """One row for each bundled package, in order of name."""
    rows = [_row(name, folders[name]) for name in sorted(folders) if name in RECIPES]
    return "\n".join((_HEAD, "|---|---|---|---|---|", *rows))


def renew(readme: Path, text: str) -> None:
    """Put the table between its marks."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def is_new(readme: Path, text: str) -> bool:
    """Whether the README holds this table."""
    return f"{BEGIN}\n{text}\n{END}" in readme.read_text(encoding="utf-8")


def _row(name: str, folder: Path) -> str:
    recipe, metrics = RECIPES[name], metrics_of(folder)
    manifest = load_package(folder, trusted=True).manifest
    points = [point for finding in manifest.findings for point in finding.operating_points if point.default]
    data = points[0].basis.en if points and points[0].basis else "None."
    figures = [
        *(_figures(finding, metrics, recipe) for finding in manifest.findings),
        _together(metrics),
        recipe.caution,
    ]
    cells = (
        f"[{name}](engines/models/{name}/CARD.md) ({manifest.status})",
        manifest.title.en,
        data,
        " ".join(text for text in figures if text),
        _first(manifest.not_looked_for.en if manifest.not_looked_for else ""),
    )
    return f"| {' | '.join(cells)} |"


def _first(text: str) -> str:
    """The first clause, which names the most important."""
    return text.partition(";")[0].partition(". ")[0].rstrip(".")


def _figures(finding: Finding, metrics: Mapping[str, Any], recipe: Recipe) -> str:
    """Sensitivity and specificity with their intervals, and the area under the curve where it was measured."""
    point = next((one for one in finding.operating_points if one.default), None)
    if point is None:
        return ""
    own = metrics.get("findings", {}).get(finding.id, {})
    measured = own.get("operating_points", {}).get(point.name, {})
    said = []
    for number, (word, share) in enumerate((("sensitivity", point.sensitivity), ("specificity", point.specificity))):
        span = measured.get(f"{word}_interval") or _wilson(share, _count(metrics, recipe.counted[number]))
        said.append(f"{word} {share:.2f} ({span[0]:.2f}-{span[1]:.2f})")
    if "auc" in own:
        said.append(f"area {own['auc']:.2f} ({own['interval'][0]:.2f}-{own['interval'][1]:.2f})")
    of = ""
    if recipe.counted_of:
        counts = " and ".join(str(_count(metrics, key)) for key in recipe.counted)
        of = f" of {counts} ({recipe.counted_of}, each counted as independent)"
    return f"{finding.id}: {', '.join(said)}{of}."


def _together(metrics: Mapping[str, Any]) -> str:
    """Of a package with many findings: how many good images it flags with any of them."""
    any_of_them = metrics.get("good", {}).get("any")
    if any_of_them is None:
        return ""
    low, high = any_of_them["interval"]
    return f"Any of them on good images: {any_of_them['share']:.1%} ({low:.1%}-{high:.1%})."


def _count(metrics: Mapping[str, Any], path: str) -> int:
    return int(held_at(metrics, path))


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share of ``count``, 95 %."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)
