"""Logs for the service team: what of the box's log can hold nothing of a patient, and the support bundle.

Of each line goes its level, where in our code it was written, and the text as it stands there, before any value is
put in. Values, exceptions' words and lines of other software stay here. A test holds every call of a log in this
software to a text that is written out.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import traceback
import zipfile
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from appliance.errors import TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.enrolment import EnrolError, Server
from appliance.fleet.device.identity import Identity

_LINES = 5000
_OURS = ("appliance.", "engines.")
_MOST_BYTES = 16 * 1024 * 1024
_FRAMES = 20
#: What the signature of an upload says that it is for, before the token.
UPLOAD = "scanside/upload/v1"


class LogTail(logging.Handler):
    """The last lines of our own log, in memory."""

    def __init__(self, lines: int = _LINES) -> None:
        """Keep so many."""
        super().__init__(logging.INFO)
        self._lines: deque[dict[str, object]] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what of a line may leave the box."""
        if not record.name.startswith(_OURS) or not isinstance(record.msg, str):
            return
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "module": record.name,
            "line": record.lineno,
            "event": record.msg,
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["where"] = _frames(record.exc_info[2])
        self._lines.append(line)

    def lines(self) -> bytes:
        """As JSON, a line each, the oldest first."""
        return "".join(f"{json.dumps(line)}\n" for line in list(self._lines)).encode()


def _frames(trace: TracebackType | None) -> list[str]:
    """Where an exception came by: modules of ours and line numbers."""
    found = [f for f in traceback.extract_tb(trace) if "/appliance/" in f.filename or "/engines/" in f.filename]
    return [f"{Path(one.filename).name}:{one.lineno}" for one in found[-_FRAMES:]]


def collect(bundle: bytes, tail: LogTail) -> bytes:
    """The support bundle with the lines in it, a zip file.

    Raises:
        ActRefused: It is larger than anybody takes.
    """
    out = io.BytesIO(bundle)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("log.jsonl", tail.lines())
    if out.tell() > _MOST_BYTES or len(out.getvalue()) > _MOST_BYTES:
        raise ActRefused("TOO_LARGE")
    return out.getvalue()


def send_logs(folder: Path, bundle: Callable[[], bytes], tail: LogTail, proxy_url: str | None, token: str) -> int:
    """``PUT /v1/upload/{token}``: the zip file, signed by the device's key. Returns its size.

    The signature stands in ``X-Scanside-Signature`` (``keys.DeviceKey.sign`` of ``scanside/upload/v1/{token}`` and the
    body) beside ``X-Scanside-Device``; the answer is 200 with ``{"sha256": ...}`` of what was kept.

    Raises:
        ActRefused: The server does not take it, or kept something else.
        TransientError: It does not answer, or a new certificate is just being taken.
    """
    if (folder / "next").exists():
        raise TransientError("a new certificate is being taken")
    identity = Identity.load(folder)
    data = collect(bundle(), tail)
    server = Server(identity.enrolment.server_url, identity.ca_path, proxy_url)
    signature = identity.key.sign(f"{UPLOAD}/{token}", data)
    try:
        told = server.put(f"/v1/upload/{token}", data, identity.enrolment.device, signature)
    except EnrolError as error:
        raise ActRefused("UPLOAD_REFUSED", str(error)) from error
    if told.get("sha256") != hashlib.sha256(data).hexdigest():
        raise ActRefused("UPLOAD_DAMAGED")
    return len(data)
