"""What an engine's plans hold, without loading them into a runtime."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engines.lowering import read_graph
from engines.store import EngineStore, Entry

_MAGIC = {b"ftrt": "TensorRT", b"trtf": "TensorRT", b"vtrt": "TensorRT-RTX", b"trtv": "TensorRT-RTX"}


def inspect(store: EngineStore, entry: Entry) -> list[dict[str, Any]]:
    """Describe each stage's plan: size, format, and of a lowered graph its operators and weights.

    Raises:
        BuildError: A plan is not what was built here.
    """
    made = entry.facts.get("stages", [])
    described = []
    for index, plan in enumerate(store.plans(entry)):
        told: dict[str, Any] = {"stage": index, "bytes": len(plan), **(made[index] if index < len(made) else {})}
        told.pop("file", None)
        if entry.flavour == "onnxruntime":
            graph = read_graph(plan).graph
            told["format"] = "ONNX"
            told["operators"] = dict(Counter(node.op_type for node in graph.node).most_common())
            told["weights"] = len(graph.initializer)
        else:
            told["format"] = _MAGIC.get(plan[:4], f"unknown ({plan[:4].hex()})")
        described.append(told)
    return described
