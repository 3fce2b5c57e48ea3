"""The alert screen: what the technologist sees, and the two acts of a screen, presented and acknowledged."""

from appliance.screen.app import screen_app
from appliance.screen.packages import FindingText, PackageText, package_text

__all__ = ["FindingText", "PackageText", "package_text", "screen_app"]
