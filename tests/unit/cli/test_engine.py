"""``scanside engine`` where no worker is needed: what is asked for, what stays, and how a person leaves."""

from __future__ import annotations

import fcntl
import json

import pytest
from click.testing import CliRunner
from package_rows_kit import NAME, choice, nothing_owed

from appliance.cli import engine_work, main
from appliance.clock import SystemClock
from appliance.config import load_config
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.facts.packages import EngineFallback, EngineServes
from appliance.store.journal import Journal
from engines.errors import BuildError
from engines.store import EngineKey, EngineStore

#: Comes with this software, and offers fp32 alone.
FP32_ONLY = "head-ct-hyperdensity"


class Box:
    """A box's configuration and store without a daemon; ``lock`` makes one look as if it ran."""

    def __init__(self, folder):
        self.file = folder / "box.yaml"
        self.file.write_text(f"state_path: {folder}\nengines: {{precision: fp16}}\n")
        self.config = load_config(self.file, None)
        self.lock = folder / "scanside.lock"

    def store(self):
        return Store.open(self.config.state_path, SystemClock(), reserve_bytes=0)

    def run(self, *arguments):
        return CliRunner().invoke(main, ["engine", *arguments, "--config", str(self.file)])


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


@pytest.fixture
def running(box):
    """A box whose daemon runs and does nothing, with a package that offers fp32 and fp16, and one with fp32 alone."""
    store = box.store()
    choices = [choice(precisions=["fp32", "fp16"]), choice(name=FP32_ONLY)]
    store.packages.sync(choices, clinical=False, owed=nothing_owed)
    with box.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield store
    store.close()


@pytest.fixture
def person(monkeypatch):
    """``person(n)``: whoever looks at the terminal presses Ctrl-C n times, and is tired of waiting after them."""

    def presses(times):
        left = [KeyboardInterrupt()] * times

        def wait(_journal, _seq, _timeout_s):
            raise left.pop() if left else TimeoutError

        monkeypatch.setattr(Journal, "wait", wait)

    return presses


@pytest.mark.req("R-SERVE-07")
def test_ctrl_c_asks_for_the_end_of_a_build_and_pressed_again_it_leaves_at_once(box, running, person):
    person(2)
    done = box.run("build", NAME)
    assert done.exit_code == 130
    assert "once more, to leave without waiting" in done.stderr
    assert len(running.journal.after(0, kinds=(Kind.ENGINE_CANCEL_ASKED,))) == 1


@pytest.mark.req("R-SERVE-07")
@pytest.mark.parametrize(("name", "precision"), [(NAME, "fp16"), (f"{NAME}@1.0.0", "fp16"), (FP32_ONLY, "fp32")])
def test_a_running_box_is_asked_for_the_precision_in_which_it_runs_the_package(box, running, person, name, precision):
    person(2)
    box.run("build", name)
    (asked,) = running.journal.after(0, kinds=(Kind.ENGINE_BUILD_ASKED,))
    assert (asked.body["package"], asked.body["precision"]) == (name, precision)


@pytest.mark.req("R-SERVE-07")
def test_without_a_daemon_too_a_package_is_built_in_the_precision_in_which_it_will_run(box, monkeypatch):
    def build(package, *, precision, **_):
        raise BuildError(f"{package.name} as {precision}")

    monkeypatch.setattr(engine_work, "build_engine", build)
    assert f"{FP32_ONLY} as fp32" in box.run("build", FP32_ONLY).stderr
    assert "cxr-triage as fp16" in box.run("build", "cxr-triage").stderr
    assert f"{FP32_ONLY} as int8" in box.run("build", FP32_ONLY, "--precision", "int8").stderr


@pytest.mark.req("R-SERVE-07")
@pytest.mark.parametrize("command", ["bench", "compare"])
def test_an_engine_is_measured_in_the_precision_in_which_its_package_runs(box, command):
    assert "no accepted engine onnxruntime fp32" in box.run(command, FP32_ONLY).stderr


def key(version):
    facts = {"recipe": "fp16-1", "flavour": "tensorrt", "version": "10", "driver": "12", "gpu": "Orin"}
    facts |= {"profiles": "{}", "host": "aarch64 linux", "builder": "1"}
    return EngineKey(package_digest=f"digest of {version}", onnx=("a" * 64,), **facts)


@pytest.fixture
def built(box):
    """Digests of three accepted engines of a package's versions, the oldest first."""
    kept = EngineStore(box.config.engines_path)
    entries = [
        kept.put(key(version), package=NAME, version=version, precision="fp16", plans=[b"plan"], facts={})
        for version in ("1.0.0", "2.0.0", "3.0.0")
    ]
    return [kept.accept(entry.digest, {"passed": True}).digest for entry in entries]


def removed(box):
    done = box.run("gc", "--keep", "1", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["removed"]


@pytest.mark.req("R-SERVE-09")
@pytest.mark.parametrize("kind", [EngineServes, EngineFallback])
def test_the_engine_that_serves_is_not_removed_however_old_it_is(box, built, kind):
    store = box.store()
    why = {"why": "rolled back"} if kind is EngineFallback else {}
    for digest in (built[2], built[0]):
        store.engines.tell(NAME, kind(package=NAME, engine_digest=digest, backend="tensorrt", precision="fp16", **why))
    store.close()
    assert removed(box) == [built[1]]


def test_engines_of_a_box_that_never_ran_are_removed_by_age_alone(box, built):
    assert set(removed(box)) == set(built[:2])
