"""Runs in the environment of mlserver, not in ours: serves one ONNX file and says which one it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, Parameters, ResponseOutput


class OnnxModel(MLModel):
    """``parameters.uri`` of the model's settings names the ONNX file."""

    async def load(self):
        graph = Path(self.settings.parameters.uri).read_bytes()  # noqa: ASYNC240 - once, before it serves
        self._sha256 = hashlib.sha256(graph).hexdigest()
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        given = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in self._session.get_outputs()]
        made = self._session.run(names, given)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[_output(name, tensor) for name, tensor in zip(names, made, strict=True)],
            parameters=Parameters(model_sha256=self._sha256),
        )


def _output(name, tensor):
    """As mlserver's own NumpyCodec, which makes None of NaN and then cannot send it raw."""
    datatype = NumpyCodec.encode_output(name, tensor[:0]).datatype
    return ResponseOutput(name=name, datatype=datatype, shape=list(tensor.shape), data=tensor.ravel().tolist())
