"""Facts of what administrators do: settings, set-up, destinations."""

from __future__ import annotations

from appliance.store.facts.kinds import Body, Kind


class SettingsChanged(Body):
    """The site's settings are others from the next start. Names of sections only: values may be secret."""

    kind = Kind.SETTINGS_CHANGED
    sections: tuple[str, ...]
    reason: str
    #: SHA-256 of the file before and after; empty where there was or is none.
    before: str
    digest: str


class RestartAsked(Body):
    """Somebody restarts the box."""

    kind = Kind.RESTART_ASKED


class SetupStepDone(Body):
    """A step of the set-up ended."""

    kind = Kind.SETUP_STEP_DONE
    step: str


class SetupCodeMade(Body):
    """A one-time code for the set-up was printed."""

    kind = Kind.SETUP_CODE_MADE


class DestinationPaused(Body):
    """Somebody keeps back what a destination is owed, or lets it go again."""

    kind = Kind.DESTINATION_PAUSED
    destination: str
    paused: bool
    why: str = ""


class DestinationTested(Body):
    """Somebody asked a destination whether it answers."""

    kind = Kind.DESTINATION_TESTED
    destination: str
    ok: bool
    ms: float
