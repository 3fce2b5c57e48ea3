"""Acceptance in its child, as its parent sees it."""

from __future__ import annotations

import errno
import os

import pytest
import toy_packages

from engines import prove
from engines.build import engine_key
from engines.errors import BuildError
from engines.package import load_package
from engines.store import EngineStore


@pytest.mark.req("R-SERVE-02")
def test_an_engine_that_acceptance_cannot_read_just_now_gets_no_verdict(tmp_path, monkeypatch):
    package = load_package(toy_packages.make_toy_xray_package(tmp_path / "p"), trusted=True)
    store, really = EngineStore(tmp_path / "engines"), os.open
    entry = store.put(
        engine_key(package, precision="fp32", flavour="onnxruntime"),
        package=package.name,
        version=package.version,
        precision="fp32",
        plans=[package.read_onnx()],
        facts={},
    )

    def opened(path, *args, **more):
        if path == "stage-0.plan":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(path, *args, **more)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "nice", lambda _: 0)  # the child's work is done in this process
    monkeypatch.setattr(prove, "run_limited", lambda _module, request, *_: prove.handle(request, lambda _: None))
    with pytest.raises(BuildError, match="cannot be read now") as caught:
        prove.prove_engine(package, entry, store)
    assert caught.value.kind == "unreadable"
    assert store.entry(entry.digest).state == "verifying"
