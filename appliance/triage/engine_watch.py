"""What the daemon's end of the worker's socket remembers of engines: news, the build that runs, deaths by an engine."""

from __future__ import annotations

from appliance.triage.engine_messages import Build, Built, Checked, EngineLost, EngineNews, NotBuilt
from appliance.triage.frames import ProtocolError
from appliance.triage.protocol import Load, Loaded, Progress

#: An engine that ended the worker so often, with no result in between, is not opened again. Less than the tries that
#: an analysis has, so that its last one is the reference's.
MAX_DEATHS = 2
_DETAIL = 1000


class EngineWatch:
    """Not safe by itself: ``WorkerLink`` holds its lock around every call."""

    def __init__(self) -> None:
        """Begin with no news."""
        self.build: Build | None = None
        self._news: list[EngineNews | Loaded] = []
        self._deaths: dict[str, int] = {}

    def news(self) -> list[EngineNews | Loaded]:
        """What was told since the last call, oldest first."""
        taken, self._news = self._news, []
        return taken

    def load(self, load: Load) -> Load:
        """How a package is to be loaded: without its engine after too many deaths by it."""
        deaths = self._deaths.get(load.package, 0)
        if deaths < MAX_DEATHS:
            return load
        return load.model_copy(update={"no_engine": f"its engine ended the worker {deaths} times in a row"})

    def loaded(self, message: Loaded) -> None:
        """An engine, or the reference, serves from now on."""
        self._news.append(message)

    def worked(self, package: str) -> None:
        """An analysis by the package gave a result; with too many deaths it was not the engine's."""
        if self._deaths.get(package, 0) < MAX_DEATHS:
            self._deaths.pop(package, None)

    def take(self, message: EngineNews) -> None:
        """The worker told of an engine.

        Raises:
            ProtocolError: It tells the end of a build that nobody asked for.
        """
        if isinstance(message, Built | NotBuilt):
            if self.build is None:
                raise ProtocolError("told the end of a build that nobody asked for")
            self.build = None
        if isinstance(message, Built):
            self._deaths.pop(message.package, None)
        if isinstance(message, Checked) and message.ok:
            self.worked(message.package)
        if isinstance(message, EngineLost):
            self._died(message.package)
        self._news.append(message)

    def ended(self, in_hand: Progress | None, why: str) -> None:
        """The worker is gone, and with it the build that ran."""
        if in_hand is not None and in_hand.step == "engine":
            self._died(in_hand.package)
        build, self.build = self.build, None
        if build is not None:
            lost = NotBuilt(
                package=build.package,
                flavour=build.flavour,
                precision=build.precision,
                kind="crash",
                message=f"the worker ended while it built: {why}"[:_DETAIL],
            )
            self._news.append(lost)

    def _died(self, package: str) -> None:
        self._deaths[package] = self._deaths.get(package, 0) + 1
