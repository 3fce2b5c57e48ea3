"""Package schema 1: what ``model.yaml`` may say. Unknown keys are refused; later versions add keys, none changes.

The envelope says for what the package was made. What a header can tell (modality, class, thickness, kernel) is
checked when a series is routed; what only pixels can tell (is this a head?) is checked by the preprocessor and head.
"""

from __future__ import annotations

import re
from collections import Counter
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
    #: Where BodyPartExamined is empty: descriptions and protocol names that speak for or against a body part.
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


class Window(Part):
    """Run in pieces along the first axis, so that memory does not grow with the series.

    Each piece sees ``overlap`` more on both sides, which are cut off its outputs again; where the graph looks no
    further than that, the result is the same as in one run.
    """

    length: int = Field(ge=1)
    overlap: int = Field(default=0, ge=0)


class Stage(Part):
    """One graph: what it takes, how pictures become its tensors, how its outputs become findings."""

    onnx: FileName
    input: Input
    preprocess: Step
    window: Window | None = None
    head: Step


class OperatingPoint(Part):
    """A threshold of the package's closed list, with what was measured at it; ``basis`` says on what."""

    name: Slug
    threshold: float
    sensitivity: Share | None = None
    specificity: Share | None = None
    basis: Text | None = None
    default: bool = False


class Measurement(Part):
    """One number that the head gives for a finding."""

    name: Slug
    title: Text
    code: Code
    unit: str = Field(min_length=1, max_length=16, description="UCUM")


class Finding(Part):
    """What the package looks for. Flagged where its score reaches the operating point's threshold."""

    id: Slug
    code: Code
    #: Anatomical site, where it is the same for every case.
    site: Code | None = None
    #: What an alert says, whole: a suspicion begins with "Suspected" / "疑似". Nothing is put before it anywhere.
    title: Text
    #: What the technologist is asked to do.
    advice: Text
    #: 1 emergent, 2 urgent, 3 for the record.
    category: int = Field(ge=1, le=3)
    #: UCUM unit of the score where it is a quantity; empty for a score without one.
    score_unit: str = ""
    measurements: tuple[Measurement, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_default(self) -> Finding:
        _unique("operating_points", [p.name for p in self.operating_points])
        _unique("measurements", [m.name for m in self.measurements])
        defaults = sum(p.default for p in self.operating_points)
        if defaults > 1 or (defaults == 0 and len(self.operating_points) > 1):
            raise ValueError(f"{defaults} operating points are marked default; mark exactly one")
        return self

    @property
    def default_point(self) -> OperatingPoint:
        """The operating point that is used until a site picks another."""
        return next((p for p in self.operating_points if p.default), self.operating_points[0])

    def point(self, name: str) -> OperatingPoint:
        """The operating point of that name.

        Raises:
            KeyError: The package has no such point.
        """
        return {p.name: p for p in self.operating_points}[name]


class Requirement(Part):
    """Another package whose result decides what this one's result is worth."""

    package: Slug
    on_fail: Literal["not_analysed", "caveat"]


class Limits(Part):
    """What one analysis may take on the slowest supported machine."""

    time_s: float = Field(gt=0, le=600)
    memory_mb: float = Field(gt=0, le=65536)


class Profile(Part):
    """Shapes of one tensor that an engine is built for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


class Calibration(Part):
    """Inputs from which INT8 scales are taken: phantoms or synthesised, never patients.

    An ``.npz`` file holds one array per tensor name; the first axis counts the samples, the rest is one run's tensor.
    """

    file: DataFile


class Golden(Part):
    """How far an engine may be from the reference on the golden cases (``engines.golden``), beyond the head's rule."""

    #: Scores closer than this to an operating point may fall on either side of it.
    band: float = Field(default=0.01, ge=0)
    #: Of heads that measure: largest difference by measurement name, in the measurement's unit.
    tolerance: dict[Slug, Annotated[float, Field(gt=0)]] = {}


class Clearance(Part):
    """What one market's authority said."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    class_: str = Field(alias="class", min_length=1)
    number: str = Field(min_length=1)


class Manifest(Part):
    """Schema 1 of ``model.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal[1] = Field(alias="schema")
    name: Slug
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([+-][0-9A-Za-z.-]+)?$")
    title: Text
    status: Literal["demonstrator", "research", "cleared"]
    licence: str = Field(min_length=1)
    intended_use: Literal["triage", "detection", "measurement", "quality"]
    notify: Literal["active", "passive"]
    #: Always shown with a result.
    looked_for: Text
    not_looked_for: Text
    stages: tuple[Stage, ...] = Field(min_length=1)
    findings: tuple[Finding, ...] = Field(min_length=1)
    requires: tuple[Requirement, ...] = ()
    precisions: tuple[Literal["fp32", "fp16", "int8"], ...] = Field(default=("fp32",), min_length=1)
    #: By tensor name.
    profiles: dict[str, Profile] = {}
    #: Absent: the package has no INT8 precision.
    calibration: Calibration | None = None
    golden: Golden = Golden()
    #: File of measured figures that operating points and card are taken from.
    metrics: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.json$")] | None = None
    limits: Limits
    #: By market (US, EU, CN, ...).
    regulatory: dict[str, Clearance] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        _unique("findings", [f.id for f in self.findings])
        _unique("input roles", [s.input.role for s in self.stages])
        if self.status == "cleared" and not self.regulatory:
            raise ValueError("status cleared needs at least one market under regulatory")
        if "int8" in self.precisions and self.calibration is None:
            raise ValueError("precision int8 needs calibration: its scales are taken from that file")
        return self

    @property
    def category(self) -> int:
        """The most urgent category among the findings; decides the order of the queue."""
        return min(f.category for f in self.findings)

    def finding(self, finding_id: str) -> Finding:
        """The finding of that id.

        Raises:
            KeyError: The package has no such finding.
        """
        return {f.id: f for f in self.findings}[finding_id]


def _unique(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what}: {', '.join(twice)} stands twice")
