"""What daemon and worker say to each other about engines: build one, prove it, serve on it, look after it."""

from __future__ import annotations

from typing import Literal, Union

from pydantic import Field

from appliance.triage.message_base import Key, Message, PathText, PemText, Text

#: What can be built on this box; ``onnxruntime`` is the lowered graph on the CPU.
Flavour = Literal["onnxruntime", "tensorrt", "tensorrt_rtx"]
Precision = Literal["fp32", "fp16", "int8"]


class EngineWish(Message):
    """On which engine a package should run, and in which folder the engines of this box lie."""

    store: PathText
    flavour: Flavour
    precision: Precision


class KServeWish(Message):
    """On which KServe server a package should run: ``engines.backends.kserve.KServeServer``, field by field.

    Certificates come as text: the worker cannot read the configuration's files.
    """

    address: Key
    timeout_s: float = Field(gt=0, le=600)
    ca: PemText = ""
    certificate: PemText = ""
    key: PemText = Field(default="", repr=False)
    server_name: Text = ""


# -- daemon to worker ------------------------------------------------------------------------------------------------


class Build(Message):
    """Build an engine for a loaded package, prove it, and let it serve if it is the one that is wished.

    Studies go on meanwhile. Answered by ``Building`` messages and one ``Built`` or ``NotBuilt``; a ``Loaded`` follows
    when the engine serves. One at a time.
    """

    type: Literal["build"] = "build"
    package: Key
    store: PathText
    flavour: Flavour
    precision: Precision
    wall_s: float = Field(gt=0, le=24 * 3600)
    memory_mb: int = Field(gt=0)
    #: Accepted engines kept of each package.
    keep: int = Field(default=2, ge=1)


class CancelBuild(Message):
    """End the build that runs; it answers ``NotBuilt``. Nothing happens where none runs."""

    type: Literal["cancel_build"] = "cancel_build"


class SpotCheck(Message):
    """Run a golden case on what serves and compare it with the reference. Answered by ``Checked``."""

    type: Literal["spot_check"] = "spot_check"
    package: Key


# -- worker to daemon ------------------------------------------------------------------------------------------------


class Building(Message):
    """How far a build is; ``share`` of its present step, 0 to 1, where the builder tells it."""

    type: Literal["building"] = "building"
    package: Key
    step: Literal["lower", "build", "accept"]
    share: float | None = None


class Built(Message):
    """An engine was built and accepted. ``differences``: the largest to the reference, by what was compared."""

    type: Literal["built"] = "built"
    package: Key
    engine_digest: str
    flavour: Flavour
    precision: Precision
    ms: float
    differences: dict[str, float] = Field(default={})


class NotBuilt(Message):
    """No engine came of it; what served goes on serving. ``kind``: why, as ``engines.errors.BuildError`` has it."""

    type: Literal["not_built"] = "not_built"
    package: Key
    flavour: Flavour
    precision: Precision
    kind: Key
    message: Text


class Checked(Message):
    """How a spot check went. ``fell_back``: the engine failed three in a row and serves no longer."""

    type: Literal["checked"] = "checked"
    package: Key
    engine_digest: str
    ok: bool
    message: Text = ""
    fell_back: bool = False


class EngineLost(Message):
    """The worker's last words before it ends because an engine broke its device for this process."""

    type: Literal["engine_lost"] = "engine_lost"
    package: Key
    message: Text


EngineNews = Union[Building, Built, NotBuilt, Checked, EngineLost]  # noqa: UP007 - Annotated needs it on Python 3.10
