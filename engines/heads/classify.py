"""One probability per finding, for one picture."""

from __future__ import annotations

from pydantic import Field

from engines.errors import ContentError
from engines.heads.base import Head, check_range
from engines.preprocess.base import Assembled
from engines.types import ModelOutput, Tensors


class Classify(Head):
    """Reads an output of shape [1, N] in 0..1; the N columns are the findings in the given order.

    Attributes:
        output: Name of the graph's output.
        findings: Finding ids, one per column.
    """

    output: str
    findings: tuple[str, ...] = Field(min_length=1)

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``. The picture itself is the key picture of every finding."""
        scores = outputs.get(self.output)
        if scores is None or scores.shape != (1, len(self.findings)):
            raise ContentError(
                "unreliable_output",
                "output '{output}' has shape {shape}, expected (1, {count})",
                output=self.output,
                shape=str(None if scores is None else scores.shape),
                count=len(self.findings),
            )
        check_range(self.output, scores, 0.0, 1.0)
        picture = assembled.stack.slices[0].id
        return ModelOutput(
            scores={name: float(score) for name, score in zip(self.findings, scores[0], strict=True)},
            key_slices=dict.fromkeys(self.findings, (picture,)),
            numbers=dict(assembled.numbers),
        )
