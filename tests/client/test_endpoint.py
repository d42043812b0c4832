"""SageMaker endpoints of both kinds, by the calls that a local server takes too."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.aws.errors import AwsError
from scripts.client import Payload, PredictionError, UnreachableError, endpoint_transport
from scripts.client.client import ATTEMPTS
from tests.bodies import npy_bytes
from tests.client.conftest import BUCKET, Invoke, Session
from tests.client.runtime import Answered, Asked

ENDPOINTS = ["now", "later"]
REFUSAL = {"error": {"code": "bad_request", "message": "empty body", "hint": "send a picture"}}
REFUSED = Answered(400, json.dumps(REFUSAL).encode())


def ok(_: Asked) -> Answered:
    return Answered(body=b'{"labels": []}')


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_file_is_sent_with_its_type_and_options(
    invoke: Invoke, endpoint: str, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"bytes")
    client, runtime = invoke(endpoint, ok)
    reply = client.predict(picture, accept="application/jsonlines", masks="none", classes=[1])
    assert reply.json() == {"labels": []}
    assert reply.content_type == "application/json"
    [asked] = runtime.asked
    assert asked.body == b"bytes"
    assert asked.headers["content-type" if endpoint == "now" else "x-amzn-sagemaker-content-type"]
    assert json.loads(asked.headers["x-amzn-sagemaker-custom-attributes"]) == {
        "masks": "none",
        "classes": [1],
    }
    assert "application/jsonlines" in asked.headers.values()
    assert "image/png" in asked.headers.values()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_array_is_sent_as_npy(invoke: Invoke, endpoint: str) -> None:
    client, runtime = invoke(endpoint, ok)
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    client.predict(array)
    [asked] = runtime.asked
    assert asked.body == npy_bytes(array)
    assert "application/x-npy" in asked.headers.values()
    assert "x-amzn-sagemaker-custom-attributes" not in asked.headers


def test_a_model_of_many_is_named(invoke: Invoke) -> None:
    client, runtime = invoke("now", ok, target_model="shapes.tar.gz")
    client.predict(b"bytes")
    assert runtime.asked[0].headers["x-amzn-sagemaker-target-model"] == "shapes.tar.gz"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_refusal_keeps_its_words_and_is_not_repeated(invoke: Invoke, endpoint: str) -> None:
    client, runtime = invoke(endpoint, lambda _: REFUSED)
    with pytest.raises(PredictionError, match="empty body") as refused:
        client.predict(b"bytes")
    assert (refused.value.code, refused.value.hint) == ("bad_request", "send a picture")
    # An asynchronous endpoint keeps the body of a failure, and not its status.
    assert refused.value.status == (400 if endpoint == "now" else 0)
    assert len(runtime.asked) == 1


BUSY = {
    "throttled": Answered(400, b'{"message": "slow down"}', refused_as="ThrottlingException"),
    "unavailable": Answered(503, b'{"Message": "later"}', refused_as="ServiceUnavailable"),
    "loading": Answered(429, b'{"Message": "not yet"}', refused_as="ModelNotReadyException"),
    "overloaded": Answered(503, b'{"code": 503, "message": "queue is full"}'),
    "crashed": Answered(500, b"Worker died."),
}


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())
def test_what_may_pass_is_asked_again(invoke: Invoke, busy: Answered) -> None:
    answers = iter([busy, busy, Answered()])
    client, runtime = invoke("now", lambda _: next(answers))
    assert client.predict(b"bytes").json() == {}
    assert len(runtime.asked) == 3


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())
def test_what_does_not_pass_is_given_up(invoke: Invoke, busy: Answered) -> None:
    client, runtime = invoke("now", lambda _: busy)
    with pytest.raises(PredictionError):
        client.predict(b"bytes")
    assert len(runtime.asked) == ATTEMPTS


def test_an_endpoint_that_is_not_there_is_named(aws: Session) -> None:
    with pytest.raises(AwsError, match="nowhere"):
        endpoint_transport("nowhere", aws)


def test_an_endpoint_that_is_gone_is_named(invoke: Invoke) -> None:
    gone = Answered(
        400, b'{"Message": "Could not find endpoint now"}', refused_as="ValidationError"
    )
    client, _ = invoke("now", lambda _: gone)
    with pytest.raises(UnreachableError, match="there is no endpoint now"):
        client.predict(b"bytes")


def test_an_asynchronous_request_leaves_no_picture_behind(invoke: Invoke, aws: Session) -> None:
    client, _ = invoke("later", ok)
    client.send(Payload(b"bytes"))
    kept = aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"].rpartition(".")[2] for item in kept] == ["out"]


def test_no_answer_in_time_is_an_error(invoke: Invoke, aws: Session) -> None:
    class Forgetful:
        """Keeps nothing."""

        def __init__(self) -> None:
            self.get_object = aws.client("s3").get_object

        def put_object(self, **_: object) -> None:
            return

    client, runtime = invoke("later", ok, timeout_s=0)
    runtime.s3 = Forgetful()
    with pytest.raises(PredictionError, match="nothing at s3://"):
        client.predict(b"bytes")
