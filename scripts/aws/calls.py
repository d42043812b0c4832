"""A call of AWS as data: checked when it is made up, then shown or carried out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

from scripts.errors import CommandError


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
