"""Requests match AWS's descriptions of its services."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore import xform_name
from botocore.model import Shape

from d2serve.aws.api import Call, ResponseField, digest, operation_model
from d2serve.errors import CommandError
from tests.aws import test_transform
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import FakeAws
from tests.aws.test_deploy import CASES, arguments


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "message"),
    [
        (
            "sagemaker",
            "delete_model",
            {"ModelName": "a", "Force": True},
            'Unknown parameter.*"Force"',
        ),
        ("sagemaker", "delete_model", {}, 'Missing required parameter.*"ModelName"'),
        ("sagemaker", "delete_model", {"ModelName": 1}, "Invalid type.*ModelName"),
        ("sagemaker", "create_nonsense", {}, "AWS has no operation sagemaker.create_nonsense"),
        (
            "sagemaker",
            "create_model",
            {"ModelName": "a", "PrimaryContainer": {"Photo": "b"}},
            'Unknown parameter in PrimaryContainer.*"Photo"',
        ),
    ],
)
def test_invalid_request_is_rejected(
    service: str, operation: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        Call(service, operation, parameters)


def test_call_as_text() -> None:
    call = Call("sagemaker", "delete_model", {"ModelName": "a"})
    assert str(call) == 'sagemaker.delete_model {\n  "ModelName": "a"\n}'


def test_response_field_is_resolved() -> None:
    parameters = {"AlarmNames": [ResponseField("PolicyARN"), "<PolicyARN>"]}
    call = Call("cloudwatch", "delete_alarms", parameters)
    assert '"<PolicyARN>"' in str(call)
    resolved = call.resolve({"PolicyARN": "arn:x"})
    assert resolved.parameters == {"AlarmNames": ["arn:x", "<PolicyARN>"]}


def test_digest_identifies_parameters() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert re.fullmatch(r"[0-9a-f]{12}", digest({}))


@pytest.mark.parametrize("case", CASES)
def test_requests_match_patterns_and_enumerations(
    case: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    """Botocore does not check these before it sends a request."""
    options = CASES[case][0]
    fake_aws.run("deploy", *arguments(package(), *options))
    fake_aws.run("deploy", *arguments(package("shapes2", "better"), *options))
    fake_aws.run("undeploy", "--endpoint", "shop")
    fake_aws.run("transform", *test_transform.arguments(package()))
    for name, parameters in fake_aws.requests:
        service, _, operation = name.partition(".")
        shape = operation_model(service, xform_name(operation)).input_shape
        assert list(_violations(shape, parameters)) == [], name


def test_violations_are_found() -> None:
    shape = operation_model("sagemaker", "create_endpoint").input_shape
    parameters = {
        "EndpointName": "a_b",
        "EndpointConfigName": "a",
        "Tags": [{"Key": "%", "Value": ""}],
    }
    assert [path for path, _ in _violations(shape, parameters)] == ["EndpointName", "Tags.Key"]
    shape = operation_model("sagemaker", "create_endpoint_config").input_shape
    parameters = {"ProductionVariants": [{"InstanceType": "ml.m5.enormous"}]}
    assert [p for p, _ in _violations(shape, parameters)] == ["ProductionVariants.InstanceType"]


def _violations(shape: Shape, value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            member = shape.members[key] if shape.type_name == "structure" else shape.value
            yield from _violations(member, inner, f"{path}.{key}".strip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _violations(shape.member, inner, path)
    elif isinstance(value, str):
        pattern, allowed = shape.metadata.get("pattern", ".*"), getattr(shape, "enum", None)
        if not re.fullmatch(_in_python(pattern), value) or (allowed and value not in allowed):
            yield path, value


def _in_python(pattern: str) -> str:
    """Translate Java's character properties and surrogate pairs, which Python does not support."""
    pairs = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    spaces = pairs.replace(r"\p{Print}", "[ -~]").replace(r"\p{Z}", r"\s")
    return re.sub(r"\\p\{[A-Z]\w*\}", r"\\w", spaces)
