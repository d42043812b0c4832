"""The REST and gRPC clients of the kserve package."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.clients.conversation import Conversation, assert_same_tensors
from tests.serving.traffic import assert_same_prediction

TARGETS = ("server_name", "protocol")
V1 = [("asgi", "v1"), ("torchserve", "v1")]
V2 = [("asgi", "v2"), ("asgi", "grpc"), ("torchserve", "v2")]
for_v1 = pytest.mark.parametrize(TARGETS, V1, indirect=True, scope="session")
for_v2 = pytest.mark.parametrize(TARGETS, V2, indirect=True, scope="session")


@pytest.fixture(scope="session")
def conversation(converse: Callable[[str], Conversation]) -> Conversation:
    return converse("kserve_client.py")


@for_v1
def test_v1_model_is_ready(conversation: Conversation) -> None:
    assert conversation.result("model-ready") is True


@for_v1
@pytest.mark.parametrize("case", ["image", "array"])
def test_v1_prediction(conversation: Conversation, expected: dict[str, Any], case: str) -> None:
    [prediction] = conversation.result(case)
    assert_same_prediction(prediction, expected)


@for_v1
@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        ("no-image", 415, "match no supported image format"),
        ("no-instances", 400, "is not a list with at least one image"),
    ],
)
def test_v1_errors(conversation: Conversation, case: str, status: int, message: str) -> None:
    refusal = conversation.refusal(case)
    assert refusal.status == status
    assert message in refusal.message


@for_v2
@pytest.mark.parametrize("case", ["live", "ready", "model-ready"])
def test_health(conversation: Conversation, case: str) -> None:
    assert conversation.result(case) is True


@for_v2
def test_another_model_is_not_ready(conversation: Conversation, protocol: str) -> None:
    if protocol == "v2":
        assert conversation.result("other-model-ready") is False
    else:
        assert conversation.refusal("other-model-ready").status == "NOT_FOUND"


@for_v2
@pytest.mark.parametrize("case", ["image", "array", "json-array", "all-binary"])
def test_prediction(conversation: Conversation, expected: dict[str, Any], case: str) -> None:
    response = conversation.result(case)
    assert_same_tensors(response, expected)
    assert (response["id"], response["model_name"]) == ("order 42", "shapes")


@for_v2
def test_options_apply(conversation: Conversation, expected: dict[str, Any]) -> None:
    response = conversation.result("options")
    assert response["classes"] == expected["classes"][:1]
    assert "masks" not in response


@for_v2
@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        ("unknown-option", 400, "unknown option; the options are"),
        ("no-image", 415, "match no supported image format"),
    ],
)
def test_errors(
    conversation: Conversation, protocol: str, case: str, status: int, message: str
) -> None:
    refusal = conversation.refusal(case)
    assert refusal.status == (status if protocol == "v2" else "INVALID_ARGUMENT")
    assert message in refusal.message
