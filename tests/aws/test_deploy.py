from pathlib import Path
from typing import Any

import pytest

from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import ACCOUNT_ID, BUCKET, ROLE, FakeAws

CREATION = [
    "s3.CreateBucket",
    "s3.PutObject",
    "sagemaker.CreateModel",
    "sagemaker.CreateEndpointConfig",
    "sagemaker.CreateEndpoint",
]
SCALING = [
    "application-autoscaling.RegisterScalableTarget",
    "application-autoscaling.PutScalingPolicy",
]
WAKE = ["application-autoscaling.PutScalingPolicy", "cloudwatch.PutMetricAlarm"]
# Case -> options and the calls that they make in an empty account.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "realtime": ([], CREATION),
    "realtime, all options": (
        [
            *("--instance", "ml.g4dn.xlarge", "--instances", "2", "--max-instances", "4"),
            *("--data-capture", "10", "--kms-key", "alias/ours", "--network-isolation"),
            *("--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1"),
            *("--alarm", "errors", "--env", "A=b=c", "--target-invocations", "60"),
        ],
        CREATION + SCALING,
    ),
    "serverless": (["--mode", "serverless", "--memory-mb", "4096"], CREATION),
    "async": (["--mode", "async"], CREATION),
    "async, to zero": (
        [
            *("--mode", "async", "--max-instances", "3", "--output", "s3://answers/here/"),
            *("--success-topic", "arn:aws:sns:eu-central-1:123456789012:done"),
            *("--error-topic", "arn:aws:sns:eu-central-1:123456789012:failed"),
        ],
        CREATION + SCALING + WAKE,
    ),
    "async, never zero": (
        ["--mode", "async", "--max-instances", "3", "--min-instances", "1"],
        CREATION + SCALING,
    ),
    "mme": (["--mode", "mme", "--max-instances", "2"], CREATION + SCALING),
}
STEPS = [
    pytest.param(name, index, id=f"{name}: {call}")
    for name, (_, calls) in CASES.items()
    for index, call in enumerate(calls)
]


def arguments(package: Path, *more: str) -> list[str]:
    return ["--package", str(package), "--endpoint", "shop", "--role", "Serving", *more]


def parameters(fake_aws: FakeAws, call: str) -> Any:
    return next(parameters for name, parameters in fake_aws.requests if name == call)


@pytest.mark.parametrize("case", CASES)
def test_every_mode_is_deployed(case: str, fake_aws: FakeAws, package: WritePackage) -> None:
    options, calls = CASES[case]
    output = fake_aws.run("deploy", *arguments(package(), *options))
    assert fake_aws.changes == calls
    assert "shop is in service in eu-central-1" in output
    assert fake_aws.resources()["endpoints"] == ["shop"]


@pytest.mark.parametrize("case", CASES)
def test_second_run_changes_nothing(case: str, fake_aws: FakeAws, package: WritePackage) -> None:
    options, _ = CASES[case]
    fake_aws.run("deploy", *arguments(package(), *options))
    before = fake_aws.resources()
    fake_aws.reset_calls()
    assert "nothing to change" in fake_aws.run("deploy", *arguments(package(), *options))
    assert fake_aws.changes == []
    assert fake_aws.resources() == before


@pytest.mark.parametrize(("case", "index"), STEPS)
def test_failure_is_rolled_back(
    case: str, index: int, fake_aws: FakeAws, package: WritePackage
) -> None:
    before = fake_aws.resources()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        fake_aws.run("deploy", *arguments(package(), *CASES[case][0]))
    assert fake_aws.changes[: index + 1] == CASES[case][1][: index + 1]
    assert fake_aws.resources() == before


@pytest.mark.parametrize("case", CASES)
def test_dry_run_shows_all_calls_and_makes_none(
    case: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    options, calls = CASES[case]
    before = fake_aws.resources()
    output = fake_aws.run("deploy", *arguments(package(), *options), "--dry-run")
    shown = [line.removesuffix(" {") for line in output.splitlines() if line.endswith(" {")]
    shown = [name for name in shown if "." in name and not name.startswith(" ")]
    assert [name.replace("_", "").lower() for name in shown] == [call.lower() for call in calls]
    assert fake_aws.changes == []
    assert fake_aws.resources() == before


def test_requests_of_a_deployment_with_all_options(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package(), *CASES["realtime, all options"][0]))
    model = parameters(fake_aws, "sagemaker.CreateModel")
    assert model["ExecutionRoleArn"] == ROLE
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
    container = model["PrimaryContainer"]
    assert container["Image"].endswith("/pytorch-inference:2.6.0-gpu-py312")
    assert container["ModelDataUrl"].startswith(f"s3://{BUCKET}/d2serve/shop/shapes-")
    assert container["Environment"]["A"] == "b=c"
    config = parameters(fake_aws, "sagemaker.CreateEndpointConfig")
    # The hardware of a g4dn encrypts its disks; AWS would reject or ignore a key.
    assert "KmsKeyId" not in config
    assert config["DataCaptureConfig"]["KmsKeyId"] == "alias/ours"
    assert config["DataCaptureConfig"]["DestinationS3Uri"] == f"s3://{BUCKET}/d2serve-captured/shop"
    [variant] = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g4dn.xlarge", 2)


def test_requests_of_an_asynchronous_deployment(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package(), *CASES["async, to zero"][0]))
    config = parameters(fake_aws, "sagemaker.CreateEndpointConfig")
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    assert output["S3OutputPath"] == "s3://answers/here"
    assert output["S3FailurePath"] == "s3://answers/here/failed"
    assert set(output["NotificationConfig"]) == {"SuccessTopic", "ErrorTopic"}
    target = parameters(fake_aws, "application-autoscaling.RegisterScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    [action] = parameters(fake_aws, "cloudwatch.PutMetricAlarm")["AlarmActions"]
    policies = fake_aws.client("application-autoscaling").describe_scaling_policies(
        ServiceNamespace="sagemaker", PolicyNames=["d2serve-wake"]
    )["ScalingPolicies"]
    assert action in [policy["PolicyARN"] for policy in policies]


def test_all_resources_are_tagged(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package(), *CASES["async, to zero"][0]))
    expected = {"d2serve:endpoint": "shop", "d2serve:mode": "async", "created-by": "d2serve"}
    for call in (
        "sagemaker.CreateModel",
        "sagemaker.CreateEndpointConfig",
        "sagemaker.CreateEndpoint",
        "cloudwatch.PutMetricAlarm",
    ):
        tags = parameters(fake_aws, call)["Tags"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == expected, call


def test_second_package_joins_a_multi_model_endpoint(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    options = ["--mode", "mme"]
    fake_aws.run("deploy", *arguments(package("shapes"), *options))
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package("letters", "other"), *options))
    assert fake_aws.changes == ["s3.PutObject"]
    folder = f"s3://{BUCKET}/d2serve/shop/models"
    assert fake_aws.resources()["objects"] == [
        f"{folder}/letters.tar.gz",
        f"{folder}/shapes.tar.gz",
    ]
    model = fake_aws.client("sagemaker").describe_model(ModelName=fake_aws.resources()["models"][0])
    assert model["PrimaryContainer"]["ModelDataUrl"] == f"{folder}/"


def test_loaded_package_is_not_overwritten(fake_aws: FakeAws, package: WritePackage) -> None:
    options = ["--mode", "mme"]
    fake_aws.run("deploy", *arguments(package(), *options))
    fake_aws.reset_calls()
    with pytest.raises(CommandError, match="another --name"):
        fake_aws.run("deploy", *arguments(package(content="others"), *options))
    assert fake_aws.changes == []


def test_default_bucket_of_another_account_is_rejected(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    # AWS rejects another owner; moto does not check it.
    assert parameters(fake_aws, "s3.HeadBucket")["ExpectedBucketOwner"] == ACCOUNT_ID


def test_given_bucket_must_exist(fake_aws: FakeAws, package: WritePackage) -> None:
    with pytest.raises(CommandError, match="--bucket ours does not exist"):
        fake_aws.run("deploy", *arguments(package(), "--bucket", "ours"))
    location = {"LocationConstraint": "eu-central-1"}
    fake_aws.client("s3").create_bucket(Bucket="ours", CreateBucketConfiguration=location)
    fake_aws.run("deploy", *arguments(package(), "--bucket", "ours", "--prefix", "a/b"))
    [uploaded] = fake_aws.resources()["objects"]
    assert uploaded.startswith("s3://ours/a/b/shop/shapes-")
