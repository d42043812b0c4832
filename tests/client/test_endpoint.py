"""SageMaker endpoints of both kinds, by the calls that a local server takes too."""

import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

from d2serve.aws.api import AwsError
from d2serve.client.client import ATTEMPTS, Client
from d2serve.client.sagemaker import AsyncEndpointTransport, EndpointTransport, endpoint_transport
from d2serve.client.transport import Payload, PredictionError, UnreachableError
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.bodies import npy_bytes
from tests.client.conftest import BUCKET, Invoke, Session
from tests.client.runtime import Answered, Asked
from tests.environment import NO_ACCOUNT

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


def test_a_refusal_without_words_is_told_in_sagemakers(invoke: Invoke) -> None:
    client, _ = invoke("now", lambda _: Answered(418, b""))
    with pytest.raises(PredictionError, match=r"http_418: Received client error \(418\)"):
        client.predict(b"bytes")


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
    said = b'{"Message": "Endpoint now of account 123456789012 not found."}'
    gone = Answered(400, said, refused_as="ValidationError")
    client, _ = invoke("now", lambda _: gone)
    with pytest.raises(UnreachableError, match="there is no endpoint now"):
        client.predict(b"bytes")


def test_another_mistake_is_told_in_sagemakers_words(invoke: Invoke) -> None:
    said = b'{"Message": "Could not find variant with name now"}'
    client, runtime = invoke("now", lambda _: Answered(400, said, refused_as="ValidationError"))
    with pytest.raises(PredictionError, match="ValidationError: Could not find variant") as refused:
        client.predict(b"bytes")
    assert refused.value.status == 400
    assert len(runtime.asked) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_runtime_that_does_not_answer_is_an_error(
    aws: Session, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = f"http://127.0.0.1:{Ports.free().inference}"
    transport = endpoint_transport(endpoint, Session({"sagemaker-runtime": nobody}, aws.url))
    with Client(transport) as client, pytest.raises(PredictionError, match=nobody) as failed:
        client.predict(b"bytes")
    assert failed.value.code == "no_answer"


def test_a_bucket_that_is_gone_is_an_error(invoke: Invoke, aws: Session) -> None:
    client, _ = invoke("later", ok)
    aws.client("s3").delete_bucket(Bucket=BUCKET)
    with pytest.raises(PredictionError, match="NoSuchBucket"):
        client.predict(b"bytes")


def test_an_asynchronous_request_leaves_no_picture_behind(invoke: Invoke, aws: Session) -> None:
    client, _ = invoke("later", ok)
    client.send(Payload(b"bytes"))
    kept = aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"].rpartition(".")[2] for item in kept] == ["out"]


def test_asynchronous_requests_do_not_share_a_place(invoke: Invoke) -> None:
    client, runtime = invoke("later", ok)
    for picture in (b"one", b"two"):
        client.predict(picture)
    places = {asked.headers["x-amzn-sagemaker-inputlocation"] for asked in runtime.asked}
    assert len(places) == 2


class LateS3:
    """Keeps an answer only when it is told to."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._answers: list[dict[str, Any]] = []
        self.get_object = s3.get_object

    def put_object(self, **answer: Any) -> None:
        self._answers.append(answer)

    def keep(self, _: float = 0) -> None:
        """May be the sleep of a client that waits."""
        for answer in self._answers:
            self._s3.put_object(**answer)


def test_an_answer_that_comes_late_is_waited_for(invoke: Invoke, aws: Session) -> None:
    _, runtime = invoke("later", ok)
    runtime.s3 = late = LateS3(aws.client("s3"))
    session = Session({"sagemaker-runtime": runtime.url}, aws.url)
    near = f"s3://{BUCKET}/out"
    with Client(AsyncEndpointTransport("later", session, near=near, sleep=late.keep)) as client:
        assert client.predict(b"bytes").json() == {"labels": []}


def test_no_answer_in_time_is_an_error(invoke: Invoke, aws: Session) -> None:
    client, runtime = invoke("later", ok, timeout_s=0)
    runtime.s3 = LateS3(aws.client("s3"))
    with pytest.raises(PredictionError, match="nothing at s3://"):
        client.predict(b"bytes")
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET)


def test_a_failure_that_is_not_kept_is_no_answer_in_time(invoke: Invoke) -> None:
    client, runtime = invoke("later", lambda _: REFUSED, timeout_s=0)
    runtime.keeps_failures = False
    with pytest.raises(PredictionError, match="nothing at s3://"):
        client.predict(b"bytes")


def test_an_answer_that_may_not_be_read_is_not_waited_for(invoke: Invoke, aws: Session) -> None:
    def deny(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        body = BytesIO(b"<Error><Code>AccessDenied</Code></Error>")
        return AWSResponse(request.url, 403, {}, HTTPResponse(body, preload_content=False))

    _, runtime = invoke("later", ok)
    session = Session({"sagemaker-runtime": runtime.url}, aws.url)
    session.events.register("before-send.s3.GetObject", deny)
    transport = endpoint_transport("later", session, timeout_s=0)
    with Client(transport) as client, pytest.raises(PredictionError, match="AccessDenied"):
        client.predict(b"bytes")


@pytest.mark.parametrize(
    "connect",
    [
        endpoint_transport,
        EndpointTransport,
        partial(AsyncEndpointTransport, near=f"s3://{BUCKET}/out"),
    ],
    ids=["either", "now", "later"],
)
def test_a_missing_region_is_named(
    connect: Callable[[str, boto3.Session], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in NO_ACCOUNT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AwsError, match="no AWS region is set"):
        connect("now", boto3.Session())
