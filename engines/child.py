"""Foreign or risky work in a process of its own, with limits that the kernel keeps.

The child is ``python -m engines.child MODULE``: it takes one JSON document on standard input, calls
``MODULE.handle(request, progress)`` and writes JSON lines: any number of progress documents, then one result. What
the module or a library prints to standard output goes to standard error instead, so that it cannot spoil the answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from engines.errors import ChildError

#: What a child may tell while it works; the keys are the caller's and the module's own.
Progress = Callable[[dict[str, Any]], None]

#: What libraries map into a child that runs a package, besides the package's own memory.
LIBRARIES_MB = 2048
_MB = 1024 * 1024
_MAX_ANSWER_BYTES = 16 * _MB
_CHUNK = 65536
_STDERR_LINES = 5
_STDERR_BYTES = 8192
#: How often cancelling and resident memory are looked at, and how long a cancelled child may tidy up.
_LOOK_S = 0.2
_GRACE_S = 1.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may take.

    Attributes:
        memory_mb: Of address space, which the kernel keeps; it counts what libraries map as well: numpy alone maps
            some 300 MB. Without ``address_space`` of resident memory, looked at several times a second: CUDA reserves
            far more address space than memory, so a limit on that would break it.
    """

    wall_s: float
    cpu_s: float
    memory_mb: int = 1024
    address_space: bool = True
    file_mb: int = 256
    open_files: int = 64


def run_limited(
    module: str,
    request: dict[str, Any],
    limits: Limits,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Call ``module.handle(request, progress)`` in a child process.

    Args:
        module: Importable here and with a function ``handle(request: dict, progress) -> dict``.
        request: JSON; paths, never large arrays.
        limits: Kept by the kernel, except the wall time and resident memory, which are kept here; then the child's
            whole process group is killed.
        on_progress: Called in this thread for each progress document.
        cancelled: Asked several times a second in this thread; once it says yes, the child gets SIGTERM and a moment
            later SIGKILL.

    Returns:
        What ``handle`` returned.

    Raises:
        ChildError: There is no answer; ``fault`` says why, the message has the child's last stderr lines.
    """
    document = json.dumps({"limits": asdict(limits), "request": request}).encode()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        # Thread pools reserve address space per core, and the neighbours need the cores.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "engines.child", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            return _converse(process, module, document, limits, on_progress, cancelled)
        finally:
            _kill_group(process)


def _converse(
    process: subprocess.Popen[bytes],
    module: str,
    document: bytes,
    limits: Limits,
    on_progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> dict[str, Any]:
    deadline = time.monotonic() + limits.wall_s
    stdin, stdout, stderr = (cast("IO[bytes]", s) for s in (process.stdin, process.stdout, process.stderr))
    pending, answer, told = memoryview(document), bytearray(), bytearray()
    result: dict[str, Any] | None = None
    for stream in (stdin, stdout, stderr):
        os.set_blocking(stream.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        # Standard error may stay open in what the child has started; only the end of its answers counts.
        while stdout in {key.fileobj for key in selector.get_map().values()}:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChildError("timeout", f"{module} gave no answer within {limits.wall_s:g} s{_tail(told)}")
            if cancelled is not None and cancelled():
                _cancel(process)
                raise ChildError("cancelled", f"{module} was cancelled")
            if not limits.address_space and (taken_mb := resident_mb(process.pid)) > limits.memory_mb:
                raise ChildError("memory", f"{module} took {taken_mb:.0f} MB of {limits.memory_mb} MB{_tail(told)}")
            look = cancelled is not None or not limits.address_space
            for key, _ in selector.select(min(left, _LOOK_S) if look else left):
                if key.fileobj is stdin:
                    pending = _write(stdin, pending)
                    if not pending:
                        selector.unregister(stdin)
                        stdin.close()
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is stderr:
                    _remember(told, chunk)
                else:
                    answer += chunk
                    if len(answer) > _MAX_ANSWER_BYTES:
                        raise ChildError("garbage", f"{module} answered more than {_MAX_ANSWER_BYTES} bytes")
                    while (end := answer.find(b"\n")) >= 0:
                        taken = _take(bytes(answer[:end]), module, told, on_progress)
                        result = taken if taken is not None else result
                        del answer[: end + 1]
    try:
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ChildError("timeout", f"{module} did not end within {limits.wall_s:g} s{_tail(told)}") from None
    with contextlib.suppress(BlockingIOError):
        while rest := os.read(stderr.fileno(), _CHUNK):
            _remember(told, rest)
    if result is not None and status == 0:
        return result
    raise _death(module, status, told)


def _cancel(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)


def resident_mb(pid: int) -> float:
    """What a process holds of memory that no file backs; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    held = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(held) / 1024


def _remember(told: bytearray, chunk: bytes) -> None:
    told += chunk
    del told[:-_STDERR_BYTES]


def _write(stdin: IO[bytes], pending: memoryview) -> memoryview:
    try:
        return pending[os.write(stdin.fileno(), pending[:_CHUNK]) :]
    except BrokenPipeError:  # it died before it read all; its status tells more than this does
        return pending[:0]


def _take(line: bytes, module: str, told: bytearray, on_progress: Progress | None) -> dict[str, Any] | None:
    """Handle one line of the child's answer; the result when it is the result."""
    try:
        document = json.loads(line)
        (kind, body), *more = document.items()
    except (ValueError, AttributeError):
        document, kind, body, more = None, "", None, []
    if more or not isinstance(body, dict) or kind not in {"progress", "result", "fault"}:
        raise ChildError("garbage", f"{module} answered what is no answer: {line[:80]!r}{_tail(told)}")
    if kind == "fault":
        raise ChildError("memory" if body.get("memory") else "error", f"{module}: {body.get('message')}")
    if kind == "result":
        return cast("dict[str, Any]", body)
    if on_progress is not None:
        on_progress(body)
    return None


def _death(module: str, status: int, told: bytearray) -> ChildError:
    if status == -signal.SIGXCPU:
        return ChildError("timeout", f"{module} was ended by signal {-status} (CPU time){_tail(told)}")
    if status == -signal.SIGKILL:
        who = "the kernel for want of memory, or someone"
        return ChildError("crash", f"{module} was ended by signal {-status} ({who}){_tail(told)}")
    if status < 0:
        return ChildError("crash", f"{module} was ended by signal {-status}{_tail(told)}")
    if b"MemoryError" in told or b"bad_alloc" in told:
        return ChildError("memory", f"{module} ran out of its memory{_tail(told)}")
    return ChildError("crash", f"{module} ended with status {status} and no answer{_tail(told)}")


def _tail(told: bytearray) -> str:
    lines = told.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
    return "; its last words: " + " | ".join(lines) if lines else ""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Also after a good answer: nothing that the child started may outlive it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _limit(limits: Limits) -> None:
    """In the child: hand the limits to the kernel and die with the parent."""
    cpu = max(1, round(limits.cpu_s))
    space = limits.memory_mb * _MB
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        *([(resource.RLIMIT_AS, space, space)] if limits.address_space else []),
        (resource.RLIMIT_FSIZE, limits.file_mb * _MB, limits.file_mb * _MB),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Be the child: read the request, call the module's ``handle``, write the answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(kind: str, body: dict[str, Any]) -> None:
        answers.write(json.dumps({kind: body}) + "\n")
        answers.flush()

    document = json.load(sys.stdin)
    _limit(Limits(**document["limits"]))
    try:
        handle = importlib.import_module(arguments[0]).handle
        result = handle(document["request"], lambda body: say("progress", body))
        say("result", result)
    except MemoryError:
        say("fault", {"memory": True, "message": "ran out of its memory"})
    except Exception as error:  # noqa: BLE001 - whatever the module raises is the answer
        say("fault", {"memory": False, "message": f"{type(error).__name__}: {error}"})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
