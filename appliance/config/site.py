"""Where the box stands, what a technologist there is told, and how long what it holds is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from appliance.config.values import Language, PhoneText, Section

#: Whether a technologist is told which finding is suspected, or only that a radiologist must look.
TechnologistDetail = Literal["priority_only", "finding"]
#: Where a finding at the scanner is not for the technologist to know, unless the site says otherwise (docs/adr/0034).
PROFILE_DETAIL: dict[str, TechnologistDetail] = {
    "none": "finding",
    "cn": "finding",
    "us": "priority_only",
    "eu": "priority_only",
}


class Site(Section):
    """Where the box stands and what it may be used for."""

    name: str = Field(default="Scanside", description="Shown in the top bar of every page")
    logo_path: Path | None = Field(default=None, description="PNG or SVG beside the name; ours when absent")
    mode: Literal["evaluation", "clinical"] = Field(
        default="evaluation", description="evaluation: a fixed band, results only to destinations of purpose test"
    )
    language: Language = Field(default="en", description="Language that pages open in")
    profile: Literal["none", "cn", "us", "eu"] = Field(
        default="none", description="Country whose custom decides what a technologist is told"
    )
    technologist_detail: TechnologistDetail | None = Field(
        default=None, description="Where this site does otherwise than its profile; a package may do otherwise again"
    )
    radiologist_phone: PhoneText = Field(default="", description="Shown with an urgent alert")
    service_phone: PhoneText = Field(default="", description="Shown where the box does not work")


class Disk(Section):
    """What stays free. At the reserve the box answers 0xA700 and says so loudly; it never deletes what is owed."""

    reserve_bytes: int = Field(default=2 * 1024**3, ge=0)
    reserve_fraction: float = Field(default=0.05, ge=0, lt=1)


class Retention(Section):
    """How long what is no longer owed is kept."""

    images_h: float = Field(
        default=72.0, gt=0, description="Received files, after the last image and the last thing owed of their study"
    )
    results_days: int = Field(default=366, ge=366, description="Result objects, key pictures and masks; rows stay")
    journal_days: int = Field(default=366, ge=366, description="Whole days, behind every reader, leaving a checkpoint")
