"""What a box and its fleet server say to each other over MQTT 5: topics, bytes, signatures and documents.

Both sides import this file. Everything is UTF-8 JSON under ``scanside/v1/{tenant}/{device}/``. What goes up is built
from these models alone, which refuse a field that they do not know and have no field for free text: a person, a study
or a DICOM UID has no place in them. Whoever receives is tolerant: it leaves out what a newer sender added.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance.errors import ApplianceError
from appliance.fleet.wire_records import Clk, Code, Digest, Name, Record, Version
from appliance.records import Word
from engines.signing import parse_strict

ROOT = "scanside/v1"
#: A message is never larger, packed; a compressed one never larger, unpacked.
MAX_PACKED_BYTES = 256 * 1024
MAX_BYTES = 1024 * 1024
_GZIP_FROM = 1024
_ID = re.compile(r"[a-z0-9-]{8,40}")

#: DSSE payload types. A job never passes for a twin, nor either for an acknowledgement.
JOB_TYPE = "application/vnd.scanside.job.v1+json"
TWIN_TYPE = "application/vnd.scanside.twin.v1+json"
ACK_TYPE = "application/vnd.scanside.ack.v1+json"

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{8,40}$")]
Ulid = Annotated[str, StringConstraints(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
B = TypeVar("B", bound=BaseModel)
M = TypeVar("M", bound="Message")


class WireError(ApplianceError):
    """Bytes that are no message of this version; the text says which part and why, never what stood in it."""


class Up(Word):
    """Topics of a box."""

    STATUS = "up/status"
    HEALTH = "up/health"
    REC = "up/rec"
    TWIN = "up/twin"
    GET = "up/get"


class Down(Word):
    """Topics of the server. A command is a job without an artefact."""

    ACK = "dn/ack"
    TWIN = "dn/twin"
    JOB = "dn/job"


#: Signed by the device's key in MQTT's user property ``sig``: what moves counters, cursors and gates of roll-outs. The
#: broker could otherwise say it in a box's name.
SIGNED = frozenset({Up.REC, Up.GET, Up.TWIN})

_NAMES: dict[str, Up | Down] = {str(name): name for kind in (Up, Down) for name in kind}
#: Seconds after which a message that could not be delivered is worth nothing; None = never. Only status is retained.
EXPIRY_S: dict[Up | Down, int | None] = {
    Up.STATUS: None,
    Up.HEALTH: 120,
    Up.REC: None,
    Up.TWIN: None,
    Up.GET: 60,
    Down.ACK: 300,
    Down.TWIN: 86_400,
    Down.JOB: 86_400,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Whose topic."""

    tenant: str
    device: str

    def topic(self, name: Up | Down) -> str:
        """The full topic.

        Raises:
            WireError: An id could name another's topic.
        """
        if not _ID.fullmatch(self.tenant) or not _ID.fullmatch(self.device):
            raise WireError("a tenant and a device are named by 8 to 40 of a-z, 0-9 and -")
        return f"{ROOT}/{self.tenant}/{self.device}/{name}"


def parse_topic(topic: str) -> tuple[Address, Up | Down]:
    """Whose topic it is and which.

    Raises:
        WireError: It is none of ours.
    """
    parts = topic.split("/")
    name = "/".join(parts[4:])
    if "/".join(parts[:2]) != ROOT or len(parts) != 6 or not all(_ID.fullmatch(part) for part in parts[2:4]):
        raise WireError("the topic is none of this protocol")
    kind = _NAMES.get(name)
    if kind is None:
        raise WireError("the topic is none of this protocol")
    return Address(parts[2], parts[3]), kind


class Message(BaseModel):
    """Anything that crosses the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def pack(self) -> tuple[bytes, bool]:
        """The bytes, and whether they are compressed (gzip, above 1 KiB)."""
        return pack(self)

    @classmethod
    def unpack(cls: type[M], data: bytes, *, packed: bool = False) -> M:  # noqa: PYI019 - Self needs Python 3.11
        """Read what ``pack`` wrote, or a newer version's; see ``unpack``."""
        return unpack(cls, data, packed=packed)


def pack(message: BaseModel) -> tuple[bytes, bool]:
    """The bytes of a message or of ``up/health``, and whether they are compressed (gzip, above 1 KiB)."""
    data = message.model_dump_json(exclude_none=True).encode()
    if len(data) <= _GZIP_FROM:
        return data, False
    return gzip.compress(data, compresslevel=6, mtime=0), True


def unpack(kind: type[B], data: bytes, *, packed: bool = False) -> B:
    """Read what ``pack`` wrote, or a newer version's.

    Raises:
        WireError: Too large, not JSON as RFC 8259 has it (keys twice, NaN, too deep), or another message.
    """
    document = strict_json(inflate(data) if packed else data)
    try:
        return kind.model_validate(document, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise WireError(f"{kind.__name__}: {_where(first['loc'])}: {first['type']}") from None


def _where(parts: tuple[int | str, ...]) -> str:
    """The place of a fault; keys that a stranger chose are not repeated."""
    return ".".join(
        str(one) if isinstance(one, int) or (one.isidentifier() and len(one) <= 32) else "?" for one in parts
    )


def inflate(data: bytes) -> bytes:
    """Unpack gzip, at most ``MAX_BYTES`` of it.

    Raises:
        WireError: It is not gzip, not whole, or larger.
    """
    packed = zlib.decompressobj(wbits=31)
    try:
        out = packed.decompress(data, MAX_BYTES)
    except zlib.error:
        raise WireError("the compressed part is damaged") from None
    if not packed.eof:
        raise WireError(f"the compressed part is cut off, or larger than {MAX_BYTES} bytes")
    return out


def strict_json(data: bytes) -> Any:
    """Parse JSON that says one thing only.

    Raises:
        WireError: It is larger than ``MAX_BYTES``, no UTF-8, has a key twice, NaN, or is nested too deeply.
    """
    if len(data) > MAX_BYTES:
        raise WireError(f"larger than {MAX_BYTES} bytes")
    try:
        return parse_strict(data)
    except ValueError:
        raise WireError("not JSON that says one thing only") from None


# Up ------------------------------------------------------------------------------------------------------------------


class Status(Message):
    """``up/status``, retained: birth, a graceful end, or the last will.

    Attributes:
        sess: Counted on disk before each CONNECT; an offline of an older session means nothing.
        nonce: Of this session; where the box does not know the time, a job that changes something must name it.
    """

    online: bool
    sess: int
    why: Literal["start", "reconnect", "stop", "lwt"]
    agent: str = Field(default="", pattern=r"^[A-Za-z0-9.+_-]{0,64}$")
    boot: str = Field(default="", pattern=r"^[0-9a-f-]{0,36}$")
    stream: str = Field(default="", pattern=r"^[0-9A-HJKMNP-TV-Z]{0,26}$")
    nonce: str = Field(default="", pattern=r"^[0-9a-f]{0,32}$")
    ts: int = 0
    clk: Clk = "none"


class Batch(Message):
    """``up/rec``: rows of the journal, signed by the device's key (MQTT user property ``sig``).

    The server's key of a record is (device, stream, seq); seq is the journal's. It answers with the batch id once it
    has committed. Ids of different batches may overlap in rows after a restart: what is there already is left alone.
    """

    batch: Ulid
    stream: Ulid
    sess: int
    recs: tuple[Record, ...] = Field(min_length=1, max_length=100)


class Get(Message):
    """``up/get``, signed, on every connect and each hour: what the box has, so that whatever was lost goes again.

    Attributes:
        dv: Version of the desired document that it has.
        ctr: Highest counter of a job that it took.
        seq: Its cursor: everything up to here was acknowledged.
        last_seq: The newest row of its journal; a server that was restored from a backup asks for the rest.
    """

    sess: int
    stream: Ulid
    dv: int
    ctr: int
    seq: int
    last_seq: int


class Reported(Message):
    """``up/twin``, signed: what the box made of the desired document.

    Attributes:
        rv: Version of this report.
        applied_dv: The desired document that holds now.
        refused_dv: A newer one that it refuses, with codes of why.
    """

    rv: int
    applied_dv: int
    refused_dv: int | None = None
    errors: tuple[Code, ...] = ()
    desired: Desired | None = None


# Down ----------------------------------------------------------------------------------------------------------------


class Ack(Message):
    """``dn/ack``, signed by the server: these batches are committed.

    Attributes:
        st: The server's time, UTC milliseconds.
        hold_ms: Send no more for so long.
        resend_after: The server lacks rows after this one (it was restored): send them again.
    """

    aud: Id
    stream: Ulid
    b: tuple[Ulid, ...] = Field(max_length=100)
    st: int
    hold_ms: int = Field(default=0, ge=0, le=3_600_000)
    resend_after: int | None = Field(default=None, ge=0)


class Window(Message):
    """When a box may change what runs: local time of the site, over midnight where end <= begin."""

    begin: str = Field(default="01:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    end: str = Field(default="05:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")


class DesiredPackage(Message):
    """What a package should be; an operating point is one of its own closed list."""

    name: Name
    role: Literal["silent", "live"] | None = None
    operating_points: dict[Name, Name] = {}


class Desired(Message):
    """A whole document, never a patch. What the site decides (approval, detail, retention) is not in it.

    Attributes:
        health_every_s: Period of ``up/health``.
        bytes_per_s: Upper bound of what the link sends; and of what a download takes, the other way.
        held: Nothing new is installed or activated (a clinical freeze).
    """

    health_every_s: int = Field(default=60, ge=10, le=3600)
    bytes_per_s: int = Field(default=32 * 1024, ge=1024, le=100_000_000)
    window: Window = Window()
    held: bool = False
    packages: tuple[DesiredPackage, ...] = ()


class Twin(Message):
    """``dn/twin``, signed."""

    aud: Id
    dv: int = Field(ge=1)
    desired: Desired


class Op(Word):
    """What a job may ask. There is no shell."""

    PING = "ping"
    RESTART = "restart"
    SELF_TEST = "self_test"
    COLLECT_LOGS = "collect_logs"
    RESEND = "resend"
    DRAIN = "drain"
    MODEL_INSTALL = "model.install"
    MODEL_ROLLBACK = "model.rollback"
    MODEL_WITHDRAW = "model.withdraw"
    CERT_RENEW = "cert.renew"
    ROOT_UPDATE = "root.update"
    AGENT_UPDATE = "agent.update"
    OS_UPDATE = "os.update"


#: What two people answer for: two different keys must have signed.
TWO_SIGNATURES = frozenset({Op.MODEL_INSTALL, Op.MODEL_ROLLBACK, Op.MODEL_WITHDRAW, Op.ROOT_UPDATE})
#: Answered REJECTED(not_permitted) by this version.
NOT_PERMITTED = frozenset({Op.AGENT_UPDATE, Op.OS_UPDATE})
#: Changes nothing on the box; everything else needs a known time, or the session's nonce.
HARMLESS = frozenset({Op.PING, Op.RESEND, Op.COLLECT_LOGS})


class JobArgs(Message):
    """Arguments of every op; each takes its own and no others (``wire_jobs.check_args``)."""

    package: Name | None = None
    version: Version | None = None
    digest: Digest | None = None
    target: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._/-]{1,200}$")
    role: Literal["silent", "shadow", "live"] | None = None
    soak_h: float | None = Field(default=None, ge=0, le=720)
    soak_studies: int | None = Field(default=None, ge=0, le=100_000)
    wait_h: float | None = Field(default=None, gt=0, le=720)
    after_seq: int | None = Field(default=None, ge=0)
    upload: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{16,64}$")


class Job(Message):
    """``dn/job``, signed.

    Attributes:
        aud: The device it is for.
        ctr: Rises with every job of a device; one that is not higher than the last is a replay.
        nbf: Not before, UTC milliseconds.
        exp: Not after.
        nonce: Of the box's session, where the box cannot tell the time.
        by: Account number of who asked, and of who approved: names stay on the server.
        grant: Of a roll-out (``wire_grant``), in place of release keys' signatures under this very job.
    """

    id: Ulid
    aud: Id
    ctr: int = Field(ge=1)
    nbf: int
    exp: int
    op: Op
    args: JobArgs = JobArgs()
    nonce: str = Field(default="", pattern=r"^[0-9a-f]{0,32}$")
    by: tuple[int, ...] = Field(default=(), max_length=4)
    grant: str | None = Field(default=None, max_length=16 * 1024, pattern=r"^[A-Za-z0-9+/]+={0,2}$")


Reported.model_rebuild()
