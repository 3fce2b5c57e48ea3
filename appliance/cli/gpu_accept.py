"""``scanside gpu-accept``: one command on a machine with a GPU that shows what no test without one can show."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from appliance import __version__
from appliance.cli.engine_work import EngineFailed
from appliance.commands import Exit
from engines.backends.probe import probe
from engines.build import build_engine, build_limits
from engines.drills import as_json, run_drills
from engines.errors import EngineError
from engines.measure import measure
from engines.package import Package, bundled_packages, load_package
from engines.prove import prove_engine, prove_limits
from engines.store import EngineStore, Entry

Say = Callable[[str], None]


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The report, JSON.")
@click.option(
    "--backend",
    type=click.Choice(["tensorrt", "tensorrt_rtx", "onnxruntime"]),
    default="tensorrt",
    show_default=True,
    help="onnxruntime runs the same steps without a GPU, and says nothing about one.",
)
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True, help="Timed runs of each engine.")
@click.option("--soak-s", type=click.FloatRange(min=0.0), default=600.0, show_default=True, help="0: no soak.")
@click.option(
    "--package",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="Folder of a package of your own, besides those that came with this software.",
)
@click.option("--only", is_flag=True, help="Only the packages named with --package.")
@click.pass_context
def gpu_accept(
    ctx: click.Context,
    out: Path,
    backend: str,
    runs: int,
    soak_s: float,
    folders: tuple[Path, ...],
    only: bool,  # noqa: FBT001
) -> None:
    """Build, prove, time and soak every package in every precision; run the drills. Exits 7 on any fault."""
    try:
        packages = [] if only else [load_package(folder) for folder in bundled_packages().values()]
        # For whoever makes or tries them, on a store that is thrown away: nothing of it reaches a box.
        packages += [load_package(folder, trusted=True) for folder in folders]
    except EngineError as error:
        raise EngineFailed(str(error)) from error
    report = examine(packages, backend, runs=runs, soak_s=soak_s, say=lambda line: click.echo(line, err=True))
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    click.echo(f"{'passed' if report['passed'] else 'FAILED'}; the report is {out}")
    for fault in report["faults"]:
        click.echo(f"  {fault}")
    if not report["passed"]:
        ctx.exit(int(Exit.CHECK_FAILED))


def examine(packages: Sequence[Package], flavour: str, *, runs: int, soak_s: float, say: Say) -> dict[str, Any]:
    """Do all of it on a store of its own.

    Args:
        packages: Loaded.
        flavour: What runs the engines.
        runs: Timed runs of each engine.
        soak_s: Of the last engine of each package.
        say: Told what is done.

    Returns:
        The report: environment, engines, drills, faults, the verdict, and a digest of it all.
    """
    report: dict[str, Any] = {
        "schema": 1,
        "at": datetime.now(timezone.utc).isoformat(),
        "environment": _environment(flavour),
        "engines": [],
        "drills": [],
    }
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="scanside-accept-") as folder:
        store = EngineStore(Path(folder) / "engines")
        last: tuple[Package, Entry] | None = None
        for package in packages:
            for precision in package.manifest.precisions:
                what = f"{package.name} {flavour} {precision}"
                row, entry = _engine(package, flavour, precision, store, runs=runs, soak_s=soak_s, say=say)
                report["engines"].append(row)
                faults += [f"{what}: {fault}" for fault in row["faults"]]
                last = (package, entry) if entry is not None else last
        if last is not None:
            say("drills")
            report["drills"] = as_json(run_drills(*last, store))
    faults += [f"drill: {one['name']}: {one['told']}" for one in report["drills"] if not one["passed"]]
    if not report["engines"]:
        faults.append("there was no package to try")
    elif not report["drills"]:
        faults.append("no engine was accepted, so the drills could not be run")
    report |= {"faults": faults, "passed": not faults}
    whole = json.dumps(report, sort_keys=True).encode()
    return {**report, "sha256": hashlib.sha256(whole).hexdigest()}


def _engine(
    package: Package, flavour: str, precision: str, store: EngineStore, *, runs: int, soak_s: float, say: Say
) -> tuple[dict[str, Any], Entry | None]:
    """One package in one precision: built, proven, timed, soaked."""
    row: dict[str, Any] = {
        "package": package.name,
        "version": package.version,
        "package_digest": package.digest,
        "precision": precision,
        "faults": [],
    }
    try:
        say(f"{package.name} {precision}: building")
        begun = time.monotonic()
        entry = build_engine(package, precision=precision, flavour=flavour, store=store, limits=build_limits())
        row["build"] = {**entry.facts, "seconds": time.monotonic() - begun}
        say(f"{package.name} {precision}: comparing with the reference")
        entry = prove_engine(package, entry, store, limits=prove_limits(package))
        row |= {"engine_digest": entry.digest, "key": asdict(entry.key), "parity": dict(entry.report)}
        if entry.state != "ready":
            row["faults"].append(f"rejected: {entry.reason}")
            return row, None
        say(f"{package.name} {precision}: timing" + (f", soak of {soak_s:g} s" if soak_s else ""))
        row["times"] = measure(package, entry, store, runs=runs, soak_s=soak_s)
        row["reference_times"] = measure(package, None, None, runs=min(runs, 20))
    except EngineError as error:
        row["faults"].append(str(error))
        return row, None
    soak = row["times"]["soak"]
    if soak is not None and not soak["passed"]:
        row["faults"].append(f"soak: {soak['wrong']} wrong answers, {soak['drift_mb']:.0f} MB more memory at its end")
    return row, entry


def _environment(flavour: str) -> dict[str, Any]:
    import importlib.metadata

    versions = {}
    for name in ("onnxruntime", "onnx", "numpy", "cuda-bindings", "pycuda", "tensorrt", "tensorrt-rtx-cu12"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return {
        "scanside": __version__,
        "backend": flavour,
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "hardware": asdict(probe()),
        "power": _power(),
    }


def _power() -> dict[str, str]:
    """What decides clocks, as the kernel tells it: a Jetson's power mode, the cores' governor."""
    found = {}
    for name, path in {
        "jetson_power_mode": "/var/lib/nvpmodel/status",
        "cpu_governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "gpu_governor": "/sys/class/devfreq/17000000.gpu/governor",
    }.items():
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError:
            found[name] = ""
    return found
