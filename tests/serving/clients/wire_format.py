"""Describe the messages of a library's gRPC service; runs where the library is installed.

    python wire_format.py MODULE

Prints a line of JSON for each message of a request or response.
"""

import importlib
import json
import sys
from typing import Any

METHODS = (
    *("ServerLive", "ServerReady", "ServerMetadata"),
    *("ModelReady", "ModelMetadata", "ModelInfer"),
)
# LABEL_REPEATED of FieldDescriptorProto.
REPEATED = 3
MESSAGES = [f"{method}{kind}" for method in METHODS for kind in ("Request", "Response")]


def fields_of(descriptor: Any, path: str = "") -> dict[str, list[Any]]:
    """The path of each field -> its number, its type, and whether it is repeated."""
    from google.protobuf.descriptor_pb2 import DescriptorProto

    message = DescriptorProto()
    descriptor.CopyToProto(message)
    fields: dict[str, list[Any]] = {}
    for field, declared in zip(descriptor.fields, message.field, strict=True):
        kind, is_repeated = declared.Type.Name(declared.type), declared.label == REPEATED
        fields[path + field.name] = [field.number, kind, is_repeated]
        if field.message_type:
            fields |= fields_of(field.message_type, f"{path}{field.name}.")
    return fields


def main(module: str) -> None:
    """Describe all messages."""
    library = importlib.import_module(module)
    for name in MESSAGES:
        fields = fields_of(getattr(library, name).DESCRIPTOR)
        print(json.dumps({"case": name, "result": fields}))


if __name__ == "__main__":
    main(sys.argv[1])
