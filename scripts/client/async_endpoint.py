"""An asynchronous SageMaker endpoint: the picture goes to S3, and the answer is found there."""

import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from scripts.aws.errors import NOT_FOUND_CODES, readable_errors
from scripts.client.endpoint import described, read_error
from scripts.client.errors import PredictionError, refusal
from scripts.client.messages import Payload, Reply

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
