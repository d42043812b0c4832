"""Every request is one that AWS's own description of the service knows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore import xform_name
from botocore.model import Shape

from d2serve.aws import deploy, transform, undeploy
from d2serve.aws.api import Answer, Call, digest, operation_model
from d2serve.errors import CommandError
from tests.aws import test_transform
from tests.aws.conftest import WritePackage
from tests.aws.test_deploy import CASES, arguments
from tests.aws.world import World


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
        ("sagemaker", "create_nonsense", {}, "AWS knows no sagemaker.create_nonsense"),
        (
            "sagemaker",
            "create_model",
            {"ModelName": "a", "PrimaryContainer": {"Picture": "b"}},
            'Unknown parameter in PrimaryContainer.*"Picture"',
        ),
    ],
)
def test_an_invented_request_is_refused(
    service: str, operation: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        Call(service, operation, parameters)


def test_a_call_shows_itself() -> None:
    call = Call("sagemaker", "delete_model", {"ModelName": "a"})
    assert str(call) == 'sagemaker.delete_model {\n  "ModelName": "a"\n}'


def test_an_answer_is_put_in_where_it_belongs() -> None:
    parameters = {"AlarmNames": [Answer("PolicyARN"), "<PolicyARN>"]}
    call = Call("cloudwatch", "delete_alarms", parameters)
    assert '"<PolicyARN>"' in str(call)
    bound = call.bound({"PolicyARN": "arn:x"})
    assert bound.parameters == {"AlarmNames": ["arn:x", "<PolicyARN>"]}


def test_a_digest_tells_requests_apart() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert re.fullmatch(r"[0-9a-f]{12}", digest({}))


@pytest.mark.parametrize("case", CASES)
def test_patterns_and_enumerations_hold(case: str, world: World, package: WritePackage) -> None:
    """Botocore leaves these to AWS; the tests do not."""
    options = CASES[case][0]
    world.run(deploy.main, *arguments(package(), *options))
    world.run(deploy.main, *arguments(package("shapes2", "better"), *options))
    world.run(undeploy.main, "--endpoint", "shop")
    world.run(transform.main, *test_transform.arguments(package()))
    for name, parameters in world.requests:
        service, _, operation = name.partition(".")
        shape = operation_model(service, xform_name(operation)).input_shape
        assert list(_violations(shape, parameters)) == [], name


def test_violations_are_seen() -> None:
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
    """Java's properties of characters and pairs of surrogates mean nothing to Python."""
    pairs = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    spaces = pairs.replace(r"\p{Print}", "[ -~]").replace(r"\p{Z}", r"\s")
    return re.sub(r"\\p\{[A-Z]\w*\}", r"\\w", spaces)
