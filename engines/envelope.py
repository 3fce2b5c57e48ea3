"""Package schema 1: which series a package takes, as far as headers tell, and the small parts that all of it shares."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,63}$")]
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
Regex = Annotated[str, AfterValidator(_pattern)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.onnx$")]
DataFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.npz$")]
BodyPart = Annotated[str, Field(pattern=r"^[A-Z]+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Voxels = Annotated[int, Field(ge=1, le=512)]
Millimetres = Annotated[float, Field(gt=0, le=100)]
Orientation = Literal["axial", "coronal", "sagittal"]


class Part(BaseModel):
    """Frozen, and closed to keys that the schema does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(Part):
    """One text in both languages of the box."""

    en: str = Field(min_length=1)
    zh_Hans: str = Field(min_length=1)  # noqa: N815 - the language tag is spelled so


class Code(Part):
    """A coded concept (PS3.3 §8.1): value, scheme designator, meaning."""

    value: str = Field(min_length=1, max_length=16)
    scheme: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)


class Range(Part):
    """A closed interval; an end that is not given is open."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def holds(self, value: float) -> bool:
        """Whether the value lies within."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Envelope(Part):
    """For which series the package was made, as far as headers tell. A key that is absent restricts nothing."""

    #: BodyPartExamined (PS3.16 Annex L). A hint: an empty header may still apply, content decides.
    body_parts: tuple[BodyPart, ...] = ()
    #: Where BodyPartExamined is empty: descriptions and protocol names that speak for a body part, so that of several
    #: series such a one is taken, or against it, so that it is left. Of what names none, content decides.
    protocol_patterns: tuple[Regex, ...] = ()
    refuse_protocol_patterns: tuple[Regex, ...] = ()
    #: Substrings of Manufacturer, without regard to case.
    manufacturers: tuple[str, ...] = ()
    view_positions: tuple[str, ...] = ()
    age_years: Range | None = None
    slices: Range | None = None
    slice_thickness_mm: Range | None = None
    pixel_spacing_mm: Range | None = None
    #: Largest distance of neighbouring slice centres.
    max_gap_mm: float | None = Field(default=None, gt=0)
    max_tilt_deg: float | None = Field(default=None, ge=0, le=90)
    orientation: Orientation | None = None
    #: Angle to that orientation's plane up to which a series still counts as such; gantry tilt included.
    max_oblique_deg: float | None = Field(default=None, ge=0, le=45)
    refuse_kernels: tuple[Regex, ...] = ()
    allow_contrast: bool = True
    allow_lossy: bool = True
    allow_derived: bool = True


class PreferKernel(Part):
    """Series whose ConvolutionKernel matches come first, earlier patterns before later ones."""

    by: Literal["kernel"]
    patterns: tuple[Regex, ...] = Field(min_length=1)


class PreferThickness(Part):
    """The series whose SliceThickness is nearest to the target comes first."""

    by: Literal["thickness"]
    target_mm: float = Field(gt=0)


class PreferOrientation(Part):
    """Series of that orientation come first."""

    by: Literal["orientation"]
    value: Orientation


class PreferPhase(Part):
    """Series without, or with, contrast agent come first."""

    by: Literal["phase"]
    value: Literal["plain", "contrast"]


Preference = Annotated[PreferKernel | PreferThickness | PreferOrientation | PreferPhase, Field(discriminator="by")]


class Input(Part):
    """Which series of a study one stage takes."""

    role: Slug
    modality: tuple[str, ...] = Field(min_length=1)
    sop_classes: tuple[Uid, ...] = Field(min_length=1)
    envelope: Envelope = Envelope()
    #: Rules in order: the first that tells two series apart decides.
    series_preference: tuple[Preference, ...] = ()


class Step(Part):
    """A preprocessor or head by name, with its own parameters (checked by it when the package is loaded)."""

    name: Slug
    params: dict[str, Any] = {}
