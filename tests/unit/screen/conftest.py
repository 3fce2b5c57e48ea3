"""A store in any state of the alert screen, on a fake clock."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import web_kit


@pytest.fixture(scope="session")
def scenes(repo):
    """tools/screen_scenes.py."""
    spec = importlib.util.spec_from_file_location("screen_scenes", repo / "tools" / "screen_scenes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["screen_scenes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(store):
    """``write(function, ...)``: call a function of the scenes in one transaction."""

    def call(function, *arguments, **more):
        with store.db.write() as tx:
            return function(tx, *arguments, **more)

    return call


@pytest.fixture(scope="package", autouse=True)
def _what_all_applications_share_is_made_once():
    with web_kit.made_once():
        yield
