"""Package schema 1: a package's graphs, and how they feed one another.

A step runs one graph, or several whose outputs are averaged. Its tensors come from series of the study (``inputs``),
from where an earlier step looked (``take``), or both. The head reads the last step's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from engines.envelope import FileName, Input, Millimetres, Part, Step, Voxels


class Window(Part):
    """Run in pieces along the first axis, so that memory does not grow with the series.

    Each piece sees ``overlap`` more on both sides, which are cut off its outputs again; where the graph looks no
    further than that, the result is the same as in one run.
    """

    length: int = Field(ge=1)
    overlap: int = Field(default=0, ge=0)


class Stage(Part):
    """One graph: what it takes, how pictures become its tensors, how its outputs become findings.

    Without ``input`` and ``preprocess`` it is fed by the ``pipeline``; the head stands on the last step's first stage.
    """

    onnx: FileName
    input: Input | None = None
    preprocess: Step | None = None
    window: Window | None = None
    head: Step | None = None


class Feed(Part):
    """One series of the study, prepared as tensors of one stage; a picture's own way into the package.

    A stage has its own feed (``input`` and ``preprocess``); ``pipeline.inputs`` gives it further ones.
    """

    input: Input
    preprocess: Step
    #: Index of the stage whose tensors it fills.
    stage: int = Field(ge=0)
    #: Where the study has no such series, the stage gets zeros.
    optional: bool = False


class Tile(Part):
    """Run over a volume in overlapping patches whose outputs are averaged, as nnU-Net does.

    Attributes:
        patch: Voxels per axis, the last axes of every tensor of the step. Smaller volumes are padded with zeros.
        overlap: Share of the patch that neighbours share.
        weights: ``gaussian`` trusts the middle of a patch (sigma = patch / 8), ``uniform`` everything alike.
        mirror_axes: Outputs of the mirrored patch, for every combination of these axes (0 = first of ``patch``), are
            averaged too.
    """

    patch: tuple[Voxels, ...] = Field(min_length=2, max_length=3)
    overlap: float = Field(default=0.5, ge=0, le=0.9)
    weights: Literal["gaussian", "uniform"] = "gaussian"
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()


class Take(Part):
    """Where an earlier step looked, this one looks again: a new grid is laid through the same series.

    Attributes:
        from_: Index of the earlier step.
        output: Name of its output, a map [1, C, ...] over its grid.
        channel: Which channel of it.
        by: ``peaks``: one crop of ``size`` around each local maximum, the graph runs once for each;
            ``box``: the box around everything at or above the threshold, or ``size`` voxels around its middle;
            ``resample``: the whole of the earlier grid, at another spacing.
        threshold: In the map's own numbers; below it nothing is taken. Without a peak the step does not run and its
            head sees no candidates; without anything in the box the study is out of the envelope.
        at_most: Peaks, best first.
        apart_mm: Of two peaks closer than this the better one stands.
        margin_mm: Kept around the box on every side.
        size: Voxels (depth, rows, columns).
        spacing_mm: Of the new grid (depth, rows, columns).
        tensor: The graph's input for the volume itself; absent: it gets none.
        map_tensor: The graph's input for the earlier map on the new grid; absent: it gets none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    from_: int = Field(alias="from", ge=0)
    output: str = Field(min_length=1)
    channel: int = Field(default=0, ge=0)
    by: Literal["peaks", "box", "resample"]
    threshold: float = 0.5
    at_most: int = Field(default=32, ge=1, le=1000)
    apart_mm: float = Field(default=10.0, ge=0)
    margin_mm: float = Field(default=0.0, ge=0)
    size: tuple[Voxels, Voxels, Voxels] | None = None
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    tensor: str | None = None
    map_tensor: str | None = None


class Run(Part):
    """One step: stages that all see the same tensors; the mean of their outputs counts (an ensemble)."""

    stages: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    tile: Tile | None = None
    take: Take | None = None


class Flow(Part):
    """How the stages feed one another. Absent: one stage with one input."""

    inputs: tuple[Feed, ...] = ()
    steps: tuple[Run, ...] = (Run(stages=(0,)),)


Place = tuple[int | str, ...]
#: Where it stands in the manifest, and what to do about it.
Fault = tuple[Place, str]


def feeds_of(stages: Sequence[Stage], flow: Flow | None) -> tuple[Feed, ...]:
    """Every series that a package takes: those of the stages in their order, then the further ones."""
    own = (
        Feed(input=stage.input, preprocess=stage.preprocess, stage=index)
        for index, stage in enumerate(stages)
        if stage.input is not None and stage.preprocess is not None
    )
    return (*own, *(flow.inputs if flow is not None else ()))


def flow_faults(stages: Sequence[Stage], flow: Flow | None) -> list[Fault]:
    """What is wrong with how the stages feed one another. Names of tensors are checked when the graphs are open."""
    faults: list[Fault] = []
    for index, stage in enumerate(stages):
        if (stage.input is None) != (stage.preprocess is None):
            given, missing = ("preprocess", "input") if stage.input is None else ("input", "preprocess")
            faults.append((("stages", index, given), f"stands without {missing}; give both, or neither"))
    if flow is None and len(stages) > 1:
        return [*faults, (("stages", 1), "several stages need a pipeline that says how they feed one another")]
    known = f"known are 0 to {len(stages) - 1}"
    for index, feed in enumerate(flow.inputs if flow is not None else ()):
        if feed.stage >= len(stages):
            faults.append((("pipeline", "inputs", index, "stage"), f"stage {feed.stage} is unknown; {known}"))
    fed = {feed.stage for feed in feeds_of(stages, flow)}
    owed = {feed.stage for feed in feeds_of(stages, flow) if not feed.optional}
    steps = (flow or Flow()).steps
    used: dict[int, int] = {}
    for index, step in enumerate(steps):
        where: Place = ("pipeline", "steps", index) if flow is not None else ("stages", 0)
        for place, number in enumerate(step.stages):
            if number >= len(stages):
                faults.append(((*where, "stages", place), f"stage {number} is unknown; {known}"))
            elif number in used:
                faults.append(((*where, "stages", place), f"stage {number} runs in step {used[number]} already"))
            elif place and number in fed:
                first = step.stages[0]
                faults.append(
                    (("stages", number), f"the stages of a step share the inputs of the first, stage {first}")
                )
            used.setdefault(number, index)
        if step.take is None and step.stages[0] in fed - owed:
            faults.append((where, "all of its inputs are optional; one must always be there"))
        elif step.take is None and step.stages[0] not in fed:
            faults.append((where, f"nothing feeds it: give stage {step.stages[0]} an input, or the step a take"))
        elif step.take is not None:
            faults += _take_faults(steps, index)
        faults += _tile_faults(stages, step, (*where, "tile"))
    faults += [
        (("stages", index), "no step runs this stage; name it in one, or leave it out")
        for index in range(len(stages))
        if index not in used
    ]
    last = steps[-1].stages[0]
    faults += [
        (("stages", index, "head"), f"the head belongs to the first stage of the last step, stage {last}")
        for index, stage in enumerate(stages)
        if stage.head is not None and index != last
    ]
    if last < len(stages) and stages[last].head is None:
        faults.append((("stages", last), "the first stage of the last step needs a head"))
    return faults


def _take_faults(steps: Sequence[Run], index: int) -> list[Fault]:
    step, where = steps[index], ("pipeline", "steps", index, "take")
    take = step.take
    assert take is not None  # noqa: S101 - the caller has looked
    faults: list[Fault] = []
    if take.from_ >= index:
        faults.append(((*where, "from"), f"step {take.from_} does not come before step {index}"))
    elif (before := steps[take.from_].take) is not None and before.by == "peaks":
        faults.append(((*where, "from"), f"step {take.from_} ran on crops around peaks; take from the step before it"))
    if take.by == "peaks" and take.size is None:
        faults.append((where, "crops around peaks need a size"))
    if take.by == "resample" and take.size is not None:
        faults.append(((*where, "size"), "the whole grid is resampled; leave size out"))
    if take.tensor is None and take.map_tensor is None:
        faults.append((where, "name the tensor that gets the volume, or map_tensor for the map, or both"))
    return faults


def _tile_faults(stages: Sequence[Stage], step: Run, where: Place) -> list[Fault]:
    tile = step.tile
    if tile is None:
        return []
    faults: list[Fault] = []
    if step.take is not None and step.take.by == "peaks":
        faults.append((where, "crops around peaks are run whole; leave tile out"))
    if len(set(tile.mirror_axes)) < len(tile.mirror_axes) or any(a >= len(tile.patch) for a in tile.mirror_axes):
        faults.append(((*where, "mirror_axes"), f"each of 0 to {len(tile.patch) - 1} at most once"))
    if any(number < len(stages) and stages[number].window is not None for number in step.stages):
        faults.append((where, "a stage of this step has a window; one of the two cuts it into pieces"))
    return faults
