"""mosquitto as a child: what it is told, that it comes back, and what is said where it cannot run."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from appliance.clock import FakeClock, SystemClock
from appliance.errors import ConfigError
from appliance.fleet.server import broker as module
from appliance.fleet.server.broker import (
    BOXES_ACL,
    SERVER_ACL,
    Broker,
    BrokerFiles,
    Listen,
    configuration,
    find_mosquitto,
)

pytestmark = pytest.mark.req("R-FLEET-29")

LISTEN = Listen("127.0.0.1", 8883, 8884)
#: Listens on its socket as mosquitto does, and keeps a line of each start.
STANDIN = """#!/usr/bin/env python3
import os, signal, socket, sys
folder = os.path.dirname(sys.argv[2])
with open(folder + "/starts", "a") as starts:
    starts.write("start\\n")
if os.path.exists(folder + "/broken"):
    sys.exit("1700000000: Error: the port is in use")
signal.signal(signal.SIGHUP, lambda *_: open(folder + "/hup", "w").close())
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(folder + "/mqtt.sock")
    listening.listen()
    while True:
        listening.accept()[0].close()
"""


@pytest.fixture
def folder(drop_user):
    """Not below tmp_path: the broker is another user where the tester is root."""
    drop_user.home.chmod(0o711)
    made = drop_user.home / "fleet"
    made.mkdir()
    made.chmod(0o711)
    return made


@pytest.fixture
def standin(folder):
    path = folder / "standin"
    path.write_text(STANDIN)
    path.chmod(0o755)
    return path


@pytest.fixture
def make(folder, standin):
    made = []

    def broker(clock=None):
        made.append(Broker(folder, LISTEN, clock or SystemClock(), standin))
        return made[-1]

    yield broker
    for one in made:
        one.stop()


def sections(text):
    """The settings of each listener; those before the first are of all."""
    parts = text.split("\nlistener ")
    return parts[0], {part.split()[0]: part for part in parts[1:]}


def test_every_listener_of_the_network_wants_tls_a_certificate_and_its_name_and_none_is_anonymous():
    _, listeners = sections(configuration(BrokerFiles(Path("/f")), LISTEN))
    assert set(listeners) == {"8883", "8884", "0"}
    for port in ("8883", "8884"):
        lines = listeners[port].splitlines()
        assert f"{port} 127.0.0.1" == lines[0]
        for line in (
            "require_certificate true",
            "use_identity_as_username true",
            "use_username_as_clientid true",
            "tls_version tlsv1.2",
            "allow_anonymous false",
            "crlfile /f/revoked.crl",
            "acl_file /f/boxes.acl",
        ):
            assert line in lines
    assert listeners["0"].splitlines()[0] == "0 /f/mqtt.sock"


def test_what_the_broker_holds_is_kept_and_more_than_its_thousand():
    whole, _ = sections(configuration(BrokerFiles(Path("/f")), LISTEN))
    lines = whole.split("\n")
    assert {"persistence true", "autosave_on_changes true", "per_listener_settings true"} <= set(lines)
    (most,) = (int(line.split()[1]) for line in lines if line.startswith("max_queued_messages"))
    assert most > 100_000


def test_a_box_writes_and_reads_below_its_own_name_alone():
    assert BOXES_ACL.splitlines() == [
        "pattern write scanside/v1/+/%u/up/#",
        "pattern read scanside/v1/+/%u/dn/#",
        "pattern read scanside/v1/+/%u/up/status",
    ]
    assert all("#" in line for line in SERVER_ACL.splitlines())


def test_without_mosquitto_the_mending_line_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "_PLACES", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install mosquitto"):
        find_mosquitto()


def test_a_folder_that_cannot_be_is_said_before_anything_starts(standin, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="blank"):
        Broker(tmp_path / "a b", LISTEN, SystemClock(), standin)
    with pytest.raises(ConfigError, match="shorter"):
        Broker(tmp_path / ("x" * 120), LISTEN, SystemClock(), standin)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in {os.geteuid(), 0})
    monkeypatch.setattr(module, "_owner", lambda: other)
    with pytest.raises(ConfigError, match="never runs as root"):
        Broker(closed / "fleet", LISTEN, SystemClock(), standin)


def test_it_is_never_root_and_its_files_are_its_users_alone(make):
    broker = make()
    broker.put(broker.files.key, b"secret")
    broker.start()
    owner = Path(f"/proc/{broker.pid}").stat().st_uid
    assert owner != 0
    for path in broker.files.folder.iterdir():
        found = path.stat()
        assert found.st_uid == owner
        if stat.S_ISREG(found.st_mode) and path.name != "starts":
            assert found.st_mode & 0o077 == 0
    assert broker.files.folder.stat().st_mode & 0o077 == 0


def test_one_that_does_not_start_is_told_in_its_own_words(make):
    broker = make()
    (broker.files.folder / "broken").touch()
    with pytest.raises(ConfigError, match="the port is in use"):
        broker.start()
    assert broker.pid is None


def test_one_that_dies_comes_back_later_each_time_and_at_once_after_a_good_while(make, wait_until):
    clock = FakeClock()
    broker = make(SystemClock())
    broker.start()
    broker._clock, broker._started_mono = clock, clock.monotonic()
    pauses = []
    for _ in range(4):
        os.kill(broker.pid, 9)
        wait_until(lambda: broker.pid is None)
        began = clock.monotonic()
        while not broker.look():
            clock.advance(0.25)
        pauses.append(clock.monotonic() - began)
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert broker.restarts == 4
    clock.advance(61)
    os.kill(broker.pid, 9)
    wait_until(lambda: broker.pid is None)
    assert not broker.look()
    clock.advance(0.5)
    assert broker.look()


def test_a_reload_is_a_sighup_and_after_stop_nothing_starts_again(make, wait_until):
    broker = make()
    broker.start()
    broker.reload()
    wait_until((broker.files.folder / "hup").exists)
    pid = broker.pid
    broker.stop()
    broker.stop()
    assert not broker.look()
    assert not Path(f"/proc/{pid}").exists()
