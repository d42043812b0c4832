"""A SageMaker endpoint: real-time, serverless, multi-model or asynchronous."""

import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from d2serve.aws.api import NOT_FOUND_CODES, readable_errors
from d2serve.client.transport import (
    Payload,
    PredictionError,
    Reply,
    Transport,
    UnreachableError,
    refusal,
)

# One try: the client above tries again, and knows what may pass.
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=70)
# Comes with a 400; SageMaker's other ways to be busy are 429 and 503.
THROTTLED = "ThrottlingException"


class EndpointTransport:
    """Invokes one endpoint.

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
        """See Transport."""
        try:
            answer = self._runtime.invoke_endpoint(
                EndpointName=self.name, Body=payload.body, **described(payload), **self._target
            )
            return Reply(answer["Body"].read(), answer["ContentType"])
        except ClientError as error:
            raise read_error(error, self.name) from error
        except BotoCoreError as error:
            raise PredictionError(0, "no_answer", f"{self.name}: {error}") from error

    def close(self) -> None:
        """See Transport."""
        self._runtime.close()


def read_error(error: ClientError, name: str) -> Exception:
    """What SageMaker says, as the error that the container gave where it gave one."""
    response: dict[str, Any] = error.response
    code, message = response["Error"]["Code"], response["Error"].get("Message", "")
    if code == "ModelError":
        status = int(response.get("OriginalStatusCode", 500))
        text = response.get("OriginalMessage", message)
        return refusal(status, text, message, may_pass=status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # Endpoint NAME of account ACCOUNT not found.
    if code == "ValidationError" and "not found" in message:
        return UnreachableError(f"there is no endpoint {name}: {message}")
    return PredictionError(status, code, message, may_pass=code == THROTTLED)


def described(payload: Payload) -> dict[str, str]:
    """The parameters that tell SageMaker of a body."""
    parameters = {"ContentType": payload.content_type, "Accept": payload.accept}
    if payload.options:
        parameters["CustomAttributes"] = payload.custom_attributes
    return parameters


FOLDER = "d2serve-input"


class AsyncEndpointTransport:
    """Invokes one asynchronous endpoint and waits for its answer.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        near: the s3:// address whose bucket takes the pictures, which are removed after.
        timeout_s: how long to wait for an answer; the endpoint may have to start first.
        sleep: waits for so many seconds.
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
        self._waiting = Retrying(
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
        """See Transport."""
        key = f"{FOLDER}/{self.name}/{uuid.uuid4()}"
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=payload.body)
            try:
                return self._invoke(payload, f"s3://{self._bucket}/{key}")
            finally:
                self._s3.delete_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            raise read_error(error, self.name) from error
        except BotoCoreError as error:
            raise PredictionError(0, "no_answer", f"{self.name}: {error}") from error

    def close(self) -> None:
        """See Transport."""
        self._runtime.close()
        self._s3.close()

    def _invoke(self, payload: Payload, location: str) -> Reply:
        asked = self._runtime.invoke_endpoint_async(
            EndpointName=self.name, InputLocation=location, **described(payload)
        )
        try:
            reply = self._waiting(self._look, asked)
        except RetryError:
            raise PredictionError(
                0,
                "no_answer",
                f"{self.name}: nothing at {asked['OutputLocation']} after {self._timeout_s:g} s",
            ) from None
        assert reply
        return reply

    def _look(self, asked: dict[str, Any]) -> Reply | None:
        if answer := self._read(asked["OutputLocation"]):
            return answer
        failure = self._read(asked["FailureLocation"]) if asked.get("FailureLocation") else None
        if failure:
            raise refusal(0, failure.content.decode(errors="replace"))
        return None

    def _read(self, location: str) -> Reply | None:
        """What lies at an s3:// address; None while nothing does."""
        parts = urlsplit(location)
        try:
            found = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        except ClientError as error:
            if error.response["Error"]["Code"] in NOT_FOUND_CODES:
                return None
            raise
        return Reply(found["Body"].read(), found.get("ContentType", ""))


def endpoint_transport(
    name: str,
    session: boto3.Session,
    *,
    target_model: str | None = None,
    timeout_s: float = 900,
) -> Transport:
    """The way to an endpoint: an asynchronous one takes its pictures from S3.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        target_model: NAME.tar.gz of a multi-model endpoint.
        timeout_s: how long to wait for an asynchronous answer.

    Raises:
        AwsError: there is no such endpoint, or AWS cannot be asked.
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
