"""Fixtures that every test folder shares: test data, real peers, ports, waiting, scale and an unprivileged user."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from appliance.ports import held_port

# How long an example takes says how busy the machine is; a hang is pytest-timeout's.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("house"), max_examples=40)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]
# For tests that use ONNX Runtime by itself: its newer builds report to their maker unless told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
#: Where packages put daemons; not on everybody's PATH.
SYSTEM_PATH = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
)


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        default=os.environ.get("SCANSIDE_FULL", "") not in {"", "0"},
        help="full size: heavy tests run all their rounds, and those marked long run at all (also SCANSIDE_FULL=1)",
    )


def pytest_configure(config):
    """Before any test is read: what takes its number of examples from the profile has all of them with ``--full``."""
    settings.load_profile("house" if config.getoption("--full") else "short")


#: Files of minutes go first: the last one to begin decides when the last of two processes ends.
LONG_FILES = ("test_bench.py", "test_chest_nodule.py", "test_head_ct_phantoms.py", "test_interleaved_patients.py")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))
    has_gpu = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/nvmap", "/dev/nvhost-gpu"))
    for item in items:
        if "long" in item.keywords and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="long: only with --full (make test-long)"))
        if "gpu" in item.keywords and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Without the garbage collector: thousands of tests and all their modules come, and nothing of it goes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """What is there now stays to the end: a collection during a test need not walk through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def scale(request):
    """The share of its full size that a heavy test runs: 0.1, or 1.0 with ``--full``."""
    return 1.0 if request.config.getoption("--full") else 0.1


@pytest.fixture(scope="session")
def repo():
    """The root of the working tree."""
    return ROOT


@pytest.fixture(scope="session")
def scenes(repo):
    """tools/screen_scenes.py: rows of a store in every state that people meet."""
    spec = importlib.util.spec_from_file_location("screen_scenes", repo / "tools" / "screen_scenes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["screen_scenes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(store):
    """``write(function, ...)``: call a function of the scenes, or of the store, in one transaction of ``store``."""

    def call(function, *arguments, **more):
        with store.db.write() as tx:
            return function(tx, *arguments, **more)

    return call


@pytest.fixture(scope="session")
def test_data():
    """The folder of real DICOM and CT files, which are never part of the repository."""
    named = os.environ.get("SCANSIDE_TEST_DATA", "")
    if not named:
        pytest.skip("SCANSIDE_TEST_DATA names no folder of real test data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"SCANSIDE_TEST_DATA names {folder}, which is no folder")
    return folder


@pytest.fixture(scope="session")
def dcmtk():
    """``dcmtk("storescu")``: the path of that DCMTK tool, never of pynetdicom's script of the same name."""

    def find(tool):
        for folder in SYSTEM_PATH.split(os.pathsep):
            path = shutil.which(tool, path=folder) if folder else None
            if path is not None and _is_dcmtk(path):
                return Path(path)
        return pytest.skip(f"DCMTK's {tool} is not installed (apt-get install dcmtk)")

    return find


def _is_dcmtk(path):
    if Path(path).read_bytes()[:2] == b"#!":  # pynetdicom's echoscu and storescu are scripts
        return False
    shown = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    return b"$dcmtk:" in shown.stdout


@pytest.fixture(scope="session")
def orthanc():
    """The path of the Orthanc server."""
    path = shutil.which("Orthanc", path=SYSTEM_PATH)
    if path is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    return Path(path)


@pytest.fixture(scope="session")
def system_tool():
    """``system_tool("strace")``: the path of a program of the distribution."""

    def find(tool):
        path = shutil.which(tool, path=SYSTEM_PATH)
        if path is None:
            pytest.skip(f"{tool} is not installed")
        return Path(path)

    return find


@pytest.fixture(scope="session")
def free_port():
    """``free_port()``: a TCP port nobody listens on, for peers that cannot be told port 0. Ours can: prefer 0.

    It stays ours, so that not even a test beside this one is given it.
    """
    with contextlib.ExitStack() as held:
        yield partial(held_port, held)


@pytest.fixture(scope="session")
def wait_until():
    """``wait_until(predicate, timeout_s=30)``: poll until true, return the value; fail at the deadline."""

    def wait(predicate, timeout_s=30.0, what=""):
        deadline = time.monotonic() + timeout_s
        while True:
            value = predicate()
            if value:
                return value
            if time.monotonic() >= deadline:
                shown = what or getattr(predicate, "__name__", repr(predicate))
                return pytest.fail(f"not true within {timeout_s} s: {shown}")
            time.sleep(0.01)

    return wait


@dataclass(frozen=True)
class Unprivileged:
    """Who runs the programs that refuse root, and the one folder that is theirs."""

    uid: int
    gid: int
    home: Path
    dropped: bool

    def kwargs(self, **env):
        """Keyword arguments for ``subprocess.run`` and ``Popen``."""
        given = {"env": {**os.environ, "HOME": str(self.home), **env}, "cwd": self.home}
        if self.dropped:
            given |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return given

    def own(self, path):
        """Hand a folder (with what is in it now) to that user and let them reach it; returns the path."""
        path = Path(path)
        if self.dropped:
            for item in (path, *path.rglob("*")):
                os.chown(item, self.uid, self.gid, follow_symlinks=False)
        return path


@pytest.fixture
def drop_user():
    """An unprivileged user for PostgreSQL, Chromium and our own daemon: the tester, or as root scanside or nobody."""
    dropped = os.geteuid() == 0
    entry = pwd.getpwuid(os.geteuid())
    if dropped:
        entry = _service_user()
    # Not below tmp_path: pytest makes that unreachable for others.
    home = Path(tempfile.mkdtemp(prefix="scanside-test-"))
    user = Unprivileged(uid=entry.pw_uid, gid=entry.pw_gid, home=home, dropped=dropped)
    user.own(home)
    yield user
    shutil.rmtree(home, ignore_errors=True)


def _service_user():
    for name in ("scanside", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return pytest.skip("running as root and there is no user to drop to")


@pytest.fixture(scope="session")
def fleet_broker():
    """A real mosquitto with TLS and ACL, as ``fleet_kit.Mosquitto``; who kills it makes one of their own."""
    from fleet_kit import Mosquitto

    broker = Mosquitto().start()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def fleet_postgres():
    """A real PostgreSQL, as ``fleet_kit.Postgres``."""
    from fleet_kit import Postgres

    server = Postgres()
    yield server
    server.close()
