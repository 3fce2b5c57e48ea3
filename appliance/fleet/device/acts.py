"""What jobs ask of the box beyond its store. The daemon gives it: the parts that can do it do not know the fleet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from appliance.errors import ApplianceError, TransientError
from appliance.records import AnalysisResult
from appliance.store.ending import OwedResult


class ActRefused(ApplianceError):  # noqa: N818 - an answer
    """It cannot be done here; the server hears the code, and the text stays in the box's log."""

    def __init__(self, code: str, text: str = "") -> None:
        """Refuse with a code as DISK_FULL."""
        super().__init__(text or code)
        self.code = code


class Unfinished(TransientError):  # noqa: N818 - an answer
    """It goes well and is not done: other jobs have their turn, or the box ends. The next call goes on."""


class Acts(Protocol):
    """Every act may take minutes, except ``restart`` and ``owed``."""

    def restart(self) -> None:
        """Ask the daemon to end so that it is started again; returns at once.

        Raises:
            ActRefused: Nobody would start it.
        """
        ...

    def self_test(self) -> dict[str, float]:
        """Send a test study through the box and wait for its result. Returns figures for the server.

        Raises:
            ActRefused: It failed, or cannot run here.
        """
        ...

    def bundle(self) -> bytes:
        """The support bundle (``screen.bundle``), a zip file of chosen codes, counts and times."""
        ...

    def install(self, source: Path, name: str, version: str, digest: str) -> None:
        """Gate, try and keep the package at ``source`` in the idle slot, if it is this very one.

        Raises:
            ActRefused: It is another one, or refused.
            ConflictError: Its slots are in use, or it is here.
            StoreError: The disk refuses.
        """
        ...

    def golden(self, name: str, version: str) -> dict[str, float]:
        """Run the golden cases of an installed package in a process of their own. Returns figures for the server.

        Raises:
            ActRefused: One fails, or is too slow or too large.
        """
        ...

    def owed(self, package: str, result: AnalysisResult) -> tuple[OwedResult, ...]:
        """What destinations are owed for a result, by the configuration."""
        ...


class Fetcher(Protocol):
    """Where packages come from."""

    def fetch(self, target: str, digest: str, told: Callable[[float], None]) -> Path:
        """Bring a target here and prove it; at once where it is here already.

        Args:
            target: Its name.
            digest: Of the package that the job means.
            told: Called with the percent that are here.

        Returns:
            A file of our own that has been verified.

        Raises:
            ActRefused: It is not what its metadata says, too old, too large for the disk.
            TransientError: The server does not answer now; what is here already stays.
            Unfinished: It takes longer than one job may; the next call goes on.
        """
        ...

    def small(self, target: str) -> bytes:
        """A small target, verified, whole.

        Raises:
            ActRefused: As of ``fetch``.
            TransientError: As of ``fetch``.
        """
        ...

    def done(self, target: str) -> None:
        """It has served: what was brought for it may go."""
        ...

    def tidy(self) -> None:
        """Let go what nobody waits for any more. Cheap between times; never raises."""
        ...
