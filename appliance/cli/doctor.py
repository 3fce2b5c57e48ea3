"""``scanside doctor``: what could keep this machine from being a box, each with the line that mends it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from appliance.cli.common import config_option, is_running, opened, read_config
from appliance.clock import SystemClock
from appliance.commands import Exit, json_option, print_json
from appliance.config import Config, KServe
from appliance.deliver.echo import probe
from appliance.errors import ApplianceError, ConfigError, NotFoundError
from engines.backends.probe import Line

_SIGNS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@config_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Look at configuration, disk, ports, packages, GPU, servers and destinations. Exits 7 if anything fails."""
    lines = list(examine(config_path, site))
    if as_json:
        print_json({"ok": all(line.state != "fail" for line in lines), "checks": [asdict(line) for line in lines]})
    else:
        for line in lines:
            click.echo(f"{_SIGNS[line.state]}  {line.what}: {line.found}")
            if line.mend:
                click.echo(f"        {line.mend}")
    if any(line.state == "fail" for line in lines):
        ctx.exit(int(Exit.CHECK_FAILED))


def examine(config_path: Path, site: Path | None) -> Iterator[Line]:
    """Every check, in the order in which a person would mend them."""
    yield _python()
    try:
        config = read_config(config_path, site)
    except ConfigError as error:
        yield Line("configuration", "fail", str(error), "mend the file and run 'scanside config validate'")
        return
    yield Line("configuration", "ok", str(config_path))
    yield _state(config)
    yield _disk(config)
    running = is_running(config)
    yield Line("daemon", "ok" if running else "warn", "running" if running else "not running")
    if not running:
        yield _port("DICOM port", config.dicom.host, config.dicom.port, "dicom.port")
        yield _port("screen port", config.screen.host, config.screen.port, "screen.port")
    yield _packages(config)
    yield _decoders()
    yield from _engines(config)
    if config.kserve is not None:
        yield _kserve(config.kserve)
        if not config.triage.spawn_worker:
            yield _drop_in(config.kserve)
    yield _sources(config)
    yield from _screens(config)
    yield from _fonts()
    for destination in config.destinations:
        result = probe(destination, config.dicom.ae_title, SystemClock())
        yield Line(
            f"destination {destination.name}",
            "ok" if result.ok else "fail",
            result.words,
            "" if result.ok else f"mend it with its administrator; then 'scanside dest test {destination.name}'",
        )


def _python() -> Line:
    version = ".".join(map(str, sys.version_info[:3]))
    return Line("Python", "ok", f"{version}, scanside {importlib.metadata.version('scanside')}")


def _state(config: Config) -> Line:
    folder = config.state_path
    while not folder.exists():
        folder = folder.parent
    if os.access(folder, os.W_OK):
        return Line("state folder", "ok", str(config.state_path))
    return Line(
        "state folder", "fail", f"{folder} cannot be written", f"install -d -o scanside -g scanside {config.state_path}"
    )


def _disk(config: Config) -> Line:
    folder = config.state_path
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    reserve = max(config.disk.reserve_bytes, int(size * config.disk.reserve_fraction))
    found = f"{free / 1e9:.1f} GB free, {reserve / 1e9:.1f} GB are kept in reserve"
    if free < reserve:
        return Line("disk", "fail", found, "free space or enlarge the disk: images are answered 0xA700 until then")
    if free < 2 * reserve:
        return Line("disk", "warn", found, "free space soon")
    return Line("disk", "ok", found)


def _port(what: str, host: str, port: int, key: str) -> Line:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        return Line(what, "fail", f"{host}:{port}: {error.strerror}", f"end the program that has it, or change {key}")
    return Line(what, "ok", f"{host}:{port} is free")


def _packages(config: Config) -> Line:
    from appliance.triage.packages import load_packages

    try:
        running = load_packages(config)
    except ConfigError as error:
        return Line("packages", "fail", str(error), "mend 'packages' in the configuration")
    if not running:
        return Line("packages", "warn", "none is configured: nothing will be analysed", "add one under 'packages'")
    for name, one in sorted(running.items()):
        if one.package.manifest.template is not None:
            why = one.package.manifest.template.en
            return Line("packages", "warn", f"{name} is a template and will not run", why)
    return Line("packages", "ok", ", ".join(f"{name} ({one.role})" for name, one in sorted(running.items())))


def _decoders() -> Line:
    missing = []
    for name in ("pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm", "onnxruntime"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Line("decoders", "fail", f"missing: {', '.join(missing)}", "install Scanside from its lock: make venv")
    return Line("decoders", "ok", "all transfer syntaxes of the list")


def _engines(config: Config) -> Iterator[Line]:
    from engines.backends.probe import judge, probe

    yield from judge(probe(), config.engines.backend)


def _kserve(section: KServe) -> Line:
    from appliance.triage.kserve import kserve_server
    from engines.backends.kserve import ask_server
    from engines.errors import EngineError

    what = f"KServe server {section.address}"
    try:
        return Line(what, "ok", f"{ask_server(kserve_server(section))} is ready")
    except (ConfigError, EngineError) as error:
        mending = "start the server, or mend 'kserve' in the configuration; until then this box computes by itself"
        return Line(what, "fail", str(error), mending)


def _drop_in(section: KServe) -> Line:
    from appliance.health.worker_network import DROP_IN_PATH, worker_drop_in

    what = "worker's network"
    try:
        text = Path(DROP_IN_PATH).read_text("utf-8")
    except OSError:
        text = ""
    if text == worker_drop_in(section.address):
        return Line(what, "ok", f"open to {section.address} alone")
    mending = f"scanside config worker-network > {DROP_IN_PATH}; systemctl daemon-reload; restart scanside-worker"
    found = "is open to another address than the configuration's" if text else "is closed: the server cannot be reached"
    return Line(what, "fail", found, mending)


def _sources(config: Config) -> Line:
    if config.sources:
        return Line("sources", "ok", ", ".join(source.name for source in config.sources))
    return Line(
        "sources",
        "warn",
        "none is configured: no scanner may send",
        "add the scanner under 'sources' in the configuration",
    )


def _screens(config: Config) -> Iterator[Line]:
    try:
        with opened(config) as store:
            blind = store.screens.blind([source.name for source in config.sources])
    except NotFoundError:  # a box that was never started has no screens
        return
    except ApplianceError as error:
        yield Line("screens", "warn", str(error), "call 'scanside doctor' as the service's user")
        return
    if not blind:
        yield Line("screens", "ok", "each watches sources that are configured")
        return
    found = "; ".join(f"{name} watches {', '.join(gone)}, not configured" for name, gone in blind.items())
    mend = "pair it anew with 'scanside screen pair NAME --source SOURCE', or name the source again under 'sources'"
    yield Line("screens", "fail", found, mend)


def _fonts() -> Iterator[Line]:
    """Of a screen on this machine itself: Chromium brings no font for Chinese."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return
    fonts, told = shutil.which("fc-list"), b""
    if fonts:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run([fonts, ":lang=zh", "family"], capture_output=True, timeout=20, check=False).stdout
    if told.strip():
        yield Line("fonts", "ok", "Chromium is here, and a font for Chinese")
        return
    found = "Chromium is here and no font for Chinese: a screen on this machine shows boxes instead"
    yield Line("fonts", "warn", found, "apt-get install fontconfig fonts-wqy-microhei")
