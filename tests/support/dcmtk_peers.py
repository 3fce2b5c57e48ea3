"""DCMTK's programs as peers of the box: its storage SCP in a folder, and calls of its senders."""

from __future__ import annotations

import contextlib
import os
import subprocess

from appliance.simulate.rawscu import RawScu

_VERIFICATION, _IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
#: DCMTK reads it from the environment; without it every message waits 40 ms for an acknowledgement.
_ENV = {"TCP_NODELAY": "1"}


def call(*words, timeout_s=120):
    """Run a program; what it said and its exit status."""
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **_ENV},
    )


@contextlib.contextmanager
def storescp(program, folder, port, wait_until):
    """DCMTK's storescp, bit preserving, any class and syntax, into ``folder``; yields the folder."""
    folder.mkdir(parents=True)
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [program, "+B", "--promiscuous", "+xa", "-od", folder, str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, **_ENV},
        )

    def answers():
        try:
            with RawScu("127.0.0.1", port, timeout_s=5) as raw:
                return raw.echo(next(iter(raw.associate([(_VERIFICATION, [_IMPLICIT])])))) == 0
        except OSError:
            return False

    try:
        wait_until(answers)
        yield folder
    finally:
        process.kill()
        process.wait(60)


@contextlib.contextmanager
def worklist(program, folder, port, wait_until):
    """DCMTK's wlmscpfs; yields the folder whose files ``*.wl`` it takes for its entries, under the AE title WLM.

    An entry that lacks one of the keys that it can return is passed over in silence, and without a file ``lockfile`` it
    answers nothing. Only with -csk do its answers declare the character set of the file.
    """
    entries = folder / "WLM"
    entries.mkdir(parents=True)
    (entries / "lockfile").touch()
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-v", "-csk", "-dfp", folder, str(port)], stdout=log, stderr=log, env={**os.environ, **_ENV}
        )

    def answers():
        try:
            with RawScu("127.0.0.1", port, timeout_s=5, called="WLM") as raw:
                return raw.echo(next(iter(raw.associate([(_VERIFICATION, [_IMPLICIT])])))) == 0
        except OSError:
            return False

    try:
        wait_until(answers)
        yield entries
    finally:
        process.kill()
        process.wait(60)
