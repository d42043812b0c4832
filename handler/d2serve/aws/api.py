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

from d2serve.errors import CommandError

NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)
NO_REGION = "no AWS region is set; give one with REGION=, such as REGION=eu-central-1"
NOT_FOUND_CODES = ("404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "ResourceNotFoundException")
HINTS = {
    "AccessDenied": "this identity needs a policy that allows the call",
    "AccessDeniedException": "this identity needs a policy that allows the call",
    "403": "this identity may not use it, or it belongs to another account",
    "ExpiredToken": "log in again, such as with `aws sso login`",
    "ExpiredTokenException": "log in again, such as with `aws sso login`",
    "ResourceLimitExceeded": "ask for more in AWS's Service Quotas, or take another INSTANCE",
}


class AwsError(CommandError):
    """A call that AWS did not carry out; `code` is AWS's own, or empty if none came."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def not_found(self) -> bool:
        """Whether it is that the thing asked for does not exist."""
        missing = self.code == "ValidationException" and "Could not find" in str(self)
        return missing or self.code in NOT_FOUND_CODES


@contextmanager
def readable_errors(call: str) -> Iterator[None]:
    """Turn boto3's errors into AwsErrors that name `call`."""
    try:
        yield
    except NO_CREDENTIALS as error:
        raise AwsError(
            f"{call}: no AWS credentials ({error}); `aws configure` sets them, or AWS_PROFILE"
        ) from error
    except NoRegionError as error:
        raise AwsError(NO_REGION) from error
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        hint = f" ({HINTS[code]})" if code in HINTS else ""
        raise AwsError(f"{call}: {code}: {message}{hint}", code) from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise AwsError(f"{call}: {error}") from error


class Answer(str):
    """A parameter's value that the call before answers: `Answer("PolicyARN")` is its PolicyARN."""

    __slots__ = ()

    def __new__(cls, field: str) -> "Answer":
        """Shown as <field>."""
        return super().__new__(cls, f"<{field}>")

    @property
    def field(self) -> str:
        """The answer's key."""
        return self[1:-1]


@dataclass(frozen=True)
class Call:
    """One operation of one service under boto3's names, such as sagemaker.create_model.

    Of an s3.put_object, Body names the file to upload.

    Raises:
        CommandError: botocore's model of the service does not know such a request.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        shape = operation_model(self.service, self.operation).input_shape
        report = ParamValidator().validate(dict(self.parameters), shape)
        if report.has_errors():
            raise CommandError(f"AWS knows no such {self.name}: {report.generate_report()}")

    def __str__(self) -> str:
        return f"{self.name} {json.dumps(self.parameters, indent=2)}"

    @property
    def name(self) -> str:
        """Service and operation, such as sagemaker.create_model."""
        return f"{self.service}.{self.operation}"

    def bound(self, answer: Mapping[str, Any]) -> "Call":
        """This call with the fields of the answer to the call before in place of each Answer."""
        return replace(self, parameters=_bound(self.parameters, answer))


def operation_model(service: str, operation: str) -> OperationModel:
    """Botocore's description of an operation, given by boto3's name of it."""
    model = _service_model(service)
    names = {xform_name(name): name for name in model.operation_names}
    if operation not in names:
        raise CommandError(f"AWS knows no {service}.{operation}")
    return model.operation_model(names[operation])


def digest(parameters: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell these parameters from others."""
    text = json.dumps(parameters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _bound(node: Any, answer: Mapping[str, Any]) -> Any:
    if isinstance(node, Answer):
        return answer[node.field]
    if isinstance(node, Mapping):
        return {key: _bound(value, answer) for key, value in node.items()}
    return [_bound(value, answer) for value in node] if isinstance(node, list) else node
