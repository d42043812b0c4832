from pathlib import Path
from typing import Any

import pytest

from d2serve.aws.deployment import OPTIONS, Deployment
from d2serve.building.package import Container, Package
from d2serve.errors import CommandError

PACKAGE = Package(Path("shapes.tar.gz"), "shapes", "0" * 64, 10, Container.PYTORCH)


def deployment(**options: Any) -> Deployment:
    return Deployment(**{"package": PACKAGE, "endpoint": "shop", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": ""}, "--endpoint ''"),
        ({"endpoint": "a_b"}, "--endpoint 'a_b'"),
        ({"endpoint": "-a"}, "--endpoint '-a'"),
        ({"endpoint": "a" * 64}, "up to 63"),
        ({"mode": "batch"}, "--mode 'batch' is not valid: use realtime, serverless, async, mme"),
        ({"memory_mb": 1024}, "--mode realtime does not accept --memory-mb; use --mode serverless"),
        (
            {"mode": "serverless", "instance": "ml.m5.large"},
            "accept --instance; use --mode realtime or",
        ),
        (
            {"mode": "serverless", "subnets": ("a",), "security_groups": ("b",)},
            "accept --security",
        ),
        ({"mode": "serverless", "network_isolation": True}, "does not accept --network-isolation"),
        (
            {"mode": "serverless", "data_capture": 5},
            "accept --data-capture; use --mode realtime",
        ),
        ({"mode": "serverless", "kms_key": "k"}, "does not accept --kms-key"),
        ({"mode": "serverless", "min_instances": 0}, "does not accept --min-instances"),
        ({"mode": "serverless", "max_instances": 2}, "does not accept --max-instances"),
        (
            {"mode": "serverless", "memory_mb": 1000},
            "--memory-mb 1000 .* use 1024, 2048",
        ),
        ({"mode": "serverless", "max_concurrency": 0}, "--max-concurrency 0 .* from 1 to 200"),
        ({"mode": "serverless", "max_concurrency": 201}, "--max-concurrency 201"),
        ({"mode": "mme", "data_capture": 5}, "--mode mme does not accept --data-capture"),
        ({"mode": "async", "data_capture": 5}, "--mode async does not accept --data-capture"),
        ({"output": "s3://a/b"}, "--mode realtime does not accept --output; use --mode async"),
        ({"data_capture": 0}, "--data-capture 0 .* from 1 to 100"),
        ({"data_capture": 101}, "--data-capture 101"),
        ({"subnets": ("a",)}, "both --subnets and --security-groups"),
        ({"security_groups": ("a",)}, "both --subnets and --security-groups"),
        ({"instances": 0}, "--instances 0 is out of range: use a number from 1"),
        ({"min_instances": 1}, "--min-instances requires --max-instances"),
        ({"target_invocations": 5}, "--target-invocations requires --max-instances"),
        ({"max_instances": 2, "target_invocations": 0}, "--target-invocations 0 .* above 0"),
        ({"max_instances": 2, "min_instances": 0}, "--min-instances 0 requires --mode async"),
        ({"max_instances": 2, "instances": 3}, "--instances 3 is out of range"),
        ({"max_instances": 4, "min_instances": 2}, "--instances 1 is out of range"),
        ({"mode": "async", "max_instances": 0}, "--instances 1 is out of range"),
        ({"instance": "ml.g5.xlarge", "kms_key": "k"}, "--kms-key has no effect"),
        ({"instance": "g5.xlarge"}, "use a type such as ml.m5.xlarge"),
        ({"instance": "ml.trn1.2xlarge"}, "x86 CPUs and NVIDIA GPUs"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        deployment(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "a" * 63},
        {"mode": "serverless", "memory_mb": 6144, "max_concurrency": 200},
        {"mode": "async", "max_instances": 2, "min_instances": 0},
        {"max_instances": 2, "min_instances": 1, "instances": 2},
        {"instance": "ml.g5.xlarge", "kms_key": "k", "data_capture": 1},
        {"instance": "ml.g5.xlarge", "kms_key": "k", "mode": "async"},
        {"kms_key": "k"},
    ],
)
def test_valid_options_are_accepted(options: dict[str, Any]) -> None:
    deployment(**options)


@pytest.mark.parametrize("mode", OPTIONS)
def test_every_mode_works_without_options(mode: str) -> None:
    assert deployment(mode=mode).capacity_range is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_instances": 3}, (1, 3)),
        ({"max_instances": 3, "mode": "mme"}, (1, 3)),
        ({"max_instances": 3, "mode": "async"}, (0, 3)),
        ({"max_instances": 3, "mode": "async", "min_instances": 1}, (1, 3)),
    ],
)
def test_capacity_range(options: dict[str, Any], expected: tuple[int, int]) -> None:
    assert deployment(**options).capacity_range == expected
