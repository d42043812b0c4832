"""AWS API calls as data, and readable errors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

from d2serve.errors import AwsError, CommandError

NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)
NO_REGION = "no AWS region is set; set one with --region, such as --region eu-central-1"
HINTS = {
    "AccessDenied": "this identity needs a policy that allows the call",
    "AccessDeniedException": "this identity needs a policy that allows the call",
    "403": "this identity has no access, or the bucket belongs to another account",
    "ExpiredToken": "log in again, for example with `aws sso login`",
    "ExpiredTokenException": "log in again, for example with `aws sso login`",
    "ResourceLimitExceeded": "request a higher limit in Service Quotas, or use another --instance",
}


@contextmanager
def readable_errors(call: str) -> Iterator[None]:
    """Convert boto3's errors to AwsErrors that name `call`."""
    try:
        yield
    except NO_CREDENTIALS as error:
        raise AwsError(
            f"{call}: no AWS credentials ({error}); set them with `aws configure` or AWS_PROFILE"
        ) from error
    except NoRegionError as error:
        raise AwsError(NO_REGION) from error
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        hint = f" ({HINTS[code]})" if code in HINTS else ""
        raise AwsError(f"{call}: {code}: {message}{hint}", code) from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise AwsError(f"{call}: {error}") from error


class ResponseField(str):
    """Placeholder for a field of the previous call's response.

    `ResponseField("PolicyARN")` is displayed as <PolicyARN>, and `Call.resolve` replaces it.
    """

    __slots__ = ()

    def __new__(cls, field: str) -> "ResponseField":
        """Create a placeholder."""
        return super().__new__(cls, f"<{field}>")

    @property
    def field(self) -> str:
        """Key in the response."""
        return self[1:-1]


@dataclass(frozen=True)
class Call:
    """One API operation under boto3's names, such as sagemaker.create_model.

    The Body of an s3.put_object is the path of the file to upload.

    Raises:
        CommandError: the request does not match botocore's description of the operation.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        shape = operation_model(self.service, self.operation).input_shape
        report = ParamValidator().validate(dict(self.parameters), shape)
        if report.has_errors():
            raise CommandError(f"invalid request {self.name}: {report.generate_report()}")

    def __str__(self) -> str:
        return f"{self.name} {json.dumps(self.parameters, indent=2)}"

    @property
    def name(self) -> str:
        """Service and operation, such as sagemaker.create_model."""
        return f"{self.service}.{self.operation}"

    def resolve(self, response: Mapping[str, Any]) -> "Call":
        """Replace every ResponseField by its value in the previous call's response."""
        return replace(self, parameters=_resolve(self.parameters, response))


def operation_model(service: str, operation: str) -> OperationModel:
    """Return botocore's description of an operation under boto3's name."""
    model = _service_model(service)
    names = {xform_name(name): name for name in model.operation_names}
    if operation not in names:
        raise CommandError(f"AWS has no operation {service}.{operation}")
    return model.operation_model(names[operation])


def digest(parameters: Mapping[str, Any]) -> str:
    """Return twelve hex digits that identify the parameters."""
    text = json.dumps(parameters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _resolve(node: Any, response: Mapping[str, Any]) -> Any:
    if isinstance(node, ResponseField):
        return response[node.field]
    if isinstance(node, Mapping):
        return {key: _resolve(value, response) for key, value in node.items()}
    return [_resolve(value, response) for value in node] if isinstance(node, list) else node
