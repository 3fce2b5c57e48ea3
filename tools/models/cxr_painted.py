"""Paint fluid into chest films without a finding, and count how many of them ``cxr-triage`` flags then.

    python tools/models/cxr_painted.py --data FOLDER [--show FOLDER]

A network that looks for fluid flags many of them. Writes the block ``painted_fluid`` of the package's ``metrics.json``,
and its card anew; all else in ``metrics.json`` stays as it is. The films are images that the shipped network was
fitted on. ``--show`` writes them as pictures besides: as they are, right side painted, both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/train")]

from cxr.card import card_text  # noqa: E402 - found by the line above
from cxr.data import Row, digest_of, read_rows  # noqa: E402
from cxr.figures import wilson  # noqa: E402

from appliance.simulate.phantom import Draw, Floats, f32, ramp  # noqa: E402
from appliance.simulate.projection import plane  # noqa: E402
from appliance.simulate.thorax_lifelike import LifelikeThorax  # noqa: E402
from engines.errors import ContentError  # noqa: E402
from engines.package import load_package  # noqa: E402
from engines.pipeline import Pipeline  # noqa: E402
from engines.types import Image, Stack  # noqa: E402

FOLDER = ROOT / "engines/models/cxr-triage"
SEED = 0
#: Films whose scores are kept, for a test that scores them again.
CHECKED = 6
RIGHT, LEFT = -1, 1
#: What is painted, by the name of its figure.
PAINTED: dict[str, tuple[int, ...]] = {"flagged_plain": (), "flagged_right": (RIGHT,), "flagged_both": (RIGHT, LEFT)}
#: Of the film in mm, as the chest of the simulator has it.
_FIELD_MM = 400.0
#: At the side, along the chest wall, from the middle of the right diaphragm upwards: half of the lung and more.
_HEIGHT_MM = (150.0, 190.0)
#: Share of a film's differences that is seen through the fluid: ribs, faintly.
_SEEN_THROUGH = 0.12

Film = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Lie:
    """Where the lungs of a film lie, beside those of the simulator's chest."""

    #: Width by side.
    wide: dict[int, float]
    #: How much lower the right diaphragm is.
    lower_mm: float


def films_of(rows: list[Row]) -> list[Row]:
    """Adults, PA, without a finding."""
    return [row for row in rows if row.labels == {"No Finding"} and row.view == "PA" and row.age >= 18]


def read(folder: Path, row: Row) -> Film:
    """The film of a row, [N, N]."""
    film = cv2.imread(str(folder / row.file), cv2.IMREAD_GRAYSCALE)
    if film is None or film.shape[0] != film.shape[1]:
        raise SystemExit(f"{folder / row.file}: cannot be read, or is not square; labels.csv names it")
    return film.astype(np.uint8)


def _chest(film: Film, lie: Lie, side: int) -> LifelikeThorax:
    """The simulator's chest, moved and stretched to the film's."""
    u, v, _ = plane(len(film), _FIELD_MM)
    return LifelikeThorax(Draw("chest_xray", SEED), f32(u / lie.wide[side]), f32(v - lie.lower_mm))


def _floor(chest: LifelikeThorax, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns through the lung, and the row in which each leaves it: the diaphragm."""
    deep = (chest.lung > 15) & (chest.u * side > 45) & (chest.u * side < 105)
    columns = np.flatnonzero(deep.any(axis=0))
    return columns, len(deep) - 1 - deep[::-1, columns].argmax(axis=0)


def lie_of(film: Film) -> Lie:
    """Find chest wall and right diaphragm: where a film becomes brightest, outwards and downwards."""
    soft = cv2.GaussianBlur(film.astype(np.float32), (0, 0), len(film) / 128)
    outwards, downwards = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    middle, mm = (len(film) - 1) / 2, _FIELD_MM / len(film)
    chest = _chest(film, Lie({RIGHT: 1, LEFT: 1}, 0), RIGHT)
    rows = np.arange(round(middle - 60 / mm), round(middle + 60 / mm))
    wall = (chest.cavity / chest.u[0, -1] * middle)[rows, 0]  # in pixels from the middle

    def wide(side: int) -> float:
        def steep(factor: float) -> float:
            columns = np.clip(np.rint(middle + side * wall * factor), 0, len(film) - 1).astype(int)
            return float(np.clip(side * outwards[rows, columns], -20, 40).mean()) - 10 * abs(factor - 1)

        return max(np.arange(0.8, 1.36, 0.02).tolist(), key=steep)

    found = {side: wide(side) for side in (RIGHT, LEFT)}
    columns, floor = _floor(_chest(film, Lie(found, 0), RIGHT), RIGHT)

    def steep(lower_mm: float) -> float:
        below = np.clip(np.rint(floor + lower_mm / mm), 0, len(film) - 1).astype(int)
        return float(np.clip(downwards[below, columns], -20, 40).mean()) - 0.2 * abs(lower_mm)

    return Lie(found, max(np.arange(-60.0, 51, 2).tolist(), key=steep))


def paint(film: Film, sides: tuple[int, ...], number: int) -> Film:
    """Film ``number`` with a large effusion on these sides: as white as its liver, or nearly as its heart."""
    if not sides:
        return film
    rng = np.random.default_rng([SEED, number])
    heights = dict(zip((RIGHT, LEFT), rng.uniform(*_HEIGHT_MM, 2), strict=True))
    lie, out = lie_of(film), film.astype(np.float32)
    columns, floor = _floor(_chest(film, lie, RIGHT), RIGHT)
    mm = _FIELD_MM / len(film)
    under = np.clip(floor + np.arange(round(8 / mm), round(60 / mm))[:, None], 0, len(film) - 1)
    middle = len(film) // 2
    heart = out[middle : middle + round(80 / mm), middle - round(15 / mm) : middle + round(25 / mm)]
    white = max(float(np.percentile(out[under, columns[None]], 70)), 0.9 * float(np.median(heart)))
    grain = rng.normal(0, 2, film.shape)
    exposed = ramp(cv2.GaussianBlur(out, (0, 0), 2), 8, 25)  # not where the film is black: collimated, or air
    for side in sides:
        share = _share(_chest(film, lie, side), side, heights[side]) * exposed
        out += share * np.maximum(white + _SEEN_THROUGH * (out - white) + grain - out, 0)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _share(chest: LifelikeThorax, side: int, height_mm: float) -> Floats:
    """Of each ray's lung that fluid has taken: within the chest wall, and as far down as a lung can reach."""
    within = ramp(chest.cavity - chest.side, -5, 5) * (1 - ramp(chest.v, 150, 190))
    return f32(chest.fluid(side, height_mm) * within)


def score(pipeline: Pipeline, film: Film) -> float | None:
    """For effusion, as the box would give it; ``None`` where the guard refuses the film."""
    ((role, taken),) = pipeline.inputs.items()
    prepared = taken.preprocessor.prepare(Image(id="", array=film))
    try:
        said = pipeline.finish({role: Stack(slices=(prepared,))}).output
    except ContentError:
        return None
    return round(float(said.scores["effusion"]), 4)


def scores_of(pipeline: Pipeline, film: Film, number: int) -> list[float | None]:
    """Of a film as it is, with fluid on the right, on both sides."""
    return [score(pipeline, paint(film, sides, number)) for sides in PAINTED.values()]


def measure(data: Path, rows: list[Row]) -> dict[str, Any]:
    """The block ``painted_fluid``."""
    package = load_package(FOLDER, trusted=True)
    least = next(p.threshold for p in package.manifest.finding("effusion").operating_points if p.default)
    with Pipeline(package) as pipeline:
        films = [read(data, row) for row in rows]
        seen = [scores_of(pipeline, film, number) for number, film in enumerate(films)]
    return {
        "films": len(rows),
        **{name: _told(column, least) for name, column in zip(PAINTED, zip(*seen, strict=True), strict=True)},
        "hardly_changed": sum(_hardly_changed(film, number) for number, film in enumerate(films)),
        "seed": SEED,
        "code_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "check": {"first_films": CHECKED, "scores": seen[:CHECKED]},
    }


def _hardly_changed(film: Film, number: int) -> bool:
    """Whether fluid on the right whitens little of that half: a very light film, or a side that is opaque already."""
    half = len(film) // 2
    whiter = paint(film, (RIGHT,), number)[:, :half].astype(int) - film[:, :half]
    return bool((whiter > 10).mean() < 0.08)


def _told(scores: Sequence[float | None], least: float) -> dict[str, Any]:
    """How many are flagged; a film that the guard refuses is not."""
    count = sum(one is not None and one >= least for one in scores)
    return {
        "count": count,
        "share": round(count / len(scores), 3),
        "interval": wilson(count, len(scores)),
        "refused": scores.count(None),
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Count what cxr-triage flags of films with painted fluid")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images it names")
    parser.add_argument("--show", type=Path, help="a folder to write the films to; metrics.json and card stay")
    asked = parser.parse_args()
    every = read_rows(asked.data)
    rows = films_of(every)
    if asked.show:
        asked.show.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows):
            film = read(asked.data, row)
            beside = np.hstack([paint(film, sides, number) for sides in PAINTED.values()])
            cv2.imwrite(str(asked.show / f"{number:02}.png"), beside)
        return 0
    path = FOLDER / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if digest_of(asked.data, every) != metrics["data"]["sha256"]:
        raise SystemExit(f"{asked.data}: other images than {path} tells of; train with them first")
    metrics["painted_fluid"] = measure(asked.data, rows)
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (FOLDER / "CARD.md").write_text(card_text(metrics), encoding="utf-8")
    print(json.dumps(metrics["painted_fluid"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
