from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from engines.child import Limits, run_limited
from engines.errors import ChildError

DEEDS = Path(__file__).parent / "children"
GENEROUS = Limits(wall_s=60, cpu_s=30)


@pytest.fixture(autouse=True)
def _deeds_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(DEEDS))


def ask(deed, limits=GENEROUS, on_progress=None, **request):
    return run_limited("child_deeds", {"deed": deed, **request}, limits, on_progress)


def fault_of(deed, limits=GENEROUS, **request):
    with pytest.raises(ChildError) as caught:
        ask(deed, limits, **request)
    return caught.value


def test_request_and_answer_pass_whole():
    value = {"text": "颅脑 " * 50_000, "numbers": [1, 2.5, None, True]}
    assert ask("echo", value=value) == {"got": value}


def test_progress_arrives_in_order_before_the_answer():
    seen = []
    assert ask("count", on_progress=seen.append) == {"done": True}
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_what_libraries_print_does_not_spoil_the_answer():
    assert ask("chatter") == {"clean": True}


@pytest.mark.req("R-ENGINE-04")
def test_child_that_sleeps_is_ended_at_its_wall_time(tmp_path):
    pid_file = tmp_path / "pid"
    for wall_s in (2, 10, 40):
        begun = time.monotonic()
        error = fault_of("sleep", Limits(wall_s=wall_s, cpu_s=30), pid_file=str(pid_file))
        assert error.fault == "timeout"
        assert f"within {wall_s} s" in str(error)
        assert time.monotonic() - begun < wall_s + 30
        if "about to sleep" in str(error):  # on a busy machine it may not have come so far
            break
    assert "about to sleep" in str(error)
    assert not psutil.pid_exists(int(pid_file.read_text()))


@pytest.mark.req("R-ENGINE-04")
def test_child_that_burns_is_ended_at_its_cpu_time():
    error = fault_of("burn", Limits(wall_s=60, cpu_s=1))
    assert error.fault == "timeout"
    assert "CPU time" in str(error)


@pytest.mark.req("R-ENGINE-04")
def test_child_that_takes_too_much_memory_says_so():
    assert fault_of("hog", Limits(wall_s=60, cpu_s=30, memory_mb=512)).fault == "memory"


@pytest.mark.req("R-ENGINE-04")
def test_resident_memory_is_limited_where_address_space_must_not_be():
    assert ask("reserve", Limits(wall_s=60, cpu_s=30, memory_mb=64, address_space=False)) == {"reserved": True}
    error = fault_of("fill", Limits(wall_s=60, cpu_s=30, memory_mb=64, address_space=False))
    assert error.fault == "memory"
    assert "of 64 MB" in str(error)


def test_a_cancelled_child_may_tidy_up_and_is_ended_if_it_does_not(tmp_path, monkeypatch):
    for deed, tidied, grace_s in (("tidy", True, 20.0), ("stubborn", False, 1.0)):
        monkeypatch.setattr("engines.child._GRACE_S", grace_s)
        begun, told = [], tmp_path / deed
        begun_at = time.monotonic()
        with pytest.raises(ChildError) as caught:
            run_limited(
                "child_deeds",
                {"deed": deed, "path": str(told)},
                GENEROUS,
                begun.append,
                cancelled=lambda seen=begun: bool(seen),
            )
        assert caught.value.fault == "cancelled"
        assert told.exists() == tidied
        assert time.monotonic() - begun_at < 30


def test_a_child_that_someone_kills_is_a_crash():
    error = fault_of("killed")
    assert error.fault == "crash"
    assert "want of memory, or someone" in str(error)


def test_crash_is_named_with_the_last_words():
    error = fault_of("crash")
    assert error.fault == "crash"
    assert "signal 11" in str(error)
    assert "touching address zero" in str(error)


def test_silent_exit_is_a_crash_not_an_answer():
    error = fault_of("leave")
    assert error.fault == "crash"
    assert "status 3" in str(error)
    assert "cannot go on" in str(error)


def test_garbage_is_no_answer():
    error = fault_of("garbage")
    assert error.fault == "garbage"
    assert "this is no answer" in str(error)


@pytest.mark.parametrize("deed", ["fail", "wrong_type"])
def test_error_of_the_module_comes_back_as_its_message(deed):
    error = fault_of(deed)
    assert error.fault == "error"
    assert "not like this" in str(error) or "not JSON serializable" in str(error)


def test_module_that_does_not_exist_is_an_error():
    with pytest.raises(ChildError, match="No module named 'no_such_module'") as caught:
        run_limited("no_such_module", {}, GENEROUS)
    assert caught.value.fault == "error"


def test_files_stay_below_their_limit(tmp_path):
    target = tmp_path / "large"
    error = fault_of("write", Limits(wall_s=60, cpu_s=30, file_mb=1), path=str(target))
    assert error.fault in {"error", "crash"}
    assert target.stat().st_size <= 1 << 20


def test_open_files_stay_below_their_limit():
    assert "Too many open files" in str(fault_of("open_many"))


def test_nothing_that_the_child_started_outlives_it(wait_until):
    grandchild = ask("breed")["grandchild"]

    def gone():
        try:
            return psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(gone)


def test_endless_progress_still_ends_at_the_wall_time():
    assert fault_of("endless", Limits(wall_s=2, cpu_s=30)).fault == "timeout"


def test_answer_has_a_bound():
    assert fault_of("large").fault == "garbage"


def test_no_descriptor_is_left_open():
    ask("echo", value=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        ask("echo", value=1)
        fault_of("fail")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
