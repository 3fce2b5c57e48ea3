"""One probability per finding, for one picture."""

from __future__ import annotations

from pydantic import Field, model_validator

from engines.errors import ContentError
from engines.heads.base import Head
from engines.heads.likeness import likeness_of
from engines.heads.maps import Activation, activated
from engines.preprocess.base import Assembled
from engines.types import ModelOutput, Tensors


class Classify(Head):
    """Reads an output of shape [1, N]; the N columns are the findings in the given order.

    Attributes:
        output: Name of the graph's output.
        findings: Finding ids, one per column; null for a column that is none ("no finding").
        activation: What makes its values probabilities; ``none``: they lie in 0..1.
        guard: Name of a further output [1, 1], 0..1: how much the picture is of the kind that the graph was made for.
        guard_least: Below this the picture gets no score.
    """

    output: str
    findings: tuple[str | None, ...] = Field(min_length=1)
    activation: Activation = "none"
    guard: str | None = None
    guard_least: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _some(self) -> Classify:
        if not any(self.findings):
            raise ValueError("no column is a finding")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``Head.reads``."""
        return (self.output,) if self.guard is None else (self.output, self.guard)

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``. The picture itself is the key picture of every finding."""
        values = outputs.get(self.output)
        if values is None or values.shape != (1, len(self.findings)):
            raise ContentError(
                "unreliable_output",
                "output '{output}' has shape {shape}, expected (1, {count})",
                output=self.output,
                shape=str(None if values is None else values.shape),
                count=len(self.findings),
            )
        numbers = dict(assembled.numbers)
        if self.guard is not None:
            numbers["guard"] = likeness_of(outputs.get(self.guard), self.guard, self.guard_least)
        scores = activated(values, self.activation, self.output, axis=1)[0]
        picture = assembled.stack.slices[0].id
        named = {name: float(score) for name, score in zip(self.findings, scores, strict=True) if name is not None}
        return ModelOutput(
            scores=named,
            key_slices=dict.fromkeys(named, (picture,)),
            numbers=numbers,
        )
