"""A package becomes an engine: lowered, built in a limited child, put into the store.

The child gets files, not the store: it neither knows the key nor can put anything there. What it gives back is
digested by it, read once by us, and only then sealed. A child that is killed leaves a work folder, which the next
build removes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from engines import sealed
from engines.build_child import CALIBRATION, MAX_PLAN_BYTES, WORKSPACE_MB
from engines.child import Limits, Progress, run_limited
from engines.errors import BuildError, BuildFault, ChildError, ChildFault
from engines.lowering import recipe_id
from engines.package import Package
from engines.store import EngineKey, EngineStore, Entry

_MB = 1024 * 1024

_KINDS: Mapping[ChildFault, BuildFault] = {
    "timeout": "timeout",
    "memory": "memory",
    "crash": "crash",
    "garbage": "crash",
    "error": "build",
    "cancelled": "cancelled",
}
_MENDING: Mapping[BuildFault, str] = {
    "timeout": "allow it more time; what serves goes on meanwhile",
    "memory": "allow it more memory, or give the package smaller largest shapes (profiles)",
    "crash": "the builder died and nothing was kept; what serves goes on. Try another precision, and tell the maker",
    "cancelled": "nothing was kept",
}


def build_limits(*, wall_s: float = 1800, memory_mb: int = 4096) -> Limits:
    """What a builder may take: minutes on a small GPU, and resident memory (CUDA reserves address space at will)."""
    return Limits(
        wall_s=wall_s,
        cpu_s=wall_s * (os.cpu_count() or 1),
        memory_mb=memory_mb,
        file_mb=MAX_PLAN_BYTES // _MB,
        open_files=256,
        address_space=False,
    )


def engine_key(
    package: Package, *, precision: str, flavour: str, compute_capabilities: Sequence[str] = ()
) -> EngineKey:
    """The key that an engine built now on this machine would have.

    Args:
        package: A loaded package.
        precision: ``fp32``, ``fp16`` or ``int8``.
        flavour: ``tensorrt``, ``tensorrt_rtx`` or ``onnxruntime``.
        compute_capabilities: Of GPUs that are not here (``tensorrt_rtx`` only).

    Raises:
        BuildError: Kind ``unsupported``: library, driver or GPU are missing, or there is no such precision.
        PackageError: The calibration file was altered.
    """
    from engines.backends.trt_builder import BUILDER

    manifest = package.manifest
    recipe = recipe_of(package, precision)
    driver, gpu = _target(flavour, compute_capabilities)
    return EngineKey(
        package_digest=package.digest,
        onnx=tuple(package.files[stage.onnx] for stage in manifest.stages),
        recipe=recipe,
        flavour=flavour,
        version=_library_version(flavour),
        driver=driver,
        gpu=gpu,
        profiles=sealed.canonical({n: p.model_dump() for n, p in manifest.profiles.items()}).decode(),
        host=f"{platform.machine()} {platform.system().lower()}",
        builder=f"{BUILDER} workspace {WORKSPACE_MB} MB",
    )


def recipe_of(package: Package, precision: str) -> str:
    """The recipe by which a package would be lowered now; of two precisions nothing else in the keys differs.

    Raises:
        BuildError: Kind ``unsupported``: there is no such precision.
        PackageError: The calibration file was altered.
    """
    return recipe_id(precision, _calibration(package) if precision == "int8" else None)


def build_engine(
    package: Package,
    *,
    precision: str,
    flavour: str,
    store: EngineStore,
    compute_capabilities: Sequence[str] = (),
    limits: Limits | None = None,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Entry:
    """Build every stage of a package and keep the result in state ``verifying``.

    Args:
        package: A loaded package.
        precision: One of its manifest.
        flavour: ``tensorrt``, ``tensorrt_rtx`` or ``onnxruntime``, where the plan is the lowered graph.
        store: Where it is kept.
        compute_capabilities: Such as ``8.6``: build for GPUs that are not here (``tensorrt_rtx`` only).
        limits: Of the child; ``build_limits()`` by default.
        on_progress: Told ``{stage, stages, step: lower|build, phase, share}`` some times a second; ``share`` is of
            the phase.
        cancelled: Asked several times a second.

    Raises:
        BuildError: With its kind; another builder is at work; nothing was kept.
        PackageError: A file of the package was altered.
    """
    limits = limits or build_limits()
    manifest = package.manifest
    if precision not in manifest.precisions:
        raise BuildError(
            f"{package.name} has no precision {precision}; its manifest allows {', '.join(manifest.precisions)}",
            "unsupported",
        )
    key = engine_key(package, precision=precision, flavour=flavour, compute_capabilities=compute_capabilities)
    with store.building(package.name) as work:
        request: dict[str, Any] = {
            "work": str(work),
            "package": package.name,
            "precision": precision,
            "flavour": flavour,
            "profiles": {name: profile.model_dump() for name, profile in manifest.profiles.items()},
            "compute_capabilities": list(compute_capabilities),
            "stages": [stage.onnx for stage in manifest.stages],
        }
        for index in range(len(manifest.stages)):
            (work / f"stage-{index}.onnx").write_bytes(package.read_onnx(index))
        if precision != "fp32" and (calibration := _calibration(package)) is not None:
            (work / CALIBRATION).write_bytes(calibration)
        begun = time.monotonic()
        answer = _ask(request, limits, on_progress, cancelled)
        plans = [_take(work, made) for made in answer["stages"]]
        return store.put(
            key,
            package=package.name,
            version=package.version,
            precision=precision,
            plans=plans,
            facts={"seconds": round(time.monotonic() - begun, 3), "stages": answer["stages"]},
        )


def _ask(
    request: dict[str, Any],
    limits: Limits,
    on_progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> dict[str, Any]:
    try:
        answer = run_limited("engines.build_child", request, limits, on_progress, cancelled)
    except ChildError as error:
        kind = _KINDS[error.fault]
        mend = f"; {_MENDING[kind]}" if kind in _MENDING else ""
        raise BuildError(f"the build of {request['package']} failed: {error}{mend}", kind) from error
    failed = answer.get("failed")
    if failed is not None:
        raise BuildError(failed["message"], failed["kind"], failed["nodes"])
    return answer


def _take(work: Path, made: Mapping[str, Any]) -> bytes:
    plan = sealed.read_plain(work, made["file"], MAX_PLAN_BYTES)
    if hashlib.sha256(plan).hexdigest() != made["sha256"]:
        raise BuildError(f"{made['file']} was altered between builder and store; build again", "integrity")
    return plan


def _calibration(package: Package) -> bytes | None:
    told = package.manifest.calibration
    return package.data(told.file) if told is not None else None


def _library_version(flavour: str) -> str:
    if flavour == "onnxruntime":
        return str(import_module("engines.backends.onnxruntime").ort.__version__)
    from engines.backends.trt_api import FlavourError, load_flavour

    try:
        return load_flavour(flavour).version
    except FlavourError as error:
        raise BuildError(str(error), "unsupported") from error


def _target(flavour: str, compute_capabilities: Sequence[str]) -> tuple[str, str]:
    """(driver, GPU) for which an engine would be built."""
    if flavour == "onnxruntime":
        return "none", "cpu"
    _library_version(flavour)  # its absence is the clearer complaint
    if compute_capabilities:
        return "none", "compute capability " + " ".join(sorted(set(compute_capabilities)))
    from engines.backends.cuda import probe_cuda

    probe = probe_cuda()
    if probe.device is None:
        named = "" if flavour == "tensorrt" else ", or name a compute capability to build for another machine"
        raise BuildError(f"no GPU to build for: {probe.reason}; see scanside doctor{named}", "unsupported")
    device = probe.device
    major, minor = device.compute_capability
    kernel = Path("/sys/module/nvidia/version")
    module = kernel.read_text().strip() if kernel.is_file() else platform.release()
    return f"{device.driver_version} {module}", f"{device.name} {major}.{minor} {device.total_bytes // _MB} MB"
