"""tritonclient with its defaults, over HTTP and gRPC."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.clients.conversation import Conversation, assert_same_tensors

pytestmark = pytest.mark.parametrize(
    ("server_name", "protocol"),
    [("asgi", "http"), ("asgi", "grpc"), ("torchserve", "http")],
    indirect=True,
    scope="session",
)
SAME_PREDICTION = (
    *("image", "array", "batch-of-one", "floats"),
    *("version", "protocol-parameters", "asynchronous"),
)
OF_PROTOCOL = {
    "http": ("json-image", "json-array", "json-outputs"),
    "grpc": ("typed-image", "typed-array", "compressed"),
}
# Case -> statuses over HTTP and gRPC, and a part of the message.
REFUSALS = {
    "unknown-option": ("400", "INVALID_ARGUMENT", "unknown option; the options are"),
    "unknown-output": ("400", "INVALID_ARGUMENT", "request any of boxes"),
    "no-image": ("415", "INVALID_ARGUMENT", "match no supported image format"),
    "other-model": ("404", "NOT_FOUND", "does not exist"),
}


@pytest.fixture(scope="session")
def conversation(converse: Callable[[str], Conversation]) -> Conversation:
    return converse("triton_client.py")


@pytest.mark.parametrize("case", ["live", "ready", "model-ready", "version-ready"])
def test_health(conversation: Conversation, case: str) -> None:
    assert conversation.result(case) is True


def test_another_model_is_not_ready(conversation: Conversation, protocol: str) -> None:
    if protocol == "http":
        assert conversation.result("other-model-ready") is False
    else:
        assert conversation.refusal("other-model-ready").status == "StatusCode.NOT_FOUND"


def test_metadata(conversation: Conversation, protocol: str) -> None:
    assert conversation.result("server-metadata") == ["d2serve"]
    name, inputs, outputs = conversation.result("model-metadata")
    # protobuf writes integers of 64 bits as text in JSON.
    shape = [-1] if protocol == "http" else ["-1"]
    assert inputs == [{"name": "image", "datatype": "BYTES", "shape": shape}]
    assert name == "shapes"
    assert outputs == 10


def test_model_config(conversation: Conversation, protocol: str) -> None:
    if protocol == "http":
        assert conversation.result("model-config") == "shapes"
    else:
        assert conversation.refusal("model-config").status == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("case", SAME_PREDICTION)
def test_prediction(conversation: Conversation, expected: dict[str, Any], case: str) -> None:
    assert_same_tensors(conversation.result(case), expected)


@pytest.mark.parametrize("number", range(3))
def test_prediction_in_forms_of_one_protocol(
    conversation: Conversation, expected: dict[str, Any], protocol: str, number: int
) -> None:
    assert_same_tensors(conversation.result(OF_PROTOCOL[protocol][number]), expected)


def test_only_the_requested_outputs_are_returned(
    conversation: Conversation, expected: dict[str, Any]
) -> None:
    tensors = conversation.result("requested-outputs")
    assert set(tensors) == {"classes", "scores"}
    assert tensors["classes"] == expected["classes"]


def test_the_request_id_is_returned(conversation: Conversation) -> None:
    assert conversation.result("request-id") == ["order 42", "shapes"]


def test_options_apply(conversation: Conversation, expected: dict[str, Any]) -> None:
    tensors = conversation.result("options")
    assert set(tensors) == {"boxes", "scores", "classes"}
    assert tensors["classes"] == expected["classes"][:1]


def test_several_images(conversation: Conversation, expected: dict[str, Any]) -> None:
    tensors = conversation.result("several-images")
    count = len(expected["classes"])
    assert tensors["image_ids"] == [0] * count + [1] * count
    assert tensors["classes"] == expected["classes"] * 2


@pytest.mark.parametrize("case", REFUSALS)
def test_errors_have_the_message_of_the_server(
    conversation: Conversation, protocol: str, case: str
) -> None:
    http_status, code, message = REFUSALS[case]
    refusal = conversation.refusal(case)
    assert refusal.status == (http_status if protocol == "http" else f"StatusCode.{code}")
    assert message in refusal.message
