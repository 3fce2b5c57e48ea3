"""The link to a fleet server, and what stays the site's to decide."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.config.values import Section, Url


class Fleet(Section):
    """Where this section stands and the box was enrolled ('scanside fleet enrol'), it reports to its fleet server."""

    detail: Literal["hourly", "study"] = Field(
        default="hourly",
        description="What of results leaves the box: counts by the hour, or each analysis without any identity where"
        " the contract says so",
    )
    approval: Literal["vendor", "site", "both"] = Field(
        default="vendor",
        description="Who says yes to a change of models: the service team, the administrator of this box, or both",
    )
    proxy_url: Url | None = Field(default=None, description="HTTP proxy (CONNECT) on the way out, as http://proxy:3128")
    backlog_rows: int = Field(
        default=20_000, ge=100, description="Beyond so many waiting rows, telemetry is skipped; results never are"
    )
