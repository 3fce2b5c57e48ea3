"""What pages know of the fleet of a box that a test runs."""

from __future__ import annotations

from admin_kit import FakeTools

from appliance.box_fleet import fleet_jobs, fleet_link


class ToolsOfFleet(FakeTools):
    """What pages know of a box's fleet, as from its daemon."""

    def __init__(self, box):
        super().__init__()
        self._box = box

    def fleet_link(self):
        return fleet_link(self._box.config, self._box.store)

    def fleet_jobs(self):
        return fleet_jobs(self._box.store)
