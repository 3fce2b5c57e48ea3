"""What tests of the worker share: toy packages, a spool with files in it, a link with a real process behind it."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from pathlib import Path

import numpy as np
import yaml

from appliance.clock import SystemClock
from appliance.records import Role
from appliance.store.spool import Spool
from appliance.triage.protocol import InstanceRef, Load, Progress, SeriesInput
from appliance.triage.worker_client import WorkerLink
from engines.package import load_package

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"


def _text(en):
    return {"en": en, "zh_Hans": en}


def _graph(path, tensor, shape, low, high):
    """Mean of the input, scaled so that ``low`` becomes 0 and ``high`` 1, as [1, 1]."""
    import onnx
    from onnx import TensorProto, helper

    def constant(name, values, kind=TensorProto.FLOAT):
        array = np.asarray(values, np.float32 if kind == TensorProto.FLOAT else np.int64)
        return helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)

    nodes = [
        helper.make_node("ReduceMean", [tensor], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "low"], ["shifted"]),
        helper.make_node("Div", ["shifted", "span"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "zero", "one"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "shape"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1])],
        [
            constant("low", low),
            constant("span", high - low),
            constant("zero", 0.0),
            constant("one", 1.0),
            constant("shape", [1, 1], TensorProto.INT64),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def _manifest(name, stage, **changes):
    finding = {
        "id": "bright",
        "code": {"value": "1", "scheme": "99TOY", "meaning": "Bright"},
        "title": _text("Bright"),
        "advice": _text("Look"),
        "category": 1,
        "operating_points": [
            {"name": "default", "threshold": 0.5, "default": True},
            {"name": "sensitive", "threshold": 0.3},
        ],
    }
    return {
        "schema": 1,
        "name": name,
        "version": "1.0.0",
        "title": _text("Toy"),
        "status": "demonstrator",
        "licence": "Apache-2.0",
        "intended_use": "triage",
        "notify": "active",
        "looked_for": _text("brightness"),
        "not_looked_for": _text("anything else"),
        "stages": [stage],
        "findings": [finding],
        "limits": {"time_s": 20, "memory_mb": 512},
        **changes,
    }


def make_xray_package(folder, name="toy-xray", envelope=None, fake=None, **changes):
    """A package whose score is the mean brightness of a chest X-ray; ``fake`` is told to the fake backend."""
    stage = {
        "onnx": "model.onnx",
        "input": {"role": "image", "modality": ["DX", "CR"], "sop_classes": [DX, CR], "envelope": envelope or {}},
        "preprocess": {"name": "xray", "params": {"size": 64}},
        "head": {"name": "classify", "params": {"output": "scores", "findings": ["bright"]}},
    }
    return _write(folder, stage, name, ("image", [1, 1, 64, 64], 0.0, 1.0), fake, changes)


def make_ct_package(folder, name="toy-ct", envelope=None, fake=None, **changes):
    """A package whose score is the mean density of a head CT."""
    stage = {
        "onnx": "model.onnx",
        "input": {
            "role": "head",
            "modality": ["CT"],
            "sop_classes": [CT, ENHANCED_CT],
            "envelope": {"body_parts": ["HEAD"], **(envelope or {})},
        },
        "preprocess": {"name": "ct-slabs", "params": {"size": 128, "pixel_mm": 2.0, "min_slices": 2}},
        "head": {"name": "classify", "params": {"output": "scores", "findings": ["bright"]}},
    }
    return _write(folder, stage, name, ("hu", ["D", 1, 128, 128], -1024.0, 1024.0), fake, changes)


def _write(folder, stage, name, graph, fake, changes):
    folder.mkdir(parents=True)
    _graph(folder / "model.onnx", *graph)
    (folder / "model.yaml").write_text(yaml.safe_dump(_manifest(name, stage, **changes)))
    if fake is not None:
        (folder / "fake.json").write_text(json.dumps(fake))
    return folder


def add_golden(folder, heights_mm, low, high, **changes):
    """Give a CT package a golden case: a box head whose score must lie between ``low`` and ``high``."""
    phantom = box_head(heights_mm, **changes)
    (folder / "golden").mkdir()
    np.savez(
        folder / "golden" / "box.npz",
        array=phantom.pixels,
        positions_mm=np.asarray(heights_mm, float),
        spacing_mm=phantom.spacing_mm,
    )
    case = {"file": "box.npz", "scores": {"bright": [low, high]}}
    (folder / "golden" / "golden.json").write_text(json.dumps([case]))
    return folder


def load_message(folder):
    package = load_package(folder, trusted=True)
    return Load(package=package.name, folder=str(folder), digest=package.digest, role=Role.LIVE)


class SpoolOfFiles:
    """A spool, and copies of DICOM files in it under names that it made."""

    def __init__(self, root):
        self.root = Path(root)
        Spool(self.root, reserve_bytes=0)
        self._next = 1

    def take(self, paths):
        """Copy files in; their ``InstanceRef``."""
        refs = []
        for path in paths:
            name = secrets.token_hex(16)
            target = self.root / "store" / name[:2] / f"{name}.dcm"
            shutil.copy(path, target)
            refs.append(InstanceRef(key=str(self._next), path=str(target)))
            self._next += 1
        return refs


def series(refs, kind="ct", key="1"):
    return SeriesInput(series_key=key, kind=kind, instances=tuple(refs))


class LinkFactory:
    """Starts links, each with its own worker process, and stops them all."""

    def __init__(self, folder, spool_root):
        self._folder = Path(folder)
        self._spool_root = spool_root
        self.links = []

    def __call__(self, *folders, backend="onnxruntime", ready=True, **changes):
        arguments = ["--backend", backend]
        for folder in folders:
            arguments += ["--trust", str(folder)]
        link = WorkerLink(
            self._folder / f"worker{len(self.links)}.sock",
            self._spool_root,
            clock=SystemClock(),
            packages=[load_message(folder) for folder in folders],
            arguments=[*arguments, *changes.pop("arguments", ())],
            **changes,
        )
        self.links.append(link)
        watch_progress(link)
        link.start()
        link.want(wanted=True)
        if ready:
            wait_ready(link)
        return link

    def stop(self):
        for link in self.links:
            link.stop()


def watch_progress(link):
    """From now on ``link.progress`` lists what the worker says that it does."""
    link.progress, take = [], link._take

    def taken(worker, message):
        if isinstance(message, Progress):
            link.progress.append(message)
        take(worker, message)

    link._take = taken


def _events(link):
    """What has happened and nobody has taken: several may come at once, and a test waits for one at a time."""
    kept = link.__dict__.setdefault("untaken", [])
    kept += link.events()
    return kept


def wait_ready(link, timeout_s=60.0):
    """Wait until the link takes questions; the events so far."""
    events, deadline = [], time.monotonic() + timeout_s
    while not link.is_ready:
        kept = _events(link)
        events += kept
        kept.clear()
        assert time.monotonic() < deadline, f"no worker is ready: {events}"
        time.sleep(0.01)
    return events


def wait_event(link, kind, timeout_s=60.0):
    """The next event of a class; earlier ones are taken and forgotten."""
    deadline = time.monotonic() + timeout_s
    while True:
        kept = _events(link)
        while kept:
            event = kept.pop(0)
            if isinstance(event, kind):
                return event
        assert time.monotonic() < deadline, f"no {kind.__name__} within {timeout_s} s"
        time.sleep(0.01)


def box_head(heights_mm, *, hu=40, matrix=128, spacing_mm=2.0, tilt_deg=0.0, thickness_mm=5.0):
    """A phantom that no anatomist would know: a block of one density in a frame of bone, at these heights."""
    from appliance.simulate.phantom import Phantom

    pixels = np.full((len(heights_mm), matrix, matrix), -1000, np.int16)
    inner = slice(matrix // 4, -matrix // 4)
    pixels[:, matrix // 4 - 4 : -(matrix // 4) + 4, matrix // 4 - 4 : -(matrix // 4) + 4] = 1000
    pixels[:, inner, inner] = hu
    tilt = np.radians(tilt_deg)
    return Phantom(
        kind="head_ct",
        pixels=pixels,
        spacing_mm=(spacing_mm, spacing_mm),
        positions_mm=tuple((-100.0, -100.0, float(h)) for h in heights_mm),
        orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(-np.sin(tilt))),
        thickness_mm=thickness_mm,
        instance_numbers=tuple(range(1, len(heights_mm) + 1)),
    )


def ct_files(folder, phantom=None, *, seed="1", **changes):
    """The slices of a phantom as files, in order of position."""
    from appliance.simulate.dicomize import ct_series, save
    from appliance.simulate.study import Study

    return save(ct_series(phantom or box_head(range(0, 40, 5)), Study(seed=seed), **changes), folder)


def xray_file(folder, brightness=0.5, *, seed="1", stem="image", view="PA", **changes):
    """A chest X-ray whose mean brightness rises with ``brightness``."""
    from appliance.simulate.dicomize import save, xray
    from appliance.simulate.phantom import Phantom
    from appliance.simulate.study import Study

    rows = np.linspace(0, 1, 128, dtype=np.float32)[:, None] * np.ones((1, 128), np.float32)
    grey = (4095 * rows ** (1 / max(brightness, 1e-3) - 1)).astype(np.uint16)
    phantom = Phantom(kind="chest_xray", pixels=grey, spacing_mm=(2.0, 2.0))
    ds = xray(phantom, Study(seed=seed), **changes)
    ds.ViewPosition = view
    return save([ds], folder, stem=stem)[0]
