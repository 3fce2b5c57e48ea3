"""One check per file; each looks at one thing and says which issues stand."""

from __future__ import annotations

from appliance.health.checks.chain import ChainCheck
from appliance.health.checks.clock_jump import ClockJumpCheck
from appliance.health.checks.disk import DiskCheck
from appliance.health.checks.screens import ScreensCheck
from appliance.health.checks.stages import StagesCheck

__all__ = ["ChainCheck", "ClockJumpCheck", "DiskCheck", "ScreensCheck", "StagesCheck"]
