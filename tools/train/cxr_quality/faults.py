"""Good chest pictures, and each fault made of them. Pictures are float32 0..1, [SIDE, SIDE], dense is bright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from cxr.data import prepare
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Rng = np.random.Generator
#: Rows and columns before the preprocessor shrinks them.
SIDE = 256
#: The findings in the order of the graph's output.
FAULTS = (
    "not-a-chest",
    "rotated-90",
    "rotated-180",
    "inverted",
    "lung-bases-cropped",
    "lung-apices-cropped",
    "lung-side-cropped",
    "blank",
    "double-exposure",
)
#: Which share of the height or width a cut takes away, in per cent.
SHALLOW, DEEP = (20, 30), (30, 45)


@dataclass(frozen=True)
class Made:
    """One picture as the graph gets it, and what is wrong with it."""

    #: [128, 128] uint8, 255 stands for 1.
    picture: NDArray[np.uint8]
    #: Faults that it has.
    faults: frozenset[str]
    #: Faults that are neither asked for nor forbidden, such as which way up a knee is.
    open: frozenset[str]
    #: How it was made; figures are told by kind.
    kind: str
    #: Whose picture it is, and the fold that this puts it in.
    owner: str
    fold: int


@dataclass(frozen=True)
class Patient:
    """One chest, and the chests of its fold that it may be exposed together with."""

    owner: str
    fold: int
    picture: Picture
    others: tuple[Picture, ...]
    #: Put before each kind.
    prefix: str = ""


def made(
    picture: NDArray[np.generic], kind: str, whose: tuple[str, int], *faults: str, unasked: frozenset[str]
) -> Made:
    """Put a picture through the preprocessor of the box; ``whose`` is (owner, fold)."""
    small = np.round(255 * prepare(picture)).astype(np.uint8)
    return Made(small, frozenset(faults), unasked - set(faults), kind, *whose)


def varied(picture: Picture, rng: Rng, smallest: float = 0.86) -> Picture:
    """The same patient taken slightly otherwise: tilt, place, size, exposure, grain, collimation. No fault."""
    side = picture.shape[0]
    around = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-6, 6), rng.uniform(smallest, 1.04))
    around[:, 2] += rng.uniform(-0.03, 0.03, 2) * side
    ground = float(rng.choice([0.0, np.percentile(picture, 2), picture[:8].mean()]))
    edge = cv2.BORDER_REPLICATE if rng.random() < 0.4 else cv2.BORDER_CONSTANT
    out = cv2.warpAffine(picture, around, (side, side), borderMode=edge, borderValue=ground)
    out = np.clip(out, 0, 1) ** rng.uniform(0.6, 1.6)
    out = out + grain(rng, out.shape, rng.uniform(0, 0.03))
    if rng.random() < 0.25 and smallest < 1:
        out = banded(out, rng)
    if rng.random() < 0.3:
        marked(out, rng)
    return np.asarray(out, np.float32)


def grain(rng: Rng, shape: tuple[int, ...], strength: float) -> Picture:
    """Noise of that standard deviation."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(strength)


def banded(picture: NDArray[np.floating], rng: Rng) -> NDArray[np.floating]:
    """Collimation that takes nothing away: the whole picture within a dark frame on some of its sides."""
    side = picture.shape[0]
    widths = (rng.uniform(0, 0.18, 4) * (rng.random(4) < 0.5) * side).astype(int)
    top, bottom, left, right = widths
    inner = cv2.resize(picture, (side - left - right, side - top - bottom), interpolation=cv2.INTER_AREA)
    out = np.full_like(picture, rng.choice([0.0, 1.0], p=[0.9, 0.1]))
    out[top : side - bottom, left : side - right] = inner
    return out


def marked(picture: NDArray[np.floating], rng: Rng) -> None:
    """A lead letter somewhere near the rim."""
    side = picture.shape[0]
    at = (int(rng.uniform(0.02, 0.9) * side), int(rng.choice([0.08, 0.12, 0.93, 0.5]) * side))
    letter = str(rng.choice(["L", "R", "AP", "PORTABLE"]))
    drawn = np.zeros(picture.shape, np.uint8)
    cv2.putText(drawn, letter, at, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.25, 0.7), 255, 1)
    picture[drawn > 100] = max(1.0, float(picture.max()))


def cropped(picture: Picture, where: str, percent: tuple[int, int], rng: Rng) -> Picture:
    """A strip is missing on one side: the rest fills the picture, or lies shifted with ground beside it."""
    side = picture.shape[0]
    lost = round(side * rng.uniform(*percent) / 100)
    turns = {"bottom": 0, "left": 1, "top": 2, "right": 3}[where]
    kept = np.rot90(picture, turns)[: side - lost]
    if rng.random() < 0.5:
        # Shifted: what is beyond the patient on the other side is ground, drawn out from the rim or dark.
        above = np.repeat(kept[:1], lost, 0) if rng.random() < 0.5 else np.zeros((lost, side), np.float32)
        kept = np.concatenate([above + grain(rng, above.shape, 0.01), kept])
    kept = np.rot90(kept, -turns)
    return np.asarray(cv2.resize(np.ascontiguousarray(kept), (side, side), interpolation=cv2.INTER_AREA), np.float32)


def doubled(one: Picture, other: Picture, rng: Rng) -> Picture:
    """Two exposures on one detector: what passed adds up, on a scale that is drawn."""
    share = rng.uniform(0.4, 0.6)
    if rng.random() < 0.4:
        both = share * one + (1 - share) * other
    else:
        steep = rng.uniform(1, 3)
        both = -np.log(share * np.exp(-steep * one) + (1 - share) * np.exp(-steep * other)) / steep
    return np.asarray(both, np.float32)


def moved(picture: Picture, rng: Rng) -> Picture:
    """The same patient a hand's breadth away, for a second exposure."""
    side = picture.shape[0]
    around = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-12, 12), rng.uniform(0.9, 1.1))
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.25) * side
    around[:, 2] += far * np.cos(angle), far * np.sin(angle)
    return np.asarray(cv2.warpAffine(picture, around, (side, side), borderMode=cv2.BORDER_REPLICATE), np.float32)


def part(picture: Picture, rng: Rng) -> Picture:
    """Shoulder, upper abdomen or spine: a part of a chest picture, enlarged, that shows no whole lung."""
    side = picture.shape[0]
    size = int(rng.uniform(0.25, 0.4) * side)
    places = [(0, 0), (0, side - size), (side - size, 0), (side - size, side - size), (side - size, (side - size) // 2)]
    top, left = places[rng.integers(len(places))]
    return picture[top : top + size, left : left + size] + grain(rng, (size, size), 0.004)


def of_one(patient: Patient, rng: Rng) -> Iterator[Made]:
    """Everything that is made of one chest."""
    picture, others, none = patient.picture, patient.others, frozenset[str]()
    whose = (patient.owner, patient.fold)

    def some() -> Picture:
        return varied(picture, rng)

    def another() -> Picture:
        return varied(others[rng.integers(len(others))], rng)

    yield made(picture, f"{patient.prefix}as it is", whose, unasked=none)
    tricks: list[tuple[str, int, tuple[str, ...], Callable[[], NDArray[np.generic]]]] = [
        ("slightly varied", 4, (), some),
        ("turned left", 1, ("rotated-90",), lambda: np.rot90(some(), 1)),
        ("turned right", 1, ("rotated-90",), lambda: np.rot90(some(), -1)),
        ("upside down", 1, ("rotated-180",), lambda: np.rot90(some(), 2)),
        ("inverted", 1, ("inverted",), lambda: 1 - some()),
        ("same patient twice", 2, ("double-exposure",), lambda: doubled(picture, moved(some(), rng), rng)),
        ("two patients", 2, ("double-exposure",), lambda: doubled(some(), another(), rng)),
        (
            "two patients, one turned",
            1,
            ("double-exposure",),
            lambda: doubled(some(), np.rot90(another(), rng.integers(1, 4)), rng),
        ),
        ("part of a chest", 1, ("not-a-chest",), lambda: np.rot90(part(picture, rng), rng.integers(4))),
    ]
    for kind, times, faults, trick in tricks:
        unasked = frozenset(FAULTS) if "not-a-chest" in faults else none
        for _ in range(times):
            shown = np.ascontiguousarray(trick())
            yield made(shown, patient.prefix + kind, whose, *faults, unasked=unasked)
    for what, times in (("bases", 2), ("apices", 1), ("side", 1)):
        for percent, more in ((SHALLOW, times), (DEEP, 1)):
            for _ in range(more):
                where = {"bases": "bottom", "apices": "top"}.get(what) or str(rng.choice(["left", "right"]))
                cut = cropped(varied(picture, rng, 1.0), where, percent, rng)
                kind = f"{patient.prefix}{what} cut off, {percent[0]}-{percent[1]} %"
                yield made(cut, kind, whose, f"lung-{what}-cropped", unasked=none)


def plain(picture: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """Faults of one chest (or of two) without any chance, for the check that a test repeats."""
    rows, columns = picture.shape
    return {
        "rotated-90": np.rot90(picture),
        "rotated-180": np.rot90(picture, 2),
        "inverted": 255 - picture,
        "lung-bases-cropped": picture[: round(0.65 * rows)],
        "lung-apices-cropped": picture[round(0.35 * rows) :],
        "lung-side-cropped": picture[:, : round(0.65 * columns)],
        "double-exposure": (picture.astype(np.float32) + np.rot90(other, 2)) / 2,
    }
