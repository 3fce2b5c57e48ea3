"""How each bundled package is made, and what the hashes in its ``metrics.json`` are of.

A new bundled package gets an entry here: a test asks for it. Commands run in the root of the repository, in this order;
``{data}`` stands for the folder of images that the package learns from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.package import load_package

ROOT = Path(__file__).resolve().parents[2]
_PHANTOMS = "appliance/simulate/phantoms.yaml"
_PAINTED = "tools/models/cxr_painted.py"


def _simulated(*names: str) -> tuple[str, ...]:
    """Modules that draw phantoms, and what all of them rest on."""
    return tuple(f"appliance/simulate/{name}.py" for name in (*names, "phantom"))


_FILMS = (
    *_simulated("chest_xray", "knee_xray", "projection", "thorax", "thorax_lifelike"),
    _PHANTOMS,
    "engines/preprocess/xray.py",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What makes one package."""

    #: Arguments of Python.
    commands: tuple[str, ...]
    #: What ``code_sha256`` is of, in this order; a pattern stands for its files in order of name.
    code: tuple[str, ...]
    #: Those of the files of a pattern that are left out: texts, which may change.
    texts: tuple[str, ...] = ()
    #: Whether ``code_sha256`` is of the digests of the files, one after another, and not of the files themselves.
    of_digests: bool = False
    #: Further keys of ``metrics.json``, with points between levels: the file that each is the SHA-256 of.
    files: Mapping[str, str] = field(default_factory=dict)
    #: What ``shared_sha256`` is of, in this order: further files of its own, and those that others rest on too.
    shared: tuple[str, ...] = ()
    #: Whether it is trained, which needs PyTorch (``pip install '.[train]'``).
    trained: bool = False
    #: Name of the folder of images below ``SCANSIDE_TEST_DATA``, or empty.
    data: str = ""
    #: Where sensitivity and specificity were counted: keys of ``metrics.json``, and of what.
    counted: tuple[str, str] = ("", "")
    counted_of: str = ""
    #: What must be said beside the figures.
    caution: str = ""


def _of_folder(folder: str, arguments: str, *then: str, **more: Any) -> Recipe:
    """A package that one command of ``tools/train`` makes whole, and commands that measure it further."""
    command, code = f"{folder} {arguments}", f"{folder}/*.py"
    return Recipe(commands=(command, *then), code=(code,), texts=("card.py",), of_digests=True, **more)


RECIPES = {
    "chest-ct-nodule": Recipe(
        commands=(
            "tools/models/chest_nodule.py",
            "tools/models/chest_nodule_golden.py",
            "tools/models/chest_nodule_measure.py",
        ),
        code=(
            "tools/models/chest_nodule.py",
            "engines/heads/nodule.py",
            "engines/heads/lung_cover.py",
            "engines/preprocess/ct_lungs.py",
            "engines/preprocess/lungs.py",
        ),
        files={"phantoms_sha256": _PHANTOMS, "ranges_sha256": "tools/models/chest_nodule_ranges.yaml"},
        shared=(
            *_simulated("chest_anatomy", "chest_ct"),
            "engines/grid.py",
            "engines/peaks.py",
            "engines/heads/maps.py",
            "engines/preprocess/ct_volume.py",
            "tools/models/chest_nodule_golden.py",
            "tools/models/chest_nodule_measure.py",
            "tools/models/chest_nodule_phantoms.py",
            "tools/models/example_package.py",
            "tools/models/head_ct_phantoms.py",
        ),
        counted=("nodules.solid", "scans.empty"),
        counted_of="nodules of 5-20 mm; chests without",
        caution="Phantoms of the same maker as those that the rule was made on.",
    ),
    "bone-age": _of_folder(
        "tools/train/bone_age",
        "--untrained",
        shared=(*_simulated("projection"), "engines/preprocess/xray.py"),
        caution="None: its weights are not trained, and it refuses to activate.",
    ),
    "cxr-quality": _of_folder(
        "tools/train/cxr_quality",
        "--data {data}",
        shared=(*_FILMS, *(f"tools/train/cxr/{name}.py" for name in ("data", "export", "figures"))),
        trained=True,
        data="cxr_nih",
        caution="Every fault was made by a program, of one hospital's films; cuts of the lung bases are often missed.",
    ),
    "cxr-triage": _of_folder(
        "tools/train/cxr",
        "--data {data}",
        f"{_PAINTED} --data {{data}}",
        files={"painted_fluid.code_sha256": _PAINTED},
        shared=_FILMS,
        trained=True,
        data="cxr_nih",
        caution="Too good by an unknown amount: recipe and thresholds were chosen on the same films, of one hospital. "
        "It hardly sees fluid that is painted into films.",
    ),
    "head-ct-hyperdensity": Recipe(
        commands=(
            "tools/models/head_ct.py",
            "tools/models/golden_head_ct.py",
            "tools/models/measure_head_ct.py",
        ),
        code=(
            "engines/preprocess/ct_slabs.py",
            "engines/heads/brain_guard.py",
            "engines/heads/bright.py",
            "engines/heads/head_cover.py",
            "engines/heads/hyperdensity.py",
            "engines/heads/slice_order.py",
        ),
        files={"phantoms_sha256": _PHANTOMS, "ranges_sha256": "tools/models/head_ct_phantoms.yaml"},
        shared=(
            *_simulated("bleed", "head", "head_anatomy", "head_brain", "head_place", "head_skull"),
            "tools/models/ball_head.py",
            "tools/models/golden_head_ct.py",
            "tools/models/head_ct.py",
            "tools/models/head_ct_phantoms.py",
            "tools/models/measure_head_ct.py",
        ),
        counted=("phantoms.kinds", "phantoms.without_bleed"),
        counted_of="bleeds; heads without",
        caution="Phantoms of the same makers as those that the rule was made on.",
    ),
}


def metrics_of(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a package."""
    held: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return held


def held_at(metrics: Mapping[str, Any], path: str) -> Any:
    """What stands under a key, with points between levels; ``None`` where nothing does."""
    held: Any = metrics
    for key in path.split("."):
        held = held.get(key) if isinstance(held, Mapping) else None
    return held


def code_sha256(recipe: Recipe) -> str:
    """Of the files that the recipe names as code."""
    told = hashlib.sha256()
    for pattern in recipe.code:
        for path in sorted(ROOT.glob(pattern)):
            if path.name not in recipe.texts:
                held = path.read_bytes()
                told.update(hashlib.sha256(held).digest() if recipe.of_digests else held)
    return told.hexdigest()


def shared_sha256(recipe: Recipe) -> str:
    """Of the digests of the files that the recipe shares, one after another."""
    told = hashlib.sha256()
    for path in recipe.shared:
        told.update(hashlib.sha256((ROOT / path).read_bytes()).digest())
    return told.hexdigest()


def keep_shared(folder: Path, told: str) -> None:
    """Write ``shared_sha256`` into ``metrics.json``: its makers know nothing of what they share."""
    text = json.dumps(metrics_of(folder) | {"shared_sha256": told}, indent=2)
    (folder / "metrics.json").write_text(f"{text}\n", encoding="utf-8")


def stale(name: str, folder: Path) -> list[str]:
    """What of a package is no longer what its ``metrics.json`` was computed from, by hash; seconds at most."""
    recipe, metrics, package = RECIPES[name], metrics_of(folder), load_package(folder, trusted=True)
    found = {
        "package": f"{package.name} {package.version}",
        "onnx_sha256": hashlib.sha256(package.read_onnx()).hexdigest(),
        "code_sha256": code_sha256(recipe),
        "shared_sha256": shared_sha256(recipe),
    }
    found |= {key: hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for key, path in recipe.files.items()}
    out = [
        f"{name}: {key} is another now; run make models ARGS={name}"
        for key in found
        if held_at(metrics, key) != found[key]
    ]
    return out + [f"{name}: nothing says what {key} is of; name it in {__file__}" for key in _unknown(metrics, found)]


def _unknown(metrics: Mapping[str, Any], found: Mapping[str, str]) -> list[str]:
    return [key for key in metrics if key.endswith("_sha256") and key not in found]
