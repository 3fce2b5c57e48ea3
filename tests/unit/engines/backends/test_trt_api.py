"""The table of what we use of TensorRT, held against the live module and against our own code."""

from __future__ import annotations

import ast
import sys
import types
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from engines.backends import trt_api
from engines.backends.trt_api import RTX_ONLY, TRT_API_USED, FlavourError, load_flavour

BACKENDS = Path(trt_api.__file__).parent
FILES = sorted({*BACKENDS.glob("trt_*.py"), BACKENDS / "tensorrt.py"})
FLAT = set().union(*TRT_API_USED.values())
#: Gone from 11.x and TensorRT-RTX, or never to be used; they would not be seen on the live module.
GONE = {
    *("EXPLICIT_BATCH", "FP16", "INT8", "BF16", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"),
    *("int8_calibrator", "IInt8EntropyCalibrator2", "set_dynamic_range", "max_workspace_size", "set_output_type"),
    *("platform_has_fast_fp16", "platform_has_fast_int8", "build_engine", "device_memory_size", "get_binding_shape"),
    *("num_bindings", "execute_async", "execute_async_v2", "max_batch_size", "binding_is_input", "VERSION_COMPATIBLE"),
}
#: TensorRT has these names too, but here they are of our own classes; mypy sees to that, since no protocol has them.
OURS = {"logger", "mode", "opt"}
#: And these of arrays and containers.
COMMON = set().union(*(dir(kind) for kind in (np.ndarray, np.dtype, list, dict, set, str, bytes, deque)))


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip(
        "tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 test extra)", exc_type=ImportError
    )
    return load_flavour("tensorrt_rtx")


def find(module, path):
    for part in filter(None, path.split(".")):
        module = getattr(module, part)
    return module


@pytest.mark.req("R-BUILD-08")
@pytest.mark.parametrize("owner", TRT_API_USED)
def test_every_name_of_the_table_is_on_the_live_module(rtx, owner):
    assert [name for name in sorted(TRT_API_USED[owner]) if not hasattr(find(rtx.module, owner), name)] == []


@pytest.mark.req("R-BUILD-08")
def test_what_only_one_flavour_has_is_part_of_the_table_and_behind_a_switch(rtx):
    assert all(names <= TRT_API_USED[owner] for owner, names in RTX_ONLY.items())
    assert rtx.has_compute_capability
    assert rtx.has_runtime_cache


@pytest.fixture(scope="module")
def foreign(rtx):
    """Names that TensorRT has, or had, and that are not in the table."""
    names = set(GONE)
    for name, held in vars(rtx.module).items():
        if not name.startswith("_"):
            names.add(name)
            if isinstance(held, type):
                names.update(n for n in dir(held) if not n.startswith("_"))
    return names - FLAT - OURS - COMMON


def used_names(path):
    """(line, name) of every attribute and every name handed to getattr or hasattr."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"getattr", "hasattr", "setattr"}:
            for given in node.args[1:2]:
                if isinstance(given, ast.Constant):
                    yield node.lineno, given.value


@pytest.mark.req("R-BUILD-08")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_our_code_uses_no_name_outside_the_table(foreign, path):
    assert [(line, name) for line, name in used_names(path) if name in foreign] == []


def test_a_name_outside_the_table_would_be_found(foreign, tmp_path):
    bad = tmp_path / "trt_bad.py"
    bad.write_text("config.set_flag(trt.BuilderFlag.FP16)\ngetattr(engine, 'device_memory_size_v2')\n")
    assert {name for _, name in used_names(bad) if name in foreign} == {"set_flag", "FP16", "device_memory_size_v2"}


def test_nothing_else_imports_tensorrt():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                assert not [n for n in names if n.split(".")[0] in {"tensorrt", "tensorrt_rtx"}], path.name


def test_a_process_has_one_logger_which_keeps_only_errors(rtx):
    assert load_flavour("tensorrt_rtx").logger is rtx.logger
    trt = rtx.module
    rtx.logger.take()
    builder = trt.Builder(rtx.logger)
    network = builder.create_network(1)
    parser = trt.OnnxParser(network, rtx.logger)
    assert not parser.parse(b"no model")
    assert "MODEL_DESERIALIZE_FAILED" in "".join(rtx.logger.take())
    assert rtx.logger.take() == []


def test_a_flavour_that_is_not_here_says_where_it_comes_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(FlavourError, match="JetPack"):
        load_flavour.__wrapped__("tensorrt")
    with pytest.raises(FlavourError, match="known are tensorrt, tensorrt_rtx"):
        load_flavour("polygraphy")


def test_a_tensorrt_before_10_is_refused(monkeypatch):
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.6.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(FlavourError, match=r"8\.6\.1 is too old; 10\.0 is the oldest"):
        load_flavour.__wrapped__("tensorrt")
