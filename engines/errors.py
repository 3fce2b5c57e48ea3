"""What can go wrong between a package and its output. The appliance maps these at its border.

``EngineError`` is a fault of a package, an engine or a child process. ``ContentError`` is no fault: it says that this
input must not be scored, with the coded reason that the screens show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engines.message import Message

#: The reasons an input may be refused for once its pixels are seen; spelled as the appliance's own reasons.
ContentReason = Literal["out_of_envelope", "quality", "incomplete", "unreliable_output"]
#: How a limited child ended without an answer.
ChildFault = Literal["timeout", "memory", "crash", "garbage", "error", "cancelled"]
#: Why there is no engine. ``unsupported``: this machine lacks what is needed; ``integrity``: a stored engine is not
#: what was stored, or the store is not safe to use; ``unreadable``: the system could not read it just now, which speaks
#: for nothing.
BuildFault = Literal[
    "parse", "build", "timeout", "memory", "crash", "cancelled", "unsupported", "integrity", "unreadable"
]


class EngineError(Exception):
    """The root of everything that a package, an engine or a child process does wrong."""


class PackageError(EngineError):
    """A package cannot be used: unknown key, altered or missing file, refused graph. The message names the place."""


class SignatureError(PackageError):
    """Bytes are not signed by a key that is trusted, are no envelope, or a key file holds no usable key."""


class BuildError(EngineError):
    """An engine could not be built, did not pass acceptance, or a stored one must not be loaded."""

    def __init__(self, message: str, kind: BuildFault = "build", nodes: Sequence[str] = ()) -> None:
        """Tell why there is no engine.

        Args:
            message: What happened, where, and how to mend it.
            kind: The coded reason.
            nodes: Names of the ONNX nodes at fault, where the builder tells them.
        """
        super().__init__(message)
        self.kind: BuildFault = kind
        self.nodes = tuple(nodes)


class SessionError(EngineError):
    """A session refused its inputs or failed while it ran; foreign exceptions are wrapped in it.

    Attributes:
        sticky: The device of this process is lost for good (a CUDA error that every later call repeats): only a new
            process can use it again, so whoever catches this must end.
    """

    sticky: bool = False


class ChildError(EngineError):
    """A limited child process gave no answer; ``fault`` says how it ended."""

    def __init__(self, fault: ChildFault, message: str) -> None:
        """Tell how the child ended.

        Args:
            fault: ``timeout`` (wall or CPU time), ``memory``, ``crash`` (signal or exit status), ``garbage`` (its
                answer was no answer), ``error`` (its function raised), ``cancelled`` (the caller ended it).
            message: What happened, with the child's last stderr lines.
        """
        super().__init__(message)
        self.fault: ChildFault = fault


class ContentError(Exception):
    """This input must not be scored. Becomes NOT_ANALYSED with ``reason``; never an engine fault."""

    def __init__(self, reason: ContentReason, text: str, /, **values: str | float) -> None:
        """Refuse an input for what its pixels, or the output made of them, show.

        Args:
            reason: The coded reason.
            text: What was seen, in English with named ``{placeholders}``; no patient data.
            values: What stands in the placeholders.
        """
        self.message = Message(text, values)
        super().__init__(str(self.message))
        self.reason: ContentReason = reason
