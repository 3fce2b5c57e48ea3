from __future__ import annotations

import shutil

import pytest
import toy_packages

from engines.package import bundled_packages, load_package
from engines.pipeline import Pipeline


@pytest.fixture(scope="session")
def head_package():
    return load_package(bundled_packages()["head-ct-hyperdensity"])


@pytest.fixture(scope="session")
def head_pipeline(head_package):
    with Pipeline(head_package) as pipeline:
        pipeline.warmup()
        yield pipeline


@pytest.fixture
def toy(tmp_path):
    """``toy(name=...)``: a loaded toy X-ray package with changed manifest keys."""

    def make(**changes):
        shutil.rmtree(tmp_path / "toy", ignore_errors=True)
        return load_package(toy_packages.make_toy_xray_package(tmp_path / "toy", **changes), trusted=True)

    return make


@pytest.fixture
def fake(tmp_path):
    """``fake("nan")``: a loaded package whose engine misbehaves."""
    return lambda mode, **more: load_package(
        toy_packages.make_fake_package(tmp_path / mode, mode, **more), trusted=True
    )
