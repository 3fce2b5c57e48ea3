"""The messages of the KServe v2 protocol that we speak, built here instead of generated.

Names and field numbers are those of ``open_inference_grpc.proto`` (package ``inference``) of the Open Inference
Protocol, https://github.com/kserve/open-inference-protocol. What is not sent or read by us is left out; protobuf passes
over fields that it does not know. The messages live in a pool of their own, so that a client library in the same
process may bring its own of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "/inference.GRPCInferenceService/"

_KINDS = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
#: message: (number, name, type). ``*`` repeats it, ``?`` makes it one of the message's choice, ``%`` maps text to it.
_FIELDS: dict[str, tuple[tuple[int, str, str], ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ((1, "live", "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ((1, "ready", "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ((1, "name", "string"), (2, "version", "string"), (3, "extensions", "string*")),
    "ModelReadyRequest": ((1, "name", "string"), (2, "version", "string")),
    "ModelReadyResponse": ((1, "ready", "bool"),),
    "ModelMetadataRequest": ((1, "name", "string"), (2, "version", "string")),
    "ModelMetadataResponse.TensorMetadata": ((1, "name", "string"), (2, "datatype", "string"), (3, "shape", "int64*")),
    "ModelMetadataResponse": (
        (1, "name", "string"),
        (2, "versions", "string*"),
        (3, "platform", "string"),
        (4, "inputs", "ModelMetadataResponse.TensorMetadata*"),
        (5, "outputs", "ModelMetadataResponse.TensorMetadata*"),
    ),
    "InferParameter": (
        (1, "bool_param", "bool?"),
        (2, "int64_param", "int64?"),
        (3, "string_param", "string?"),
        (4, "double_param", "double?"),
        (5, "uint64_param", "uint64?"),
    ),
    # Without parameters and typed contents: tensors travel as raw bytes.
    "ModelInferRequest.InferInputTensor": ((1, "name", "string"), (2, "datatype", "string"), (3, "shape", "int64*")),
    "ModelInferRequest.InferRequestedOutputTensor": ((1, "name", "string"),),
    "ModelInferRequest": (
        (1, "model_name", "string"),
        (2, "model_version", "string"),
        (3, "id", "string"),
        (4, "parameters", "InferParameter%"),
        (5, "inputs", "ModelInferRequest.InferInputTensor*"),
        (6, "outputs", "ModelInferRequest.InferRequestedOutputTensor*"),
        (7, "raw_input_contents", "bytes*"),
    ),
    "ModelInferResponse.InferOutputTensor": ((1, "name", "string"), (2, "datatype", "string"), (3, "shape", "int64*")),
    "ModelInferResponse": (
        (1, "model_name", "string"),
        (2, "model_version", "string"),
        (3, "id", "string"),
        (4, "parameters", "InferParameter%"),
        (5, "outputs", "ModelInferResponse.InferOutputTensor*"),
        (6, "raw_output_contents", "bytes*"),
    ),
}


@dataclass(frozen=True, slots=True)
class Messages:
    """The classes of requests and responses by their names in the protocol; nested ones need none of their own."""

    ServerLiveRequest: Any
    ServerLiveResponse: Any
    ServerReadyRequest: Any
    ServerReadyResponse: Any
    ServerMetadataRequest: Any
    ServerMetadataResponse: Any
    ModelReadyRequest: Any
    ModelReadyResponse: Any
    ModelMetadataRequest: Any
    ModelMetadataResponse: Any
    ModelInferRequest: Any
    ModelInferResponse: Any

    def pair(self, call: str) -> tuple[Any, Any]:
        """Request and response of one call, as ``ModelInfer``."""
        return getattr(self, f"{call}Request"), getattr(self, f"{call}Response")


def _build() -> Messages:
    file = descriptor_pb2.FileDescriptorProto(name="scanside/kserve_v2.proto", package="inference", syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for whole in sorted(_FIELDS, key=lambda name: name.count(".")):
        outer, _, inner = whole.rpartition(".")
        made[whole] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
    for whole, fields in _FIELDS.items():
        for number, name, kind in fields:
            _add(made[whole], whole, number, name, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {name: pool.FindMessageTypeByName(f"inference.{name}") for name in Messages.__slots__}
    return Messages(**{name: message_factory.GetMessageClass(one) for name, one in found.items()})


def _add(message: descriptor_pb2.DescriptorProto, whole: str, number: int, name: str, kind: str) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=proto.LABEL_OPTIONAL)
    bare = kind.rstrip("*?%")
    if kind.endswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.endswith(("*", "%")):
        field.label = proto.LABEL_REPEATED
    if kind.endswith("%"):
        # How protobuf spells a map: a nested message of key and value, named after the field.
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add(entry, f"{whole}.{entry.name}", 1, "key", "string")
        _add(entry, f"{whole}.{entry.name}", 2, "value", bare)
        bare = f"{whole}.{entry.name}"
    if bare in _KINDS:
        field.type = _KINDS[bare]
    else:
        field.type, field.type_name = proto.TYPE_MESSAGE, f".inference.{bare}"


MESSAGES = _build()
