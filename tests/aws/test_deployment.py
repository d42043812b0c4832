from pathlib import Path
from typing import Any

import pytest

from d2serve.aws.deployment import OPTIONS, Deployment
from d2serve.building.package import Package
from d2serve.errors import CommandError

PACKAGE = Package(Path("shapes.tar.gz"), "shapes", "0" * 64, 10)


def deployment(**options: Any) -> Deployment:
    return Deployment(**{"package": PACKAGE, "endpoint": "shop", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": ""}, "ENDPOINT ''"),
        ({"endpoint": "a_b"}, "ENDPOINT 'a_b'"),
        ({"endpoint": "-a"}, "ENDPOINT '-a'"),
        ({"endpoint": "a" * 64}, "up to 63"),
        ({"mode": "batch"}, "MODE 'batch': use one of realtime, serverless, async, mme"),
        ({"memory_mb": 1024}, "MODE=realtime takes no MEMORY_MB; MODE=serverless does"),
        ({"mode": "serverless", "instance": "ml.m5.large"}, "takes no INSTANCE; MODE=realtime or"),
        ({"mode": "serverless", "subnets": ("a",), "security_groups": ("b",)}, "takes no SECURITY"),
        ({"mode": "serverless", "network_isolation": True}, "takes no NETWORK_ISOLATION"),
        ({"mode": "serverless", "data_capture": 5}, "takes no DATA_CAPTURE; MODE=realtime does"),
        ({"mode": "serverless", "kms_key": "k"}, "takes no KMS_KEY"),
        ({"mode": "serverless", "min_instances": 0}, "takes no MIN_INSTANCES"),
        ({"mode": "serverless", "max_instances": 2}, "takes no MAX_INSTANCES"),
        ({"mode": "serverless", "memory_mb": 1000}, "MEMORY_MB 1000: use one of 1024, 2048"),
        ({"mode": "serverless", "max_concurrency": 0}, "MAX_CONCURRENCY 0: .* from 1 to 200"),
        ({"mode": "serverless", "max_concurrency": 201}, "MAX_CONCURRENCY 201"),
        ({"mode": "mme", "data_capture": 5}, "MODE=mme takes no DATA_CAPTURE"),
        ({"mode": "async", "data_capture": 5}, "MODE=async takes no DATA_CAPTURE"),
        ({"output": "s3://a/b"}, "MODE=realtime takes no OUTPUT; MODE=async does"),
        ({"data_capture": 0}, "DATA_CAPTURE 0: .* from 1 to 100"),
        ({"data_capture": 101}, "DATA_CAPTURE 101"),
        ({"subnets": ("a",)}, "both SUBNETS and SECURITY_GROUPS"),
        ({"security_groups": ("a",)}, "both SUBNETS and SECURITY_GROUPS"),
        ({"instances": 0}, "INSTANCES 0: use a number from 1"),
        ({"min_instances": 1}, "needs MAX_INSTANCES"),
        ({"target_invocations": 5}, "needs MAX_INSTANCES"),
        ({"max_instances": 2, "target_invocations": 0}, "TARGET_INVOCATIONS must be above 0"),
        ({"max_instances": 2, "min_instances": 0}, "only MODE=async scales to zero"),
        ({"max_instances": 2, "instances": 3}, "3 instances at the start do not lie within"),
        ({"max_instances": 4, "min_instances": 2}, "1 instances at the start do not lie within"),
        ({"mode": "async", "max_instances": 0}, "do not lie within"),
        ({"instance": "ml.g5.xlarge", "kms_key": "k"}, "nothing would be left for the key"),
        ({"instance": "g5.xlarge"}, "look like ml.m5.xlarge"),
        ({"instance": "ml.trn1.2xlarge"}, "x86 CPUs and NVIDIA GPUs"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
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
def test_what_can_be_is_taken(options: dict[str, Any]) -> None:
    deployment(**options)


@pytest.mark.parametrize("mode", OPTIONS)
def test_every_mode_needs_no_options(mode: str) -> None:
    assert deployment(mode=mode).capacity_range is None


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"max_instances": 3}, (1, 3)),
        ({"max_instances": 3, "mode": "mme"}, (1, 3)),
        ({"max_instances": 3, "mode": "async"}, (0, 3)),
        ({"max_instances": 3, "mode": "async", "min_instances": 1}, (1, 3)),
    ],
)
def test_the_range_of_scaling(options: dict[str, Any], wanted: tuple[int, int]) -> None:
    assert deployment(**options).capacity_range == wanted
