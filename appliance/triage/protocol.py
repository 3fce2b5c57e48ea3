"""What daemon and worker say to each other over their Unix socket (DESIGN §5, "Worker").

* A message is a length (4 bytes, big endian) and that many bytes of UTF-8 JSON, at most 1 MiB.
* Every message has a ``type`` and exactly the fields of its class; anything else ends the connection.
* Keys (``series_key``, ``version_key``) are the daemon's own local ids: neither names nor UIDs cross as keys.
* Paths are absolute and lie below the spool root that both sides were started with; the worker checks.

Pydantic stands here because this is a border: the worker runs foreign pixels through native code, and what comes from
it is believed no more than what comes from the network.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from appliance.records import Detail, Measurement, Reason, Region, Role, in_english
from appliance.triage.engine_messages import Build, CancelBuild, EngineNews, EngineWish, KServeWish, SpotCheck
from appliance.triage.frames import ProtocolError, frame
from appliance.triage.message_base import MAX_TEXT, Key, Message, PathText, Text

#: Raised when a message changes its meaning; a worker of another version is refused at ``hello``.
PROTOCOL = 2


def _short(detail: Detail) -> Detail:
    if len(str(detail)) > MAX_TEXT:
        msg = f"a sentence has at most {MAX_TEXT} characters"
        raise ValueError(msg)
    return detail


Told = Annotated[Detail, AfterValidator(_short)]
Picture = Annotated[str, StringConstraints(pattern=r"^pictures/[0-9a-f]{2}/[0-9a-f]{32}\.png$")]
Masks = Annotated[str, StringConstraints(pattern=r"^pictures/[0-9a-f]{2}/[0-9a-f]{32}\.npz$")]
SeriesKind = Literal["ct", "xray"]
#: What the worker is about to do; ``infer`` is assemble, run and head in one, ``engine`` opens or checks an engine.
#: ``idle``: nothing is in hand.
Step = Literal["decode", "infer", "picture", "compare", "engine", "idle"]


# -- daemon to worker ------------------------------------------------------------------------------------------------


class Load(Message):
    """Open a package and try it on its golden case. Answered by ``Loaded`` or ``Refused``.

    Which folders are trusted is the daemon's decision; ``digest`` makes sure that both looked at the same bytes, and
    ``keys`` are those (PEM) of which one must have signed a package that did not come with this software.
    Without ``engine`` and ``kserve``, of which at most one is given, the reference itself serves: ONNX Runtime with the
    package's own graph. ``no_engine`` says why where the configuration wants another.
    """

    type: Literal["load"] = "load"
    package: Key
    folder: PathText
    digest: Key
    role: Role
    keys: tuple[Text, ...] = ()
    engine: EngineWish | None = None
    kserve: KServeWish | None = None
    no_engine: Text = ""


class Unload(Message):
    """Close a package. No answer."""

    type: Literal["unload"] = "unload"
    package: Key


class Open(Message):
    """A series begins that these packages may want. A hint: its slices are prepared as they come. No answer."""

    type: Literal["open"] = "open"
    series_key: Key
    kind: SeriesKind
    packages: tuple[Key, ...]


class Add(Message):
    """One more instance of an open series. A hint, no answer; nothing is lost by losing it."""

    type: Literal["add"] = "add"
    series_key: Key
    version_key: Key
    path: PathText


class InstanceRef(Message):
    """One instance of a series revision, in the version that is to be analysed."""

    key: Key
    path: PathText


class SeriesInput(Message):
    """Everything that a series revision consists of; what was added but is not named here does not count."""

    series_key: Key
    kind: SeriesKind
    instances: tuple[InstanceRef, ...] = Field(min_length=1)


class Finish(Message):
    """Analyse. Goes before all hints. Answered by ``Progress`` messages and one ``Result`` or ``Failed``."""

    type: Literal["finish"] = "finish"
    analysis_id: int
    package: Key
    inputs: dict[Key, SeriesInput] = Field(min_length=1)
    #: Wall time for the whole analysis, from when the worker begins it.
    limit_s: float = Field(gt=0, le=3600)
    #: The study's local id, for the worker's log.
    study: str = ""
    #: Finding: operating point, where the site picked another than the package's: what it flags is outlined.
    operating_points: dict[str, str] = Field(default={})


class Drop(Message):
    """A series is finished with; its prepared slices may go. No answer."""

    type: Literal["drop"] = "drop"
    series_key: Key


class Compare(Message):
    """Do two files hold equal decoded pixels? Answered by ``Compared``."""

    type: Literal["compare"] = "compare"
    request_id: int
    path_a: PathText
    path_b: PathText
    limit_s: float = Field(60.0, gt=0, le=3600)


# -- worker to daemon ------------------------------------------------------------------------------------------------


class Hello(Message):
    """The first message of a worker. ``packages``: name to digest of what it has loaded already."""

    type: Literal["hello"] = "hello"
    protocol: int
    pid: int
    packages: dict[Key, Key] = Field(default={})


class Loaded(Message):
    """The package serves: it gave its golden case's answer. Said again when another engine has taken over.

    ``fallback`` says why it is not the wished engine, or server, that serves; ``lacks_engine``: because there is none
    for this device and package, so that one should be built.
    """

    type: Literal["loaded"] = "loaded"
    package: Key
    digest: Key
    engine_digest: str
    backend: str
    precision: str
    ms: float
    fallback: Text = ""
    lacks_engine: bool = False


class Refused(Message):
    """The package does not serve; the message says why and how to mend it."""

    type: Literal["refused"] = "refused"
    package: Key
    message: Text


class Progress(Message):
    """The worker begins a step, told before it enters native code, so that a death has an address.

    ``analysis_id`` is None for work ahead of time (``add``) and comparisons; ``ms`` counts from the analysis's begin.
    ``package`` is told with step ``engine``.
    """

    type: Literal["progress"] = "progress"
    step: Step
    analysis_id: int | None = None
    series_key: str = ""
    version_key: str = ""
    package: str = ""
    ms: float = 0.0


class Scored(Message):
    """What a package says of one finding, before the site's operating point."""

    id: Key
    score: float
    measurements: tuple[Measurement, ...] = ()
    #: SOP Instance UIDs, most telling first.
    key_instances: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


class Result(Message):
    """An analysis gave scores. The daemon applies operating points (``triage.verdict``).

    ``hops_ms``: ``ahead`` (decoded and prepared before it was asked for), then within it ``decode``, ``prepare``,
    ``assemble``, ``inference``, ``head`` and ``picture``; a hop that did not take place is absent.
    """

    type: Literal["result"] = "result"
    analysis_id: int
    findings: tuple[Scored, ...]
    numbers: dict[str, float] = Field(default={})
    caveats: tuple[Told, ...] = ()
    warnings: tuple[Told, ...] = ()
    package_digest: str
    engine_digest: str
    backend: str
    precision: str
    #: Relative paths in the spool.
    pictures: tuple[Picture, ...] = ()
    #: The same, of the findings' masks (``engines.overlay.pack``); never of a ``triage`` package.
    masks: Masks | None = None
    hops_ms: dict[str, float] = Field(default={})


class Failed(Message):
    """An analysis ended without scores. ``reason`` is the outcome's reason; ``details`` are shown beside it."""

    type: Literal["failed"] = "failed"
    analysis_id: int
    reason: Reason
    details: tuple[Told, ...]
    package_digest: str = ""
    numbers: dict[str, float] = Field(default={})
    hops_ms: dict[str, float] = Field(default={})

    @property
    def detail(self) -> str:
        """The details in English."""
        return in_english(self.details)


class Compared(Message):
    """Whether the pixels are equal. What cannot be decoded is not equal; ``detail`` says so."""

    type: Literal["compared"] = "compared"
    request_id: int
    same: bool
    detail: Text = ""


# Union, because Annotated needs it on Python 3.10.
ToWorker = Union[Load, Unload, Build, CancelBuild, SpotCheck, Open, Add, Finish, Drop, Compare]  # noqa: UP007
FromWorker = Union[Hello, Loaded, Refused, Progress, Result, Failed, Compared, EngineNews]  # noqa: UP007 - the same

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="type")])
_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(Annotated[FromWorker, Field(discriminator="type")])


def encode(message: Message) -> bytes:
    """A message as it goes over the socket, length included.

    Raises:
        ProtocolError: It is longer than 1 MiB.
    """
    return frame(message.model_dump_json().encode())


def to_worker(body: bytes) -> ToWorker:
    """Read what the daemon says.

    Raises:
        ProtocolError: It is no message to a worker.
    """
    return _parsed(_TO_WORKER, body)  # type: ignore[no-any-return]


def from_worker(body: bytes) -> FromWorker:
    """Read what the worker says.

    Raises:
        ProtocolError: It is no message from a worker.
    """
    return _parsed(_FROM_WORKER, body)  # type: ignore[no-any-return]


def _parsed(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors(include_input=False)[:3])
        # What was in it is not repeated: it may be anything.
        raise ProtocolError(f"{len(body)} bytes are no message: {faults}") from None
