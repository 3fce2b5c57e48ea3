"""The gate: no package from elsewhere is installed, built or run before every rule here holds for it.

The parent calls ``gate_package``; the work is done by ``handle`` in a limited child, because parsing foreign bytes is
foreign code. It looks at everything and tells everything at once, one line per fault: which file, what, how to mend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.child import Limits, Progress, run_limited
from engines.data_rules import data_faults
from engines.errors import ChildError, PackageError, SignatureError
from engines.graph_memory import Needs, memory_needs, profile_faults
from engines.graph_rules import rule_faults
from engines.manifest import Profile
from engines.package import Package, load_package
from engines.signing import PublicKey, load_public

if TYPE_CHECKING:
    import onnx

#: Address space: 512 MB of graph, parsed, and what libraries map. Time: bombs end here.
GATE_LIMITS = Limits(wall_s=15, cpu_s=12, memory_mb=3072)
MAX_FAULTS = 20


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What the gate saw of one stage's graph; sizes at the largest shapes of the profiles, in megabytes."""

    onnx: str
    opset: int
    nodes: int
    weights_mb: float
    peak_mb: float
    inputs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateReport:
    """A package that passed: who signed it, its files with their SHA-256, and its graphs."""

    name: str
    version: str
    digest: str
    signed_by: tuple[str, ...]
    files: dict[str, str]
    stages: tuple[StageFacts, ...]


def gate_package(
    folder: Path, keys: Sequence[PublicKey], limits: Limits = GATE_LIMITS, *, trusted: bool = False
) -> GateReport:
    """Check a package in a limited child.

    Args:
        folder: The package's folder.
        keys: Whose signatures count.
        limits: What the child may take.
        trusted: For makers, who check before they sign: the signature is not asked for.

    Raises:
        SignatureError: It is not signed by one of ``keys``.
        PackageError: It is refused; one line per fault.
    """
    request = {"folder": str(folder), "keys": [key.pem() for key in keys], "trusted": trusted}
    try:
        answer = run_limited("engines.gate", request, limits)
    except ChildError as error:
        why = {
            "timeout": f"reading it takes longer than {limits.wall_s:g} s",
            "memory": f"reading it takes more than {limits.memory_mb} MB",
        }.get(error.fault, "reading it ends the reader")
        raise PackageError(f"{folder}: refused: {why}; ask its maker for a plain export ({error})") from error
    if "refused" in answer:
        kind = PackageError if answer["signed"] else SignatureError
        raise kind("\n".join(answer["refused"]))
    stages = tuple(StageFacts(**stage) for stage in answer.pop("stages"))
    return GateReport(**{**answer, "signed_by": tuple(answer["signed_by"])}, stages=stages)


def handle(request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Be the child: ``{folder, keys: [PEM], trusted}`` becomes ``GateReport`` as data, or ``{refused, signed}``."""
    folder = Path(request["folder"])
    try:
        package = load_package(
            folder, keys=[load_public(str(pem)) for pem in request["keys"]], trusted=request.get("trusted", False)
        )
    except PackageError as error:
        return {"refused": _at_most(str(error).splitlines()), "signed": not isinstance(error, SignatureError)}
    faults: list[str] = []
    stages: list[StageFacts] = []
    for index, stage in enumerate(package.manifest.stages):
        facts, wrong = _stage(package, index)
        faults += [f"{stage.onnx}: {line}" for line in wrong]
        stages += [facts] if facts is not None else []
    known = {name for facts in stages for name in facts.inputs}
    if not faults:
        faults += _together(package, stages, known)
    faults += data_faults(package, {name: rank for facts in stages for name, rank in facts.inputs.items()})
    if faults:
        return {"refused": [f"{folder}: {line}" for line in _at_most(faults)], "signed": True}
    return {
        "name": package.name,
        "version": package.version,
        "digest": package.digest,
        "signed_by": package.signed_by,
        "files": package.files,
        "stages": [asdict(facts) for facts in stages],
    }


def _at_most(faults: Sequence[str]) -> list[str]:
    more = [f"{len(faults) - MAX_FAULTS} more faults"] if len(faults) > MAX_FAULTS else []
    return [*faults[:MAX_FAULTS], *more]


def check_graph(model: onnx.ModelProto, *, memory_mb: float, profiles: Mapping[str, Profile] | None = None) -> Needs:
    """Refuse a graph that could do more than turn arrays into arrays within its memory; it is not changed.

    Args:
        model: The parsed model.
        memory_mb: The package's own limit on weights and what lives at the same time.
        profiles: Of inputs whose dimensions vary.

    Raises:
        PackageError: One line per fault, naming node or tensor.
    """
    faults = list(rule_faults(model)) or list(profile_faults(model, profiles or {}))
    needs = Needs(0, 0)
    if not faults:  # inference would walk into what was just refused
        needs, faults = memory_needs(model, profiles or {})
    if not faults and needs.peak_mb > memory_mb:
        faults.append(
            f"needs {needs.peak_mb:.0f} MB at the largest shapes of its profiles, more than limits.memory_mb "
            f"({memory_mb:g}); make the profiles or the graph smaller"
        )
    if faults:
        raise PackageError("\n".join(faults[:MAX_FAULTS]))
    return needs


def _together(package: Package, stages: Sequence[StageFacts], known: set[str]) -> list[str]:
    """What no graph shows by itself: all are loaded at once, and every profile belongs to one of them."""
    spare = sorted(package.manifest.profiles.keys() - known)
    faults = [f"model.yaml: profiles: no graph has an input {name!r}; known are {sorted(known)}" for name in spare]
    needs = sum(s.weights_mb for s in stages) + max(s.peak_mb - s.weights_mb for s in stages)
    allowed = package.manifest.limits.memory_mb
    if needs > allowed:
        faults.append(f"model.yaml: limits.memory_mb is {allowed:g}, but all stages together need {needs:.0f} MB")
    return faults


def _stage(package: Package, index: int) -> tuple[StageFacts | None, Sequence[str]]:
    manifest = package.manifest
    try:
        model = parse_graph(package.read_onnx(index))
        needs = check_graph(model, memory_mb=manifest.limits.memory_mb, profiles=manifest.profiles)
    except PackageError as error:
        return None, str(error).splitlines()
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {v.name: len(v.type.tensor_type.shape.dim) for v in model.graph.input if v.name not in weights}
    opset = next(o.version for o in model.opset_import)
    name = manifest.stages[index].onnx
    return StageFacts(name, opset, len(model.graph.node), needs.weights_mb, needs.peak_mb, inputs), ()


def parse_graph(data: bytes) -> onnx.ModelProto:
    """Parse an ONNX file that says everything once and in known fields; other files are never read.

    Raises:
        PackageError: It is no such file.
    """
    import onnx

    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:
        raise PackageError(
            f"is no ONNX file, is cut off, or needs more memory to read than the gate has ({type(error).__name__}); "
            "export it again"
        ) from error
    # Merged, padded or unknown fields are how one file means two things to two readers.
    model.DiscardUnknownFields()
    if model.ByteSize() != len(data):
        raise PackageError("has fields that stand twice, are padded or unknown here; save it again with onnx.save")
    return model
