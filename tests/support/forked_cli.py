"""``scanside`` for shells of tests without the second that each start of Python takes.

A server process has everything imported and forks for each call; the program ``scanside`` that shells find hands it
its arguments, folder, environment and open files. The command is the real one; ``run``, which stays, is started anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

_STUB = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] == ["run"]:
    os.execv({python!r}, [{python!r}, "-m", "appliance.cli", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.connect({address!r})
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    sys.exit(int(server.recv(16) or b"70"))
"""


@contextlib.contextmanager
def scanside_program(folder: Path):
    """Yields a folder for the front of PATH, with the program ``scanside`` in it."""
    address = folder / "cli"
    with subprocess.Popen([sys.executable, __file__, address], start_new_session=True) as server:
        try:
            deadline = time.monotonic() + 60
            while not address.exists():
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
            program = folder / "bin" / "scanside"
            program.parent.mkdir()
            program.write_text(_STUB.format(python=sys.executable, address=str(address)))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            yield program.parent
        finally:
            server.kill()


def _serve(address: str) -> None:
    # Whatever the commands import when they are called.
    import appliance.cli.model_evaluate
    import appliance.cli.model_golden
    import appliance.cli.model_new
    import appliance.cli.model_package
    import appliance.cli.phantom
    import appliance.cli.send
    import appliance.cli.study
    import appliance.store.installing
    import appliance.triage.evaluation_run
    import appliance.triage.packages  # noqa: F401 - for the forks

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        Path(f"{address}.new").rename(address)
        while True:
            caller, _ = listening.accept()
            with caller:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(caller)


def _answer(caller: socket.socket) -> None:
    """Be the command. Never returns."""
    size, files, _, _ = socket.recv_fds(caller, 4, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += caller.recv(65536)
    arguments, folder, environment = json.loads(told)
    for target, given in enumerate(files):
        os.dup2(given, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["scanside", *arguments]
    code = 70
    try:
        from appliance.cli import main

        main.main(prog_name="scanside")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(str(code).encode())
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
