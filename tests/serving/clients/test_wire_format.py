"""The gRPC messages have the numbers and types of the clients' generated code."""

from pathlib import Path

import pytest

from d2serve.servers.asgi.grpc_protocol import message_class
from tests.serving.clients.conversation import Conversation
from tests.serving.clients.wire_format import MESSAGES, fields_of

# Library -> fields of the protocol that its version of the protocol lacks.
LIBRARIES = {
    "tritonclient.grpc.service_pb2": (".properties",),
    "kserve.protocol.grpc.grpc_predict_v2_pb2": (".properties", ".double_param", ".uint64_param"),
}


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def conversation(repo_root: Path, library: str) -> Conversation:
    return Conversation.of(repo_root, "wire_format.py", library)


@pytest.mark.parametrize("message", MESSAGES)
def test_fields_have_the_same_numbers_and_types(
    conversation: Conversation, library: str, message: str
) -> None:
    fields = fields_of(message_class(message).DESCRIPTOR)
    lacking = {
        path for path in fields if any(f"{each}." in f".{path}." for each in LIBRARIES[library])
    }
    assert conversation.result(message) == {
        path: field for path, field in fields.items() if path not in lacking
    }
