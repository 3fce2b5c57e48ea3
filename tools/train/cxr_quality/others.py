"""Pictures that are no chest, drawn: knees, heads, hands, limbs, bellies, chests from the side; and empty detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from cxr.data import FOLDS
from numpy.typing import NDArray

from appliance.simulate.chest_xray import Effusion, Opacity, chest_xray
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.projection import solid, stroke, tube
from cxr_quality.faults import FAULTS, SIDE, Made, Patient, Rng, banded, grain, made, marked

#: Which way up a knee lies, and whether it is whole, is not asked; that it is neither blank nor doubled is.
_UNASKED = frozenset(FAULTS) - {"blank", "double-exposure"}
Grey = NDArray[np.floating]
Point = tuple[float, float]
#: Seeds of phantoms that only training sees; golden cases and tests take small ones.
FIRST_SEED = 60_000


def _plane() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    along = np.linspace(-1, 1, SIDE, dtype=np.float32)
    return along[None, :], along[:, None]


def _bar(
    canvas: Grey, start: tuple[float, float], angle: float, length: float, wide: float, weight: float
) -> tuple[float, float]:
    """A bone or finger from ``start``; where it ends."""
    end = (start[0] + length * float(np.sin(angle)), start[1] + length * float(np.cos(angle)))
    stroke(canvas, _plane(), start, end, radii=(wide, wide * 0.85), weight=weight)
    return end


def knee(rng: Rng) -> Grey:
    """A knee from the front."""
    return knee_xray(FIRST_SEED + int(rng.integers(10_000)), matrix=SIDE).pixels / 4095


def limb(rng: Rng) -> Grey:
    """One or two long bones in flesh: forearm, upper arm, thigh, shin."""
    flesh, bone = np.zeros((2, SIDE, SIDE), np.float32)
    wide, slant = rng.uniform(0.25, 0.6), rng.uniform(-0.3, 0.3)
    _bar(flesh, (-1.3 * slant, -1.3), slant, 2.8, wide, 1.0)
    for side in (0.0,) if rng.random() < 0.5 else (-0.45, 0.4):
        thick = wide * rng.uniform(0.18, 0.32)
        start, length = (side * wide - 1.3 * slant, -1.3 + rng.uniform(0, 0.6)), rng.uniform(1.6, 2.8)
        _bar(bone, start, slant + rng.uniform(-0.05, 0.05), length, thick, 1.6)
        _bar(bone, start, slant, 0.12, thick * 1.6, 1.2)
    return flesh * 0.5 + bone


def hand(rng: Rng) -> Grey:
    """A hand or a foot: rays of several bones each, and a root."""
    flesh, bone = np.zeros((2, SIDE, SIDE), np.float32)
    root, length = (rng.uniform(-0.1, 0.1), rng.uniform(0.35, 0.6)), rng.uniform(0.28, 0.4)
    for ray in np.linspace(-0.6, 0.6, 5) * rng.uniform(0.5, 1.1):
        angle, at, size = np.pi - ray, (root[0] + 0.35 * float(ray), root[1]), length * rng.uniform(0.8, 1.1)
        for wide in (0.06, 0.05, 0.045, 0.035):
            _bar(flesh, at, angle, size, wide * 2, 0.8)
            at = _bar(bone, at, angle, size * 0.92, wide * 0.75, 2.5)
            size *= 0.62
    _bar(flesh, root, 0, 0.8, 0.32, 0.5)
    _bar(bone, (root[0] - 0.12, root[1] + 0.15), 0, 0.9, 0.09, 2.0)
    _bar(bone, (root[0] + 0.12, root[1] + 0.15), 0, 0.9, 0.07, 2.0)
    return flesh + bone


def head(rng: Rng) -> Grey:
    """A skull, from the front or the side."""
    u, v = _plane()
    wide, high = rng.uniform(0.5, 0.85), rng.uniform(0.65, 0.85)
    away = np.hypot(u / wide, (v + 0.1) / high)
    out = 0.6 * solid(away, 1.0) + 1.2 * tube(away, 1.0, rng.uniform(0.06, 0.12))
    for at in (-0.4, 0.4) if rng.random() < 0.5 else (0.6,):
        out = out - 0.35 * solid(np.hypot((u - at * wide) / 0.18, (v - 0.2) / 0.15), 1.0)
    jaw = np.hypot((u - rng.uniform(-0.2, 0.2)) / (wide * 0.7), (v - 0.55) / 0.3)
    neck = np.zeros((SIDE, SIDE), np.float32)
    _bar(neck, (0, 0.5), 0, 0.9, 0.3, 0.7)
    return out + 0.5 * tube(jaw, 1.0, 0.15) + neck


def belly(rng: Rng) -> Grey:
    """A belly or a pelvis from the front: spine, hips, gas."""
    u, v = _plane()
    out = 1.1 * np.sqrt(np.clip(1 - (u / rng.uniform(0.8, 1.15)) ** 4, 0, 1)) * np.ones_like(v)
    out = out + 0.5 * np.clip(1 - (u / 0.11) ** 6, 0, 1) * (np.abs(np.mod(8 * v, 2) - 1) < 0.8) * (v < 0.4)
    low = rng.uniform(0.2, 0.9)
    for sign in (-1, 1):
        wing = np.hypot((u - sign * 0.5) / 0.4, (v - low) / 0.35)
        out = out + 0.5 * tube(wing, 1.0, 0.3) + 0.4 * solid(np.hypot(u - sign * 0.55, v - low - 0.5), 0.16)
    for _ in range(rng.integers(3, 12)):
        at, size = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.04, 0.18, 2)
        out = out - 0.35 * solid(np.hypot((u - at[0]) / size[0], (v - at[1]) / size[1]), 1.0)
    return np.asarray(out)


def chest_from_the_side(rng: Rng) -> Grey:
    """One clear field between breastbone and spine, heart in front, ribs aslant."""
    u, v = _plane()
    lean = u - rng.uniform(-0.15, 0.15) * v
    out = np.sqrt(np.clip(1 - (lean / rng.uniform(0.75, 0.95)) ** 4, 0, 1)) + 0 * v
    field = np.clip(1 - np.hypot(lean / 0.62, (v + 0.05) / 0.78) ** 6, 0, 1) * (v < 0.45 + 0.3 * lean)
    out = out - 0.55 * field + 0.45 * solid(np.hypot((lean + 0.25) / 0.35, (v - 0.3) / 0.32), 1.0)
    out = out + 0.5 * np.clip(1 - ((lean - 0.5) / 0.12) ** 4, 0, 1) * (0.7 + 0.3 * (np.mod(7 * v, 1) < 0.75))
    return np.asarray(out + 0.12 * (np.mod(5 * (v - 0.6 * u), 1) < 0.2) * field + 0.2 * (v < -0.6))


def joint(rng: Rng) -> Grey:
    """Two bones that meet, bent: elbow, ankle, knee from the side."""
    flesh, bone = np.zeros((2, SIDE, SIDE), np.float32)
    at, bend = (rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)), rng.uniform(0.5, np.pi)
    for angle in (np.pi, bend):
        wide = rng.uniform(0.22, 0.4)
        _bar(flesh, at, angle, 2, wide, 1.0)
        _bar(bone, at, angle, 2, wide * rng.uniform(0.25, 0.4), 1.6)
    _bar(bone, at, 0, 0.1, 0.25, 1.2)
    return flesh * 0.4 + bone


OTHERS: dict[str, Callable[[Rng], Grey]] = {
    "knee": knee,
    "limb": limb,
    "hand": hand,
    "head": head,
    "belly": belly,
    "chest from the side": chest_from_the_side,
    "joint": joint,
}


def developed(drawn: Grey, rng: Rng) -> Grey:
    """Turned as it lies on the detector, with exposure, grain, frame and letter."""
    out = np.rot90(drawn, rng.integers(4)) if rng.random() < 0.5 else drawn
    out = np.ascontiguousarray(out - out.min()) / (np.ptp(out) + 1e-6)
    soft = cv2.resize(grain(rng, (16, 16), 1.0), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    out = out ** rng.uniform(0.4, 1.6) * (1 + rng.uniform(0, 0.15) * soft)
    out = out + grain(rng, out.shape, rng.uniform(0.003, 0.04))
    out = banded(out, rng) if rng.random() < 0.3 else out
    if rng.random() < 0.4:
        marked(out, rng)
    return out


def empty(rng: Rng) -> Grey:
    """A detector that met nobody: a slope of the field, grain, perhaps a frame, a letter, the table's edge."""
    u, v = _plane()
    level, angle = rng.uniform(0.05, 0.95), rng.uniform(0, 2 * np.pi)
    out = level + rng.choice([0.0, 0.02, 0.1, 0.4]) * (u * np.sin(angle) + v * np.cos(angle))
    out = out - rng.choice([0, 0, 0.1]) * (u * u + v * v)
    out = out + grain(rng, (SIDE, SIDE), 10 ** rng.uniform(-3, -0.7))
    if rng.random() < 0.3:
        out = out + rng.uniform(-0.3, 0.3) * (v > rng.uniform(-0.9, 0.9))
    if rng.random() < 0.3:
        out = banded(out, rng)
    if rng.random() < 0.4:
        marked(out, rng)
    return np.asarray(out)


def no_chests(each: int, seed: int) -> Iterator[Made]:
    """``each`` of every kind; folds go round. Which way up and how bright they are is not asked."""
    rng = np.random.default_rng(seed)
    for kind, draw in OTHERS.items():
        for number in range(each):
            shown = developed(draw(rng), rng)
            shown = 1 - shown if rng.random() < 0.15 else shown
            yield made(shown, kind, (f"{kind} {number}", number % FOLDS), "not-a-chest", unasked=_UNASKED)


def blanks(count: int, seed: int) -> Iterator[Made]:
    """Empty detectors."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        whose = (f"blank {number}", number % FOLDS)
        yield made(empty(rng), "blank", whose, "blank", unasked=frozenset({"not-a-chest", "inverted"}))


def phantoms(count: int) -> list[Patient]:
    """Phantoms of chests, plain and lifelike; some have an effusion or an opacity."""
    drawn: tuple[dict[str, Any], ...] = ({}, {"effusion": Effusion()}, {"opacity": Opacity()})
    pictures = [
        (chest_xray(FIRST_SEED + k, matrix=SIDE, lifelike=k % 2 == 1, **drawn[k % 3]).pixels / 4095).astype(np.float32)
        for k in range(count)
    ]
    return [
        Patient(f"phantom {k}", k % FOLDS, p, tuple(pictures[k % FOLDS :: FOLDS]), "phantom, ")
        for k, p in enumerate(pictures)
    ]
