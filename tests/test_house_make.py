"""What make and .ci/run rest on: the scripts that set up, and the wheel."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def program(folder, name, script):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path):
    """A checkout with .ci/run and a make that only says how it was called."""
    (tmp_path / "box" / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "box" / ".ci" / "run")
    program(tmp_path / "bin", "make", 'echo "$@ in $(pwd) with ${SCANSIDE_TEST_DATA-nothing}"')
    return tmp_path / "box"


def ci_run(checkout, **env):
    given = {key: value for key, value in os.environ.items() if key != "SCANSIDE_TEST_DATA"}
    given |= {"PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}", **env}
    return subprocess.run(
        ["bash", checkout / ".ci" / "run"], env=given, cwd="/", capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.req("R-HOUSE-10")
def test_ci_runs_make_test_with_the_data_that_stand_beside_the_checkout(checkout):
    assert ci_run(checkout) == f"--no-print-directory test in {checkout} with nothing"
    data = checkout.parent / "shared" / "data"
    data.mkdir(parents=True)
    assert ci_run(checkout) == f"--no-print-directory test in {checkout} with {data}"
    assert ci_run(checkout, SCANSIDE_TEST_DATA="/elsewhere").endswith("with /elsewhere")


def in_memory(folder, **env):
    """What tools/test-in-memory runs, and where the tests' folders would be."""
    given = {key: value for key, value in os.environ.items() if key not in {"PYTEST_DEBUG_TEMPROOT", "TMPDIR"}}
    given |= {"PATH": f"{folder}:{os.environ['PATH']}", **env}
    command = [ROOT / "tools" / "test-in-memory", "sh", "-c", 'echo "${PYTEST_DEBUG_TEMPROOT-disk} $*"; exit 7', "-"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, ""), "the status of the tests is that of make"
    return done.stdout.strip()


@pytest.mark.req("R-HOUSE-09")
def test_folders_of_tests_are_in_memory_only_where_there_is_plenty_and_nobody_chose_another(tmp_path):
    """The machine's answers are made up, so that this holds on every machine."""
    said = {"df": 'echo head; echo "shm 1 1 $FREE_KB"', "awk": 'case "$*" in *proc/mounts) exit $ABSENT ;; esac'}
    said["awk"] += '; case "$*" in *meminfo) echo $MEMORY_KB ;; *) tail -n 1 | cut -d " " -f 4 ;; esac'
    for name, script in said.items():
        folder = program(tmp_path / "bin", name, script).parent
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this machine has no /dev/shm")
    plenty = {"ABSENT": "0", "FREE_KB": "6000000", "MEMORY_KB": "6000000"}
    assert in_memory(folder, **plenty) == "/dev/shm -o tmp_path_retention_policy=failed"
    for missing in ({"ABSENT": "1"}, {"FREE_KB": "65536"}, {"MEMORY_KB": "5999999"}, {"TMPDIR": "/var/tmp"}):
        assert in_memory(folder, **{**plenty, **missing}) == "disk", missing
    assert in_memory(folder, **plenty, PYTEST_DEBUG_TEMPROOT="/var/tmp") == "/var/tmp"


@pytest.mark.req("R-HOUSE-08")
def test_without_root_what_is_missing_is_said_and_nothing_is_installed(drop_user):
    script = shutil.copy(ROOT / "tools" / "test-tools", drop_user.home)
    program(drop_user.home / "bin", "apt-get", "echo apt-get was called; exit 1")
    for name in ("id", "grep"):
        (drop_user.home / "bin" / name).symlink_to(shutil.which(name))
    drop_user.own(drop_user.home)
    # The shell is called by its path: nothing but these three programs is to be found.
    given = drop_user.kwargs(PATH=str(drop_user.home / "bin"))
    done = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stderr
    assert "tests that need them skip: dcmtk" in done.stdout
    assert "as root: apt-get install dcmtk" in done.stdout
    assert "apt-get was called" not in done.stdout
    # A browser without a font for Chinese would fail tests.
    assert "fontconfig fonts-wqy-microhei" in done.stdout
    for found, is_missing in (("echo a-font.ttc", False), (":", True)):
        program(drop_user.home / "bin", "fc-list", found)
        drop_user.own(drop_user.home)
        done = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=False, **given)
        assert ("fonts-wqy-microhei" in done.stdout) is is_missing, found


@pytest.mark.req("R-HOUSE-12")
def test_every_package_that_is_asked_for_exists_in_this_distribution(system_tool):
    lines = (ROOT / "tools" / "test-tools").read_text("utf-8").splitlines()
    wanted = [line.split("want ")[1].split()[1] for line in lines if "want " in line and not line.startswith("want()")]
    assert {"dcmtk", "orthanc"} <= set(wanted)
    apt_cache = system_tool("apt-cache")
    if "Ubuntu" in Path("/etc/os-release").read_text("utf-8"):
        wanted.remove("chromium")  # asked for on Debian only
    names = subprocess.run([apt_cache, "pkgnames"], capture_output=True, text=True, check=True).stdout.split()
    if len(names) < 10_000:
        pytest.skip("this machine has no package lists (apt-get update)")
    assert [name for name in wanted if name not in names] == []


@pytest.mark.req("R-HOUSE-11")
def test_programs_that_refuse_root_run_as_somebody_else_in_a_folder_of_their_own(drop_user):
    (drop_user.home / "given").mkdir()
    drop_user.own(drop_user.home / "given")
    script = "id -u; pwd; echo $HOME; touch given/kept; echo $MORE"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, **drop_user.kwargs(MORE="x")
    )
    uid, where, home, more = done.stdout.split()
    assert int(uid) == drop_user.uid != 0
    assert where == home == str(drop_user.home)
    assert more == "x"
    assert (drop_user.home / "given" / "kept").stat().st_uid == drop_user.uid


@pytest.mark.req("R-HOUSE-06")
@pytest.mark.parametrize(
    ("script", "mending"),
    [
        ('case "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac', "Python 3.10 or later is needed"),
        ('case "$2" in *ensurepip*) exit 1 ;; esac', "apt-get install python3-venv"),
    ],
)
def test_a_python_that_cannot_make_the_environment_is_refused_with_the_mending_line(tmp_path, script, mending):
    python = program(tmp_path, "python", script)
    done = subprocess.run(
        [ROOT / "tools" / "venv", tmp_path / "made", "run", python], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert mending in done.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.req("R-HOUSE-05")
def test_an_older_python_is_found_where_pyenv_keeps_it(tmp_path):
    shim = program(tmp_path / "bin", "python9.9", "exit 127")
    kept = program(
        tmp_path / "pyenv" / "versions" / "9.9.1" / "bin", "python", 'case "$2" in *executable*) echo here ;; esac'
    )
    env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYENV_ROOT": str(tmp_path / "pyenv")}
    found = subprocess.run([ROOT / "tools" / "find-python", "9.9"], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "here"
    kept.unlink()
    assert subprocess.run([ROOT / "tools" / "find-python", "9.9"], env=env, check=False).returncode == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this working tree, built from a copy so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("appliance", "engines"):
        shutil.copytree(ROOT / name, source / name)
    cache = source / "appliance" / "store" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "left.cpython-311.pyc").write_bytes(b"left over")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    ]
    done = subprocess.run([*command, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.req("R-HOUSE-03")
def test_the_wheel_holds_every_file_of_the_two_packages(wheel):
    held = set(wheel.namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("appliance", "engines")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - held == set()


@pytest.mark.req("R-HOUSE-03", "R-TRIAGE-14")
def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"appliance", "engines", info}
    assert [name for name in wheel.namelist() if "__pycache__" in name] == []


@pytest.mark.req("R-HOUSE-03")
def test_the_wheel_brings_the_command_and_says_its_licence(wheel):
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "scanside = appliance.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    said = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert (said["Name"], said["License-Expression"]) == ("scanside", "Apache-2.0")
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")
