"""A SageMaker endpoint: real time, serverless or multi-model."""

from http import HTTPStatus
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws.errors import readable_errors
from scripts.client.errors import PredictionError, UnreachableError, refusal
from scripts.client.messages import Payload, Reply

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
