"""mosquitto as a child: its configuration, who may what on it, and starting it again when it dies.

Boxes come over TLS with their certificate, whose name is user name and client id alike, whatever they say themselves.
The server's own clients come over a Unix socket in a folder of the server's user, so nothing on the network can pass
for the server. Revoked certificates stand in a CRL, which 2.0.11 reads anew on SIGHUP for those who connect (shown by
``tests/integration/test_fleet_up.py``); whoever is connected is thrown out by taking its session over. With a WebSocket
client on the line 2.0.11 does not end on SIGTERM, though it has saved its state by then: it is killed after that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.clock import Clock
from appliance.errors import ConfigError
from appliance.fleet.server.unix_client import UnixClient
from appliance.fleet.wire import MAX_PACKED_BYTES, ROOT
from engines.durable import write_private

log = logging.getLogger(__name__)

#: Where distributions put daemons; not on everybody's PATH.
_PLACES = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"))
#: Who a broker becomes that root starts.
_USERS = ("mosquitto", "nobody")
#: Between two starts of one that keeps dying.
_FIRST_S, _LONGEST_S = 0.5, 30.0
#: One that ran so long starts again at once.
_STABLE_S = 60.0
_START_S, _SAVE_S, _TAKE_OVER_S = 20.0, 5.0, 5.0
#: The ingest may be away for minutes; whatever overflows is sent again by its box, which has no acknowledgement.
_MOST_QUEUED, _MOST_QUEUED_BYTES = 200_000, 512 * 1024 * 1024
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
_FOLDER_NAME = "broker"
#: A Unix socket's address takes 107 bytes.
_LONGEST_PATH = 107 - len("/mqtt.sock")


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """What mosquitto reads, all in one folder that is its user's."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Whose certificates it takes."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Its own, with the chain."""
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        """Of its certificate."""
        return self.folder / "server.key"

    @property
    def crl(self) -> Path:
        """Whose it does not take any more."""
        return self.folder / "revoked.crl"

    @property
    def socket(self) -> Path:
        """Where the server's own clients connect."""
        return self.folder / "mqtt.sock"

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "mosquitto.conf"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where boxes reach it. Port 0 is no port here: mosquitto would take it for a Unix socket."""

    host: str
    port: int
    websocket_port: int | None = None
    max_connections: int = 20_000


def find_mosquitto() -> Path:
    """The program.

    Raises:
        ConfigError: It is not installed.
    """
    found = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), _PLACES)))
    if found is None:
        raise ConfigError("mosquitto is not installed, and boxes talk through it; call: apt-get install mosquitto")
    return Path(found)


def configuration(files: BrokerFiles, listen: Listen) -> str:
    """The text of mosquitto.conf."""
    of_boxes = "\n".join(
        (
            f"cafile {files.ca}",
            f"certfile {files.certificate}",
            f"keyfile {files.key}",
            f"crlfile {files.crl}",
            "require_certificate true",
            "use_identity_as_username true",
            # Whoever names another's client id would throw it out and take its session.
            "use_username_as_clientid true",
            "tls_version tlsv1.2",
            f"ciphers {_SUITES}",
            "allow_anonymous false",
            f"acl_file {files.folder / 'boxes.acl'}",
            f"max_connections {listen.max_connections}",
        )
    )
    parts = [
        "per_listener_settings true",
        "persistence true",
        f"persistence_location {files.folder}/",
        # What it loses is sent again; saving all of it after each message would cost more than that.
        "autosave_on_changes true",
        "autosave_interval 1000",
        f"max_queued_messages {_MOST_QUEUED}",
        f"max_queued_bytes {_MOST_QUEUED_BYTES}",
        # A worker answers for a group once it is committed; the default of 20 would be the size of every group.
        "max_inflight_messages 1000",
        # What the protocol allows, and MQTT's own bytes around it.
        f"max_packet_size {MAX_PACKED_BYTES + 8192}",
        "persistent_client_expiration 2d",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
        f"listener {listen.port} {listen.host}\nprotocol mqtt\n{of_boxes}",
    ]
    if listen.websocket_port is not None:
        parts.append(f"listener {listen.websocket_port} {listen.host}\nprotocol websockets\n{of_boxes}")
    parts.append(f"listener 0 {files.socket}\nallow_anonymous true\nacl_file {files.folder / 'server.acl'}")
    return "\n\n".join(parts) + "\n"


#: A box writes and reads below its own name alone. mosquitto answers a subscription to another's with "granted" and
#: delivers nothing.
#: A box reads its own status too: another birth than its own there is a copy of its disk (``device/mail.py``).
BOXES_ACL = f"pattern write {ROOT}/+/%u/up/#\npattern read {ROOT}/+/%u/dn/#\npattern read {ROOT}/+/%u/up/status\n"
SERVER_ACL = f"topic readwrite {ROOT}/#\ntopic read $SYS/#\n"


class Broker:
    """One mosquitto. ``start``, then ``look`` now and then, then ``stop``; ``reload`` from any thread."""

    def __init__(self, folder: Path, listen: Listen, clock: Clock, program: Path | None = None) -> None:
        """Prepare the folder.

        Args:
            folder: Of the fleet server; a folder of its own below it is the broker's.
            listen: Where boxes reach it.
            clock: For the pauses between starts.
            program: mosquitto.

        Raises:
            ConfigError: It is not installed, or its user could not reach the folder.
        """
        self._program = program or find_mosquitto()
        self._clock = clock
        self._owner = _owner()
        self._listen = listen
        folder.mkdir(parents=True, exist_ok=True)
        self.files = BrokerFiles(folder.absolute() / _FOLDER_NAME)
        self.files.folder.mkdir(exist_ok=True, mode=0o700)
        _check_path(self.files.folder)
        if self._owner is not None:
            _check_reach(self.files.folder.parent, self._owner)
            os.chown(self.files.folder, self._owner.pw_uid, self._owner.pw_gid)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started_mono = 0.0
        self._delay_s = 0.0
        self._next_mono = float("-inf")
        self._said: deque[str] = deque(maxlen=20)
        #: How often it had to be started again.
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def put(self, path: Path, data: bytes) -> None:
        """Write one of ``files``, whole or not at all, for the broker's user."""
        owner = self._owner
        write_private(path, data, owner=(owner.pw_uid, owner.pw_gid) if owner is not None else None)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            ConfigError: It ends at once; its own words are in the text.
        """
        self.put(self.files.folder / "boxes.acl", BOXES_ACL.encode())
        self.put(self.files.folder / "server.acl", SERVER_ACL.encode())
        self.put(self.files.config, configuration(self.files, self._listen).encode())
        with self._lock:
            self._spawn()
            process = self._process
        assert process is not None  # noqa: S101 - just started
        deadline = self._clock.monotonic() + _START_S
        while not _answers(self.files.socket):
            ended = process.poll() is not None
            if ended or self._clock.monotonic() > deadline:
                self.stop()
                if self._reader is not None:
                    self._reader.join(_SAVE_S)  # its last words may be on their way
                raise ConfigError(f"mosquitto does not start: {'; '.join(self._said) or 'it says nothing'}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)

    def look(self) -> bool:
        """Start it again where it has died, later each time. Returns whether it runs."""
        with self._lock:
            if self._process is None:
                return False
            if self._process.poll() is None:
                return True
            now = self._clock.monotonic()
            if self._next_mono == float("-inf"):
                ran_s = now - self._started_mono
                self._delay_s = _FIRST_S if ran_s >= _STABLE_S else min(max(self._delay_s * 2, _FIRST_S), _LONGEST_S)
                self._next_mono = now + self._delay_s
                log.error(
                    "mosquitto has ended (%s); it starts again in %s s: %s",
                    self._process.returncode,
                    self._delay_s,
                    "; ".join(self._said),
                )
            if now < self._next_mono:
                return False
            self.restarts += 1
            self._spawn()
            return True

    def reload(self) -> None:
        """Have it read its certificates and the list of revoked ones anew. Those who are connected stay."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGHUP)

    def throw_out(self, client_id: str) -> None:
        """End the connection of a client, and its session: it is taken over and given up.

        Raises:
            OSError: The broker does not answer.
        """
        client = UnixClient(client_id)
        there = threading.Event()
        client.on_connect = lambda *_: there.set()
        client.connect(str(self.files.socket), 1, clean_start=True)
        client.loop_start()
        try:
            if not there.wait(_TAKE_OVER_S):
                raise OSError(f"the broker does not let {client_id} be taken over")
        finally:
            client.disconnect()
            client.loop_stop()

    def stop(self) -> None:
        """End it; it saves its sessions first."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_SAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self) -> None:
        # One that was killed leaves its socket behind, on which the next could not listen.
        self.files.socket.unlink(missing_ok=True)
        self._started_mono = self._clock.monotonic()
        self._next_mono = float("-inf")
        self._said.clear()
        who: dict[str, int | list[int]] = {}
        if self._owner is not None:
            who = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            [*_dying_with_us(), self._program, "-c", self.files.config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.files.folder,
            umask=0o077,
            # Ctrl-C is for us alone: the broker ends after those who talk through it.
            start_new_session=True,
            **who,
        )
        self._reader = threading.Thread(
            target=self._listen_to, args=(self._process.stderr,), name="mosquitto-log", daemon=True
        )
        self._reader.start()

    def _listen_to(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                text = line.decode("utf-8", "replace").strip().partition(": ")[2][:300]
                if text:
                    self._said.append(text)
                    log.debug("mosquitto: %s", text)


def _owner() -> pwd.struct_passwd | None:
    """Who mosquitto is to be where we are root; None: who we are."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigError("mosquitto must not run as root, and there is no user for it; call this as another user")


def _check_reach(folder: Path, owner: pwd.struct_passwd) -> None:
    for place in (folder, *folder.parents):
        mode = place.stat()
        is_in = mode.st_mode & stat.S_IXOTH or mode.st_uid == owner.pw_uid
        if not is_in:
            raise ConfigError(
                f"{place} lets nobody but its owner in, and mosquitto never runs as root but as {owner.pw_name};"
                " call this as the user of the folder, or choose a folder that others may enter"
            )


def _check_path(path: Path) -> None:
    if any(letter.isspace() for letter in str(path)):
        raise ConfigError(f"{path}: mosquitto's configuration takes no blank in a path; choose another folder")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"{path}: too long a path for a socket; choose a folder of a shorter one")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _dying_with_us() -> list[str]:
    """A prefix by which the kernel ends it where we are killed, so that the next start finds the ports free.

    It goes by the thread that starts it, so that must be one that stays.
    """
    found = shutil.which("setpriv", path=_PLACES)
    # Not SIGTERM: see above.
    return [found, "--pdeathsig", "KILL"] if found else []
