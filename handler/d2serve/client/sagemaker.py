"""Transports to a SageMaker endpoint: real-time, serverless, multi-model or asynchronous."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from d2serve.aws.api import readable_errors
from d2serve.client.transport import Payload, Reply, Transport, error_from_body
from d2serve.errors import NOT_FOUND_CODES, PredictionError, UnreachableError

# One attempt: Client retries, and recognizes transient errors.
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=70)
# Comes with status 400; SageMaker reports other overloads with 429 and 503.
THROTTLED = "ThrottlingException"
INPUT_PREFIX = "d2serve-input"


def endpoint_transport(
    name: str,
    session: boto3.Session,
    *,
    target_model: str | None = None,
    timeout_s: float = 900,
) -> Transport:
    """Return the transport for an endpoint: an asynchronous one reads its images from S3.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        target_model: NAME.tar.gz of a multi-model endpoint.
        timeout_s: seconds to wait for an asynchronous response.

    Raises:
        AwsError: the endpoint does not exist, or AWS cannot be reached.
    """
    with readable_errors("sagemaker.describe_endpoint"):
        sagemaker = session.client("sagemaker")
        config = sagemaker.describe_endpoint_config(
            EndpointConfigName=sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        )
    if asynchronous := config.get("AsyncInferenceConfig"):
        output = asynchronous["OutputConfig"]["S3OutputPath"]
        return AsyncEndpointTransport(name, session, near=output, timeout_s=timeout_s)
    return EndpointTransport(name, session, target_model=target_model)


class EndpointTransport:
    """Invokes a real-time, serverless or multi-model endpoint.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        target_model: NAME.tar.gz of a multi-model endpoint.
    """

    def __init__(
        self,
        name: str,
        session: boto3.Session,
        *,
        target_model: str | None = None,
    ) -> None:
        self.name = name
        self._target = {"TargetModel": target_model} if target_model else {}
        with readable_errors("sagemaker-runtime"):
            self._runtime = session.client("sagemaker-runtime", config=CONFIG)

    def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        with _prediction_errors(self.name):
            response = self._runtime.invoke_endpoint(
                EndpointName=self.name, Body=payload.body, **_parameters(payload), **self._target
            )
            return Reply(response["Body"].read(), response["ContentType"])

    def close(self) -> None:
        """Close all connections."""
        self._runtime.close()


class AsyncEndpointTransport:
    """Invokes an asynchronous endpoint and polls S3 for the response.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        near: s3:// URL in the bucket for the images, which are deleted afterwards.
        timeout_s: seconds to wait for a response; the endpoint may have to start first.
        sleep: called with the seconds to pause between polls.
    """

    def __init__(
        self,
        name: str,
        session: boto3.Session,
        *,
        near: str,
        timeout_s: float = 900,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._bucket = urlsplit(near).netloc
        self._polling = Retrying(
            stop=stop_after_delay(timeout_s),
            wait=wait_exponential(multiplier=0.25, max=10),
            retry=retry_if_result(lambda reply: reply is None),
            sleep=sleep,
        )
        self._timeout_s = timeout_s
        with readable_errors("sagemaker-runtime"):
            self._runtime = session.client("sagemaker-runtime")
            self._s3 = session.client("s3")

    def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        key = f"{INPUT_PREFIX}/{self.name}/{uuid.uuid4()}"
        with _prediction_errors(self.name):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=payload.body)
            try:
                return self._invoke(payload, f"s3://{self._bucket}/{key}")
            finally:
                self._s3.delete_object(Bucket=self._bucket, Key=key)

    def close(self) -> None:
        """Close all connections."""
        self._runtime.close()
        self._s3.close()

    def _invoke(self, payload: Payload, location: str) -> Reply:
        locations = self._runtime.invoke_endpoint_async(
            EndpointName=self.name, InputLocation=location, **_parameters(payload)
        )
        try:
            reply = self._polling(self._poll, locations)
        except RetryError:
            output = locations["OutputLocation"]
            raise PredictionError(
                0,
                "no_answer",
                f"{self.name}: no response at {output} within {self._timeout_s:g} s",
            ) from None
        assert reply
        return reply

    def _poll(self, locations: dict[str, Any]) -> Reply | None:
        if reply := self._read(locations["OutputLocation"]):
            return reply
        # Absent for an endpoint without a path for failures.
        failure_location = locations.get("FailureLocation")
        if failure_location and (failure := self._read(failure_location)):
            raise error_from_body(0, failure.content.decode(errors="replace"))
        return None

    def _read(self, location: str) -> Reply | None:
        """Read an s3:// URL; None while the object does not exist."""
        parts = urlsplit(location)
        try:
            stored = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        except ClientError as error:
            if error.response["Error"]["Code"] in NOT_FOUND_CODES:
                return None
            raise
        return Reply(stored["Body"].read(), stored.get("ContentType", ""))


def _parameters(payload: Payload) -> dict[str, str]:
    """Return the parameters of an invocation that describe its body."""
    parameters = {"ContentType": payload.content_type, "Accept": payload.accept}
    if payload.options:
        parameters["CustomAttributes"] = payload.custom_attributes
    return parameters


@contextmanager
def _prediction_errors(name: str) -> Iterator[None]:
    """Convert boto3's errors of an invocation of the endpoint `name`."""
    try:
        yield
    except ClientError as error:
        raise _convert(error, name) from error
    except BotoCoreError as error:
        raise PredictionError(0, "no_answer", f"{name}: {error}") from error


def _convert(error: ClientError, name: str) -> Exception:
    """Return the container's error where SageMaker forwards one, else SageMaker's own."""
    response: dict[str, Any] = error.response
    code, message = response["Error"]["Code"], response["Error"].get("Message", "")
    if code == "ModelError":
        status = int(response.get("OriginalStatusCode", 500))
        text = response.get("OriginalMessage", message)
        is_transient = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return error_from_body(status, text, message, is_transient=is_transient)
    # "Endpoint NAME of account ACCOUNT not found."
    if code == "ValidationError" and "not found" in message:
        return UnreachableError(f"endpoint {name} does not exist: {message}")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return PredictionError(status, code, message, is_transient=code == THROTTLED)
