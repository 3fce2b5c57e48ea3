"""The pages of the box: alert screen, worklist, study, review, set-up and administration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.screen.app import screen_app
    from appliance.screen.packages import FindingText, PackageText, package_text

__all__ = ["FindingText", "PackageText", "package_text", "screen_app"]


def __getattr__(name: str) -> Any:
    """Load what is asked for, and only then: the child that prepares pixels needs no web server."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from appliance.screen import app, packages

    return getattr(app if name == "screen_app" else packages, name)
