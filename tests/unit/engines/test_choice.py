"""Which of a box's engines a package runs on: the wished one, what stands in for it, and why it is not there."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
import toy_packages

from engines.build import engine_key
from engines.choice import candidates, open_best
from engines.package import load_package
from engines.store import EngineStore

FLAVOUR = "onnxruntime"


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "engines")


@pytest.fixture
def package(tmp_path):
    return load_package(toy_packages.make_toy_xray_package(tmp_path / "p", precisions=["fp32", "fp16"]), trusted=True)


def accepted(store, package, precision="fp16", plan=None):
    entry = store.put(
        engine_key(package, precision=precision, flavour=FLAVOUR),
        package=package.name,
        version=package.version,
        precision=precision,
        plans=[package.read_onnx() if plan is None else plan],
        facts={},
    )
    return store.accept(entry.digest, {})


def choose(store, package):
    choice = open_best(package, root=store.root, flavour=FLAVOUR, precision="fp16", threads=1)
    for session in choice.sessions:
        session.close()
    return choice


@pytest.mark.req("R-SERVE-06")
def test_an_engine_that_cannot_be_read_just_now_is_not_given_up_for_that(store, package, monkeypatch):
    entry, really = accepted(store, package), os.open

    def opened(path, *args, **more):
        if path == "stage-0.plan":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(path, *args, **more)

    monkeypatch.setattr(os, "open", opened)
    choice = choose(store, package)
    assert (choice.entry, choice.lacks_engine) == (None, False)
    assert "cannot be read now" in choice.fallback
    monkeypatch.undo()
    assert choose(store, package).entry == entry


@pytest.mark.req("R-BUILD-05")
@pytest.mark.parametrize(
    "change",
    [{"driver": "12080"}, {"version": "10.4.0"}, {"gpu": "Thor"}, {"recipe": "fp32-2"}, {"onnx": ("b" * 64,)}],
    ids=lambda change: f"changed {next(iter(change))}",
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_changed_driver_library_gpu_recipe_or_graph_makes_an_engine_stale(store, package, precision, change):
    entry = accepted(store, package, precision)
    key = engine_key(package, precision="fp32", flavour=FLAVOUR)
    assert list(candidates(package, store.entries(), key, "fp32")) == [entry]
    if precision == "fp32" or "recipe" not in change:  # a stand-in has a recipe of its own
        assert list(candidates(package, store.entries(), replace(key, **change), "fp32")) == []


@pytest.mark.req("R-SERVE-06")
def test_an_engine_that_does_not_open_is_rejected_and_another_precision_stands_in_for_it(store, package):
    other = accepted(store, package, "fp32")
    broken = accepted(store, package, plan=b"no graph")
    choice = choose(store, package)
    assert (choice.entry, choice.lacks_engine) == (other, False)
    assert "was rejected: it does not open" in choice.fallback
    assert store.entry(broken.digest).state == "rejected"
