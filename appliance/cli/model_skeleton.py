"""The text of a new package: templates of ``skeleton/``, with what a graph tells and what its maker has to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

from engines.package import FILL_IN
from engines.ports import Port

#: Stands for a column, channel or label that is no finding.
NONE = "-"
XRAY_RANK, CT_RANK = 4, 5
_USES = {"classifier": "triage", "segmenter": "triage", "detector": "detection", "regressor": "measurement"}


@dataclass(frozen=True, slots=True)
class Graph:
    """What the package is written around."""

    input: Port
    output: Port
    #: What each column, channel or label of the output is called; ``-`` for none of the findings.
    columns: tuple[str, ...]
    peak_mb: float | None

    @property
    def findings(self) -> tuple[str, ...]:
        """The ids of the findings."""
        return tuple(name for name in self.columns if name != NONE)

    @property
    def is_ct(self) -> bool:
        """Whether it takes volumes."""
        return len(self.input.shape) == CT_RANK


def is_labels(port: Port) -> bool:
    """Whether a map holds labels, not one channel for each."""
    return not port.dtype.startswith(("FLOAT", "DOUBLE"))


def shown(port: Port) -> str:
    """A tensor for a person: name, type, shape."""
    return f"{port.name} {port.dtype} [{', '.join('?' if size is None else str(size) for size in port.shape)}]"


def _ask(what: str) -> str:
    return f'"{FILL_IN} {what}"'


def _activation(kind: str, graph: Graph) -> str:
    """What is still to be done to the output, as far as the operator that makes it tells."""
    if kind == "segmenter" and (is_labels(graph.output) or graph.output.made_by == "Softmax"):
        return "softmax"
    if graph.output.made_by in {"Sigmoid", "Softmax"}:
        return "none"
    if kind == "segmenter" and graph.output.shape[1] == 1:
        return "sigmoid"
    if kind == "segmenter":
        return _ask("softmax where a voxel has one label, sigmoid where it can have several")
    return _ask("none if the output is a probability already, else sigmoid or softmax")


def manifest_text(name: str, kind: str, graph: Graph) -> str:
    """``model.yaml``: what the graph tells, and a line to fill in for everything else."""
    index = graph.columns.index(graph.findings[0])
    head = template(
        f"{kind}.yaml",
        OUTPUT=_text(graph.output.name),
        ACTIVATION=_activation(kind, graph),
        COLUMNS=", ".join("null" if column == NONE else column for column in graph.columns),
        LABELS=", ".join(f"{column}: {k}" for k, column in enumerate(graph.columns) if column != NONE),
        FINDING=graph.findings[0],
        INDEX=str(index),
    )
    findings = "".join(
        template(
            "finding.yaml",
            ID=finding,
            NUMBER=str(number),
            MEANING=_words(finding),
            TITLE=_words(finding) if kind == "regressor" else f"Suspected {_words(finding).lower()}",
            TITLE_ZH="骨龄" if kind == "regressor" else "疑似胸腔积液",
            MEASURED=_MEASURED[kind](finding, graph),
            THRESHOLD=_THRESHOLDS[kind],
        )
        for number, finding in enumerate(graph.findings, 1)
    )
    use = _USES[kind]
    return template(
        "model.yaml",
        NAME=name,
        TITLE=_words(name),
        USE=use,
        PAD=" " * (16 - len(use)),
        SHAPE=shown(graph.input),
        SERIES=_ct(graph) if graph.is_ct else _xray(graph),
        HEAD=head.rstrip("\n"),
        PIPELINE=_pipeline(graph),
        FINDINGS=findings,
        PROFILES=_profiles(graph),
        TIME="60" if graph.is_ct else "10",
        # The least that a run takes is known; operators need work space, and the pictures lie there as well.
        MEMORY=str(max(1024 if graph.is_ct else 512, round(3 * (graph.peak_mb or 0)))),
    )


def _xray(graph: Graph) -> str:
    channels, size = graph.input.shape[1], graph.input.shape[2]
    return template(
        "xray.yaml",
        TENSOR=_text(graph.input.name),
        SIZE=_ask("rows and columns of training") if size is None else str(size),
        MEAN="[0.485, 0.456, 0.406] for ImageNet" if channels == 3 else "[0.0] where nothing was subtracted",
        SD="[0.229, 0.224, 0.225] for ImageNet" if channels == 3 else "[1.0] where nothing divided",
    ).rstrip("\n")


def _ct(graph: Graph) -> str:
    return template("ct.yaml", TENSOR=_text(graph.input.name)).rstrip("\n")


def _pipeline(graph: Graph) -> str:
    if not graph.is_ct:
        return ""
    patch = graph.input.shape[2:]
    shown = _ask("voxels of the patch of training, such as [96, 128, 128]") if None in patch else str(list(patch))
    return (
        "\n# A volume is run in overlapping patches, whose outputs are averaged.\n"
        f"pipeline:\n  steps:\n    - stages: [0]\n      tile: {{patch: {shown}, overlap: 0.5}}\n"
    )


def _profiles(graph: Graph) -> str:
    """The shapes of an input whose dimensions vary; only one is ever run, and an engine is built for it."""
    shape = graph.input.shape
    if None not in shape:
        return ""
    if None in shape[1:]:
        asked = _ask("the one shape that is run: 1, channels, then size or patch, such as [1, 1, 96, 128, 128]")
    else:
        asked = str([1, *shape[1:]])
    held = "".join(f"    {end}: {asked}\n" for end in ("min", "opt", "max"))
    return f"profiles:                      # of inputs whose dimensions vary\n  {_text(graph.input.name)}:\n{held}"


def _sized(finding: str, graph: Graph) -> str:
    what, unit, code = ("volume", "ml", "118565006") if graph.is_ct else ("area", "mm2", "42798000")
    return f"    score_unit: {unit}\n" + template(
        "measured.yaml",
        NAME=what,
        TITLE=f"{_words(finding)}, {what}",
        TITLE_ZH="体积" if graph.is_ct else "面积",
        CODE=code,
        SCHEME="SCT",
        MEANING=what.capitalize(),
        UNIT=unit,
    )


def _diameter(finding: str, _graph: Graph) -> str:
    return template(
        "measured.yaml",
        NAME="diameter",
        TITLE=f"{_words(finding)}, diameter",
        TITLE_ZH="直径",
        CODE="81827009",
        SCHEME="SCT",
        MEANING="Diameter",
        UNIT="mm",
    )


def _value(finding: str, _graph: Graph) -> str:
    unit = _ask("the UCUM unit again")
    return f"    score_unit: {unit}\n" + template(
        "measured.yaml",
        NAME=finding,
        TITLE=_words(finding),
        TITLE_ZH=_ask("the same in Chinese"),
        CODE="M1",
        SCHEME="99LOCAL",
        MEANING=_words(finding),
        UNIT=unit,
    )


_MEASURED: Mapping[str, Callable[[str, Graph], str]] = {
    "classifier": lambda _finding, _graph: "",
    "segmenter": _sized,
    "detector": _diameter,
    "regressor": _value,
}
_THRESHOLDS = {
    "classifier": _ask("flagged from this score on"),
    "segmenter": _ask("flagged from this size on, in score_unit"),
    "detector": _ask("flagged from this score of the best mark on"),
    # A measurement's value is told whatever it is.
    "regressor": "0",
}


def _words(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def _text(name: str) -> str:
    """A tensor's name as YAML: exporters make names such as ``input.1`` and ``495``."""
    return "'" + name.replace("'", "''") + "'"


def template(file: str, **parts: str) -> str:
    """A file of the skeleton with its ``@KEY@`` replaced."""
    text = (resources.files("appliance.cli") / "skeleton" / file).read_text("utf-8")
    for key, value in parts.items():
        text = text.replace(f"@{key}@", value)
    return text
