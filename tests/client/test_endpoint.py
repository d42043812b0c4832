"""SageMaker endpoints of both kinds through the client's calls."""

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

from d2serve.client.sagemaker import AsyncEndpointTransport, EndpointTransport, endpoint_transport
from d2serve.client.sender import ATTEMPTS, Sender
from d2serve.client.transport import Payload
from d2serve.errors import AwsError, PredictionError, UnreachableError
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.bodies import npy_bytes
from tests.client.conftest import BUCKET, Connect, Session
from tests.client.runtime import Received, Response
from tests.environment import NO_ACCOUNT

ENDPOINTS = ["now", "later"]
ERROR_BODY = {"error": {"code": "bad_request", "message": "empty body", "hint": "send a image"}}
REJECTED = Response(400, json.dumps(ERROR_BODY).encode())


def succeed(_: Received) -> Response:
    return Response(body=b'{"labels": []}')


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_file_is_sent_with_its_type_and_options(
    connect: Connect, endpoint: str, tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"bytes")
    client, runtime = connect(endpoint, succeed)
    reply = client.predict(image, accept="application/jsonlines", masks="none", classes=[1])
    assert reply.json() == {"labels": []}
    assert reply.content_type == "application/json"
    [received] = runtime.received
    assert received.body == b"bytes"
    assert received.headers[
        "content-type" if endpoint == "now" else "x-amzn-sagemaker-content-type"
    ]
    assert json.loads(received.headers["x-amzn-sagemaker-custom-attributes"]) == {
        "masks": "none",
        "classes": [1],
    }
    assert "application/jsonlines" in received.headers.values()
    assert "image/png" in received.headers.values()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_array_is_sent_as_npy(connect: Connect, endpoint: str) -> None:
    client, runtime = connect(endpoint, succeed)
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    client.predict(array)
    [received] = runtime.received
    assert received.body == npy_bytes(array)
    assert "application/x-npy" in received.headers.values()
    assert "x-amzn-sagemaker-custom-attributes" not in received.headers


def test_target_model_is_sent(connect: Connect) -> None:
    client, runtime = connect("now", succeed, target_model="shapes.tar.gz")
    client.predict(b"bytes")
    assert runtime.received[0].headers["x-amzn-sagemaker-target-model"] == "shapes.tar.gz"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_error_keeps_its_message_and_is_not_retried(connect: Connect, endpoint: str) -> None:
    client, runtime = connect(endpoint, lambda _: REJECTED)
    with pytest.raises(PredictionError, match="empty body") as raised:
        client.predict(b"bytes")
    assert (raised.value.code, raised.value.hint) == ("bad_request", "send a image")
    # An asynchronous endpoint stores the body of a failure without its status.
    assert raised.value.status == (400 if endpoint == "now" else 0)
    assert len(runtime.received) == 1


def test_error_without_a_body_has_sagemakers_message(connect: Connect) -> None:
    client, _ = connect("now", lambda _: Response(418, b""))
    with pytest.raises(PredictionError, match=r"http_418: Received client error \(418\)"):
        client.predict(b"bytes")


BUSY = {
    "throttled": Response(400, b'{"message": "slow down"}', error_type="ThrottlingException"),
    "unavailable": Response(503, b'{"Message": "later"}', error_type="ServiceUnavailable"),
    "loading": Response(429, b'{"Message": "not yet"}', error_type="ModelNotReadyException"),
    "overloaded": Response(503, b'{"code": 503, "message": "queue is full"}'),
    "crashed": Response(500, b"Worker died."),
}


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())
def test_transient_error_is_retried(connect: Connect, busy: Response) -> None:
    responses = iter([busy, busy, Response()])
    client, runtime = connect("now", lambda _: next(responses))
    assert client.predict(b"bytes").json() == {}
    assert len(runtime.received) == 3


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())
def test_retries_end(connect: Connect, busy: Response) -> None:
    client, runtime = connect("now", lambda _: busy)
    with pytest.raises(PredictionError):
        client.predict(b"bytes")
    assert len(runtime.received) == ATTEMPTS


def test_missing_endpoint(aws: Session) -> None:
    with pytest.raises(AwsError, match="nowhere"):
        endpoint_transport("nowhere", aws)


def test_deleted_endpoint(connect: Connect) -> None:
    message = b'{"Message": "Endpoint now of account 123456789012 not found."}'
    deleted = Response(400, message, error_type="ValidationError")
    client, _ = connect("now", lambda _: deleted)
    with pytest.raises(UnreachableError, match="endpoint now does not exist"):
        client.predict(b"bytes")


def test_other_error_keeps_sagemakers_message(connect: Connect) -> None:
    message = b'{"Message": "Could not find variant with name now"}'
    client, runtime = connect("now", lambda _: Response(400, message, error_type="ValidationError"))
    with pytest.raises(PredictionError, match="ValidationError: Could not find variant") as raised:
        client.predict(b"bytes")
    assert raised.value.status == 400
    assert len(runtime.received) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_unreachable_runtime(aws: Session, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    url = f"http://127.0.0.1:{Ports.free().inference}"
    transport = endpoint_transport(endpoint, Session({"sagemaker-runtime": url}, aws.url))
    with Sender(transport) as client, pytest.raises(PredictionError, match=url) as failed:
        client.predict(b"bytes")
    assert failed.value.code == "no_answer"


def test_missing_bucket(connect: Connect, aws: Session) -> None:
    client, _ = connect("later", succeed)
    aws.client("s3").delete_bucket(Bucket=BUCKET)
    with pytest.raises(PredictionError, match="NoSuchBucket"):
        client.predict(b"bytes")


def test_asynchronous_request_deletes_its_image(connect: Connect, aws: Session) -> None:
    client, _ = connect("later", succeed)
    client.send(Payload(b"bytes"))
    stored = aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"].rpartition(".")[2] for item in stored] == ["out"]


def test_asynchronous_requests_have_separate_locations(connect: Connect) -> None:
    client, runtime = connect("later", succeed)
    for image in (b"one", b"two"):
        client.predict(image)
    locations = {
        received.headers["x-amzn-sagemaker-inputlocation"] for received in runtime.received
    }
    assert len(locations) == 2


class LateS3:
    """Stores responses only when `store` is called."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._responses: list[dict[str, Any]] = []
        self.get_object = s3.get_object

    def put_object(self, **response: Any) -> None:
        self._responses.append(response)

    def store(self, _: float = 0) -> None:
        """Store the responses; replaces the sleep between two polls."""
        for response in self._responses:
            self._s3.put_object(**response)


def test_late_response_is_polled(connect: Connect, aws: Session) -> None:
    _, runtime = connect("later", succeed)
    runtime.s3 = late = LateS3(aws.client("s3"))
    session = Session({"sagemaker-runtime": runtime.url}, aws.url)
    near = f"s3://{BUCKET}/out"
    with Sender(AsyncEndpointTransport("later", session, near=near, sleep=late.store)) as client:
        assert client.predict(b"bytes").json() == {"labels": []}


def test_timeout(connect: Connect, aws: Session) -> None:
    client, runtime = connect("later", succeed, timeout_s=0)
    runtime.s3 = LateS3(aws.client("s3"))
    with pytest.raises(PredictionError, match="no response at s3://"):
        client.predict(b"bytes")
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET)


def test_failure_that_is_not_stored_times_out(connect: Connect) -> None:
    client, runtime = connect("later", lambda _: REJECTED, timeout_s=0)
    runtime.stores_failures = False
    with pytest.raises(PredictionError, match="no response at s3://"):
        client.predict(b"bytes")


def test_unreadable_response_is_not_polled(connect: Connect, aws: Session) -> None:
    def deny(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        body = BytesIO(b"<Error><Code>AccessDenied</Code></Error>")
        return AWSResponse(request.url, 403, {}, HTTPResponse(body, preload_content=False))

    _, runtime = connect("later", succeed)
    session = Session({"sagemaker-runtime": runtime.url}, aws.url)
    session.events.register("before-send.s3.GetObject", deny)
    transport = endpoint_transport("later", session, timeout_s=0)
    with Sender(transport) as client, pytest.raises(PredictionError, match="AccessDenied"):
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
def test_missing_region(
    connect: Callable[[str, boto3.Session], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in NO_ACCOUNT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AwsError, match="no AWS region is set"):
        connect("now", boto3.Session())
