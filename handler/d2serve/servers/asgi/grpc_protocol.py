"""The messages and methods of the Open Inference Protocol over gRPC, without generated code.

Other programs use the .proto file that KServe publishes; on the wire only the numbers and types of
the fields count. The descriptors are in a pool of their own, because a process may also have loaded
those of a client: the default pool accepts each name once.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# The fields of each message in the order of their numbers, from 1. `map TYPE` has string keys;
# fields marked `oneof` exclude each other.
MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": ("string name", "string version"),
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "repeated string extensions"),
    "ModelMetadataRequest": ("string name", "string version"),
    "ModelMetadataResponse": (
        "string name",
        "repeated string versions",
        "string platform",
        "repeated TensorMetadata inputs",
        "repeated TensorMetadata outputs",
        "map string properties",
    ),
    "TensorMetadata": ("string name", "string datatype", "repeated int64 shape"),
    "ModelInferRequest": (
        "string model_name",
        "string model_version",
        "string id",
        "map InferParameter parameters",
        "repeated InferTensor inputs",
        "repeated InferRequestedOutputTensor outputs",
        "repeated bytes raw_input_contents",
    ),
    "ModelInferResponse": (
        "string model_name",
        "string model_version",
        "string id",
        "map InferParameter parameters",
        "repeated InferTensor outputs",
        "repeated bytes raw_output_contents",
    ),
    # InferInputTensor and InferOutputTensor of the protocol, which have the same fields.
    "InferTensor": (
        "string name",
        "string datatype",
        "repeated int64 shape",
        "map InferParameter parameters",
        "InferTensorContents contents",
    ),
    "InferRequestedOutputTensor": ("string name", "map InferParameter parameters"),
    "InferParameter": (
        "oneof bool bool_param",
        "oneof int64 int64_param",
        "oneof string string_param",
        "oneof double double_param",
        "oneof uint64 uint64_param",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents",
        "repeated int32 int_contents",
        "repeated int64 int64_contents",
        "repeated uint32 uint_contents",
        "repeated uint64 uint64_contents",
        "repeated float fp32_contents",
        "repeated double fp64_contents",
        "repeated bytes bytes_contents",
    ),
}


def _descriptor(name: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for number, declaration in enumerate(MESSAGES[name], start=1):
        *label, kind, field_name = declaration.split()
        field = message.field.add(name=field_name, number=number)
        if label == ["map"]:
            kind = f"{name}.{_add_map_entry(message, field_name, kind)}"
        elif label == ["oneof"]:
            if not message.oneof_decl:
                message.oneof_decl.add(name="choice")
            field.oneof_index = 0
        is_list = label in (["repeated"], ["map"])
        field.label = field.LABEL_REPEATED if is_list else field.LABEL_OPTIONAL
        _set_type(field, kind)
    return message


def _add_map_entry(message: DescriptorProto, field_name: str, kind: str) -> str:
    """Add the message of a map's entries; return its name, which protobuf prescribes."""
    entry = message.nested_type.add(name=f"{field_name.capitalize()}Entry")
    entry.options.map_entry = True
    for number, (part, part_kind) in enumerate((("key", "string"), ("value", kind)), start=1):
        field = entry.field.add(name=part, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        _set_type(field, part_kind)
    return entry.name


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind.islower():
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _build_pool() -> DescriptorPool:
    pool = DescriptorPool()
    file = FileDescriptorProto(name="d2serve.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_descriptor(name) for name in MESSAGES)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _build_pool()


def message_class(name: str) -> Any:
    """The class of a message, for example `ModelInferRequest`.

    Examples:
        >>> message_class("ServerLiveResponse")(live=True).SerializeToString()
        b'\\x08\\x01'
    """
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
