"""From the network to ``model.onnx``: the same bytes from the same network."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from cxr.export import IR_VERSION, OPSET

from cxr_quality.network import SIZE, Network
from engines.gate import check_graph

MAX_BYTES = 2_000_000


def exported(net: Network) -> bytes:
    """The graph ``image`` [1, 1, 128, 128] to ``scores`` [1, faults].

    Raises:
        SystemExit: The box's own gate would refuse it, or it is too large.
    """
    held = io.BytesIO()
    plain = net.eval().to(memory_format=torch.contiguous_format)
    names = {"input_names": ["image"], "output_names": ["scores"]}
    with warnings.catch_warnings():
        # The exporter that traces needs nothing beside onnx; it is called old.
        warnings.simplefilter("ignore")
        torch.onnx.export(plain, (torch.zeros(1, 1, SIZE, SIZE),), held, opset_version=OPSET, dynamo=False, **names)
    model = onnx.load_from_string(held.getvalue())
    model.ir_version, model.graph.name = IR_VERSION, "cxr_quality"
    model.producer_name, model.producer_version = "scanside", ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    check_graph(model, memory_mb=100)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) >= MAX_BYTES:
        raise SystemExit(f"model.onnx has {len(data)} bytes, at most {MAX_BYTES}")
    return data
