"""Every bundled package: graph, code, data, figures, card, manifest and README are of one make."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import readme_table
import recipes

from appliance.config import load_config
from engines.package import bundled_packages, load_package

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = bundled_packages()


def test_every_bundled_package_has_a_recipe_that_makes_it():
    assert sorted(FOLDERS.keys() - recipes.RECIPES.keys()) == [], "name in tools/models/recipes.py what makes it"
    for recipe in recipes.RECIPES.values():
        for command in recipe.commands:
            assert (ROOT / command.split()[0]).exists(), command


@pytest.mark.req("R-MODEL-02")
@pytest.mark.parametrize("name", FOLDERS)
def test_metrics_belong_to_the_graph_the_code_and_the_phantoms_that_ship(name):
    assert recipes.stale(name, FOLDERS[name]) == []
    metrics = recipes.metrics_of(FOLDERS[name])
    told = json.dumps(metrics)
    assert metrics.keys() >= {"package", "onnx_sha256", "code_sha256", "shared_sha256"}
    assert "phantoms_sha256" in metrics or len(metrics["data"]["sha256"]) == 64, "a hash of what it was measured on"
    assert '"seed' in told or "first_seed" in told


@pytest.mark.parametrize("changed", ["model.onnx", "metrics.json"])
def test_a_change_of_graph_or_metrics_is_noticed(changed, tmp_path):
    name = "head-ct-hyperdensity"
    copy = tmp_path / name
    copy.mkdir()
    for path in FOLDERS[name].rglob("*"):
        target = copy / path.relative_to(FOLDERS[name])
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    held = (copy / changed).read_bytes()
    (copy / changed).write_bytes(held.replace(b"code_sha256", b"cold_sha256") if changed[-1] == "n" else held + b"\0\0")
    said = " ".join(recipes.stale(name, copy))
    assert ("onnx_sha256 is another now" if changed == "model.onnx" else "nothing says what cold_sha256 is of") in said
    assert "make models ARGS=head-ct-hyperdensity" in said


@pytest.mark.parametrize("name", FOLDERS)
def test_changed_code_is_noticed(name, monkeypatch):
    recipe = recipes.RECIPES[name]
    before = recipes.code_sha256(recipe)
    read = Path.read_bytes
    first = next(p for p in sorted(ROOT.glob(recipe.code[0])) if p.name not in recipe.texts)
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path == first else b""))
    assert recipes.code_sha256(recipe) != before


def _imported(path):
    """Files of the repository that a file names in an import, as far as what they say may change a figure."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    roots = (ROOT, ROOT / "tools/train", ROOT / "tools/models")
    found = {root / f"{name.replace('.', '/')}.py" for name in names for root in roots}
    folders = ("tools/", "appliance/simulate/", "engines/heads/", "engines/preprocess/")
    told = {str(one.relative_to(ROOT)) for one in found if one.is_file()}
    return {one for one in told if one.startswith(folders) and not one.endswith("/base.py")}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hash_holds_every_tool_phantom_and_rule_that_a_package_is_made_with(name):
    recipe = recipes.RECIPES[name]
    own = {str(path.relative_to(ROOT)) for pattern in recipe.code for path in ROOT.glob(pattern)}
    hashed = own | set(recipe.shared) | set(recipe.files.values())
    own |= {command.split()[0] for command in recipe.commands if command.split()[0].endswith(".py")}
    drawn = {path for path in recipe.shared if path.startswith("appliance/simulate/") and path.endswith(".py")}
    needed = own.union(*(_imported(ROOT / path) for path in own | drawn))
    texts = {path for path in needed if Path(path).name in recipe.texts}
    assert needed - hashed - texts == set(), "name them under shared in tools/models/recipes.py"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_change_of_what_packages_share_is_noticed(name, monkeypatch):
    read, last = Path.read_bytes, ROOT / recipes.RECIPES[name].shared[-1]
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path == last else b""))
    assert f"{name}: shared_sha256 is another now; run make models ARGS={name}" in recipes.stale(name, FOLDERS[name])


def test_what_is_shared_is_kept_beside_all_else(tmp_path):
    before = recipes.metrics_of(FOLDERS["cxr-quality"])
    (tmp_path / "metrics.json").write_text(json.dumps({key: before[key] for key in before if key != "shared_sha256"}))
    recipes.keep_shared(tmp_path, before["shared_sha256"])
    assert recipes.metrics_of(tmp_path) == before


@pytest.mark.req("R-MODEL-02")
@pytest.mark.parametrize("name", FOLDERS)
def test_card_says_each_figure_of_the_manifest_or_is_written_from_the_metrics(name, monkeypatch):
    folder = FOLDERS[name]
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert "NOT FOR CLINICAL USE" in card
    maker = ROOT / recipes.RECIPES[name].commands[0].split()[0]
    if (maker / "card.py").exists():
        monkeypatch.syspath_prepend(str(maker.parent))
        written = importlib.import_module(f"{maker.name}.card")
        metrics = recipes.metrics_of(folder)
        assert card == written.card_text(metrics)
        assert (folder / "model.yaml").read_text(encoding="utf-8") == written.manifest_text(metrics)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("|")]
    for finding in load_package(folder, trusted=True).manifest.findings:
        for point in finding.operating_points:
            if point.sensitivity is None:
                continue  # a measurement
            told = [
                row
                for row in rows
                if row[0] == point.name
                and any(cell.startswith(f"{point.sensitivity:.3f}") for cell in row)
                and any(cell.startswith(f"{point.specificity:.3f}") for cell in row)
            ]
            assert any(float(row[1]) == point.threshold for row in told), (finding.id, point.name)


@pytest.mark.req("R-MODEL-08")
def test_readme_holds_the_table_that_manifests_and_metrics_give():
    table = readme_table.table(FOLDERS)
    assert readme_table.is_new(ROOT / "README.md", table), "run .venv/bin/python tools/models --readme"
    for name in FOLDERS:
        assert f"| [{name}](engines/models/{name}/CARD.md)" in table
    for words in (
        "effusion: sensitivity 0.71 (0.57-0.83)",
        "does NOT look for pneumothorax",
        "Too good by an unknown",
        "Any of them on good images: 4",
    ):
        assert words in table
    assert "NOT FOR CLINICAL USE" in (ROOT / "README.md").read_text().partition(readme_table.BEGIN)[0][-600:]


def test_interval_of_a_share_is_wilsons():
    assert readme_table._wilson(1.0, 50) == pytest.approx((0.929, 1.0), abs=0.001)
    assert readme_table._wilson(0.92, 150) == pytest.approx((0.866, 0.954), abs=0.001)


def _models(*arguments, **env):
    command = [sys.executable, ROOT / "tools/models", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env or None)


@pytest.mark.req("R-MODEL-08")
def test_make_models_says_what_it_lacks_to_train_and_leaves_the_package_alone(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in FOLDERS["cxr-triage"].rglob("*")}
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nheld = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'torch' else held(name, *more)\n"
    )
    lacking = _models("cxr-triage", PYTHONPATH=str(tmp_path))
    assert lacking.returncode == 1
    assert "left out, it needs PyTorch" in lacking.stdout
    assert {path: path.stat().st_mtime_ns for path in FOLDERS["cxr-triage"].rglob("*")} == before


@pytest.mark.req("R-MODEL-01")
def test_shipped_configuration_runs_bundled_packages_with_all_that_they_require():
    entries = load_config(ROOT / "config/appliance.yaml").packages
    named = [entry.name for entry in entries]
    assert {"head-ct-hyperdensity", "cxr-triage"} <= set(named) <= set(FOLDERS)
    for entry in entries:
        assert entry.role == "live"
        required = {one.package for one in load_package(FOLDERS[entry.name]).manifest.requires}
        assert required <= set(named), entry.name
