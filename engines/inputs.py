"""The inputs of a package, ready to work, and whether its graphs fit to what the manifest says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.errors import SessionError
from engines.heads.base import Head
from engines.manifest import Feed, Manifest
from engines.preprocess import PREPROCESSORS
from engines.preprocess.base import Volumetric
from engines.session import Session


class OpenInput:
    """One series that a package takes, with the preprocessor that makes its pictures small."""

    def __init__(self, feed: Feed) -> None:
        """Take it from the manifest."""
        self.input = feed.input
        self.stage = feed.stage
        self.optional = feed.optional
        self.preprocessor = PREPROCESSORS[feed.preprocess.name].model_validate(feed.preprocess.params)
        #: Inputs with an equal preparation, of whatever package, share their small pictures.
        self.preparation = f"{feed.preprocess.name} {self.preprocessor.model_dump_json(exclude={'tensor'})}"


def check_flow(manifest: Manifest, sessions: Sequence[Session], inputs: Mapping[str, OpenInput], head: Head) -> None:
    """Look whether every tensor that the manifest names is in the graphs, and every one of theirs is fed.

    Args:
        manifest: Of the package.
        sessions: One for each stage.
        inputs: By role.
        head: Reads the last step's outputs.

    Raises:
        SessionError: Naming step, stage and tensors.
    """
    wrong: list[str] = []
    roles: list[str] = []
    for number, step in enumerate(manifest.steps):
        fed = [taken.preprocessor.tensor for taken in inputs.values() if taken.stage == step.stages[0]]
        own = [role for role, taken in inputs.items() if taken.stage == step.stages[0]]
        roles.append(own[0] if step.take is None else roles[step.take.from_])
        if step.take is not None:
            fed += [name for name in (step.take.tensor, step.take.map_tensor) if name is not None]
            before = sessions[manifest.steps[step.take.from_].stages[0]]
            known = [spec.name for spec in before.outputs]
            if step.take.output not in known:
                wrong.append(f"step {number} takes the output {step.take.output!r} of step {step.take.from_}: {known}")
            if not isinstance(inputs[roles[-1]].preprocessor, Volumetric):
                wrong.append(f"step {number}: take needs an input with the preprocessor ct-volume")
        outputs = [(spec.name, spec.dtype) for spec in sessions[step.stages[0]].outputs]
        for index in step.stages:
            name, session = f"stage {index} ({manifest.stages[index].onnx})", sessions[index]
            taken_names = [spec.name for spec in session.inputs]
            if sorted(taken_names) != sorted(fed):
                wrong.append(f"{name} takes the tensors {taken_names}, step {number} gives {fed}")
            if [(spec.name, spec.dtype) for spec in session.outputs] != outputs:
                wrong.append(f"{name} has other outputs than stage {step.stages[0]}, no mean can be taken")
            if len(step.stages) > 1 and any(not spec.dtype.startswith("float") for spec in session.outputs):
                wrong.append(f"{name} has outputs of whole numbers, no mean can be taken")
            if step.tile is not None:
                wrong += _tile_faults(name, session, step.tile.patch)
    given = [spec.name for spec in sessions[manifest.steps[-1].stages[0]].outputs]
    wrong += [
        f"the head reads the output {name!r}, the last step gives {given}" for name in head.reads if name not in given
    ]
    take = manifest.steps[-1].take
    if head.reads_candidates != (take is not None and take.by == "peaks"):
        wrong.append(
            "a step that looks at peaks needs a head that reads their scores, and no other step has such a head"
        )
    if wrong:
        raise SessionError(f"the graphs of {manifest.name} do not fit its model.yaml: " + "; ".join(wrong))


def _tile_faults(name: str, session: Session, patch: tuple[int, ...]) -> list[str]:
    """Inputs that cannot take a patch."""
    wrong = []
    for spec in session.inputs:
        ends = spec.shape[-len(patch) :]
        if len(ends) < len(patch) or any(isinstance(d, int) and d != p for d, p in zip(ends, patch, strict=True)):
            wrong.append(f"{name}: input {spec.name!r} of shape {list(spec.shape)} does not take patches {list(patch)}")
    return wrong
