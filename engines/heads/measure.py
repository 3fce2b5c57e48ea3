"""One number with its unit and standard deviation."""

from __future__ import annotations

from pydantic import Field, model_validator

from engines.envelope import Range
from engines.errors import ContentError
from engines.heads.base import Head
from engines.heads.likeness import likeness_of
from engines.preprocess.base import Assembled
from engines.types import Measured, ModelOutput, Tensors


class Measure(Head):
    """The score of the finding is the measured value itself.

    Attributes:
        finding: Finding id.
        name: Name of the measurement.
        unit: UCUM unit.
        output: Name of the graph's output that holds the value, [1] or [1, N].
        index: Which of its N values.
        scale: The value in ``unit`` is the graph's times this, plus ``offset``.
        offset: See ``scale``.
        sd: Standard deviation in ``unit``, the same for every case.
        sd_output: Or the graph's output that holds it, of the value's shape, before ``scale``.
        possible: Values outside cannot be believed.
        guard: Name of a further output [1, 1], 0..1: how much the picture is of the kind that the graph was made for.
        guard_least: Below this the picture gets no value.
    """

    finding: str
    name: str
    unit: str = Field(min_length=1, max_length=16)
    output: str
    index: int = Field(default=0, ge=0)
    scale: float = 1.0
    offset: float = 0.0
    sd: float | None = Field(default=None, ge=0)
    sd_output: str | None = None
    possible: Range = Range()
    guard: str | None = None
    guard_least: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_sd(self) -> Measure:
        if self.sd is not None and self.sd_output is not None:
            raise ValueError("give sd or sd_output, not both")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``Head.reads``."""
        return tuple(name for name in (self.output, self.sd_output, self.guard) if name is not None)

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``. The picture itself is the key picture; of a stack, the one in its middle."""
        numbers = dict(assembled.numbers)
        if self.guard is not None:
            numbers["guard"] = likeness_of(outputs.get(self.guard), self.guard, self.guard_least)
        value = self._read(outputs, self.output) * self.scale + self.offset
        if not self.possible.holds(value):
            raise ContentError(
                "unreliable_output",
                "the measured {name} of {value} {unit} is not possible",
                name=self.name,
                value=float(f"{value:.4g}"),
                unit=self.unit,
            )
        sd = self.sd
        if self.sd_output is not None:
            sd = self._read(outputs, self.sd_output) * abs(self.scale)
            if sd < 0:
                raise ContentError("unreliable_output", "output '{output}' gives an SD below 0", output=self.sd_output)
        slices = assembled.stack.slices
        return ModelOutput(
            scores={self.finding: value},
            measurements={self.finding: (Measured(name=self.name, value=value, unit=self.unit, sd=sd),)},
            key_slices={self.finding: (slices[len(slices) // 2].id,)},
            numbers=numbers,
        )

    def _read(self, outputs: Tensors, name: str) -> float:
        output = outputs.get(name)
        if output is None or output.size <= self.index or max(output.shape, default=1) != output.size:
            raise ContentError(
                "unreliable_output",
                "output '{output}' has shape {shape}, no value at {index}",
                output=name,
                shape=str(None if output is None else output.shape),
                index=self.index,
            )
        return float(output.ravel()[self.index])
