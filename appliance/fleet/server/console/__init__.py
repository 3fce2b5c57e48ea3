"""The console: pages of the fleet server for who keeps many boxes. Nothing of a patient can be on them."""

from __future__ import annotations

from appliance.fleet.server.console.app import console_app

__all__ = ["console_app"]
