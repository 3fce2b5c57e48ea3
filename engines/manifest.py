"""Package schema 1: what ``model.yaml`` may say. Unknown keys are refused; later versions add keys, none changes.

The envelope says for what the package was made. What a header can tell (modality, class, thickness, kernel) is
checked when a series is routed; what only pixels can tell (is this a head?) is checked by the preprocessor and head.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from engines.envelope import Code, DataFile, Envelope, Input, Part, Preference, Range, Share, Slug, Step, Text
from engines.flow import Feed, Flow, Run, Stage, Take, Tile, Window, feeds_of, flow_faults

__all__ = [
    "Calibration",
    "Clearance",
    "Code",
    "Envelope",
    "Feed",
    "Finding",
    "Flow",
    "Golden",
    "Input",
    "Limits",
    "Manifest",
    "Measurement",
    "OperatingPoint",
    "Part",
    "Preference",
    "Profile",
    "Range",
    "Requirement",
    "Run",
    "Stage",
    "Step",
    "Take",
    "Text",
    "Tile",
    "Window",
]


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
    #: Findings of it that only limit this one's result, though ``on_fail`` be not_analysed.
    caveats: tuple[Slug, ...] = ()


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
    #: Said by the maker, who signs it.
    origin: Literal["phantom", "synthesised"]


class Golden(Part):
    """How far an engine may be from the reference on the golden cases (``engines.golden``), beyond the head's rule."""

    #: Scores closer than this to an operating point may fall on either side of it.
    band: float = Field(default=0.01, ge=0)
    #: Of heads that measure: largest difference by measurement name, in the measurement's unit.
    tolerance: dict[Slug, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)


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
    #: It is there to be copied: why it must not run, and what makes it one that may. Absent: it may.
    template: Text | None = None
    intended_use: Literal["triage", "detection", "measurement", "quality"]
    notify: Literal["active", "passive"]
    #: Always shown with a result.
    looked_for: Text
    not_looked_for: Text
    stages: tuple[Stage, ...] = Field(min_length=1)
    pipeline: Flow | None = None
    findings: tuple[Finding, ...] = Field(min_length=1)
    requires: tuple[Requirement, ...] = ()
    precisions: tuple[Literal["fp32", "fp16", "int8"], ...] = Field(default=("fp32",), min_length=1)
    #: By tensor name.
    profiles: dict[str, Profile] = Field(default_factory=dict)
    #: Absent: the package has no INT8 precision.
    calibration: Calibration | None = None
    golden: Golden = Golden()
    #: File of measured figures that operating points and card are taken from.
    metrics: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.json$")] | None = None
    limits: Limits
    #: By market (US, EU, CN, ...).
    regulatory: dict[str, Clearance] = Field(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _flows(cls, data: Any, handler: ModelWrapValidatorHandler[Manifest]) -> Manifest:
        """Look at how the stages feed one another, once every part is right by itself; each fault has its place."""
        manifest = handler(data)
        faults: list[Any] = [
            {"type": "value_error", "loc": where, "input": None, "ctx": {"error": ValueError(text)}}
            for where, text in flow_faults(manifest.stages, manifest.pipeline)
        ]
        if faults:
            raise ValidationError.from_exception_data("Manifest", faults)
        return manifest

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        _unique("findings", [f.id for f in self.findings])
        _unique("input roles", [feed.input.role for feed in self.inputs])
        if self.status == "cleared" and not self.regulatory:
            raise ValueError("status cleared needs at least one market under regulatory")
        if "int8" in self.precisions and self.calibration is None:
            raise ValueError("precision int8 needs calibration: its scales are taken from that file")
        return self

    @property
    def inputs(self) -> tuple[Feed, ...]:
        """Every series that the package takes: of the stages in their order, then the further ones."""
        return feeds_of(self.stages, self.pipeline)

    @property
    def steps(self) -> tuple[Run, ...]:
        """What runs after what; the last step's outputs go to the head."""
        return (self.pipeline or Flow()).steps

    @property
    def head(self) -> Step:
        """What turns the last step's outputs into findings."""
        head = self.stages[self.steps[-1].stages[0]].head
        assert head is not None  # noqa: S101 - flow_faults refuses a package without
        return head

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
