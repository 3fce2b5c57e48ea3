"""From the network to ``model.onnx``: the same bytes from the same network."""

from __future__ import annotations

import io
import warnings

import onnx
import torch

from cxr.network import SIZE, Network
from engines.gate import check_graph

OPSET = 17
IR_VERSION = 8
MAX_BYTES = 5_000_000


def exported(net: Network) -> bytes:
    """The graph ``image`` [1, 1, 128, 128] to ``scores`` [1, findings] and ``chest`` [1, 1].

    Raises:
        SystemExit: The box's own gate would refuse it, or it is too large.
    """
    held = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that traces needs nothing beside onnx; it is called old.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 1, SIZE, SIZE),),
            held,
            input_names=["image"],
            output_names=["scores", "chest"],
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(held.getvalue())
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "scanside", ""
    model.graph.name = "cxr_triage"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    check_graph(model, memory_mb=200)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) >= MAX_BYTES:
        raise SystemExit(f"model.onnx has {len(data)} bytes, at most {MAX_BYTES}")
    return data
