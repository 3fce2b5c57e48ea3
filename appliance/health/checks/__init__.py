"""One check per file; each looks at one thing and says which issues stand."""

from __future__ import annotations

from appliance.health.checks.certificates import CertificatesCheck
from appliance.health.checks.chain import ChainCheck
from appliance.health.checks.clock_jump import ClockJumpCheck
from appliance.health.checks.disk import DiskCheck
from appliance.health.checks.drift import DriftCheck
from appliance.health.checks.hardware import HardwareCheck
from appliance.health.checks.screens import ScreensCheck
from appliance.health.checks.shelf import ShelfCheck
from appliance.health.checks.silence import SilenceCheck
from appliance.health.checks.stages import StagesCheck

__all__ = [
    "CertificatesCheck",
    "ChainCheck",
    "ClockJumpCheck",
    "DiskCheck",
    "DriftCheck",
    "HardwareCheck",
    "ScreensCheck",
    "ShelfCheck",
    "SilenceCheck",
    "StagesCheck",
]
