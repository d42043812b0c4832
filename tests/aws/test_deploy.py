from pathlib import Path
from typing import Any

import pytest

from d2serve.aws import deploy
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.world import ACCOUNT_ID, BUCKET, ROLE, World

MAKING = [
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
WAKING = ["application-autoscaling.PutScalingPolicy", "cloudwatch.PutMetricAlarm"]
# Options and the calls that they make in an empty account, by a name of the case.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "realtime": ([], MAKING),
    "realtime, all options": (
        [
            *("--instance", "ml.g4dn.xlarge", "--instances", "2", "--max-instances", "4"),
            *("--data-capture", "10", "--kms-key", "alias/ours", "--network-isolation"),
            *("--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1"),
            *("--alarm", "errors", "--env", "A=b=c", "--target-invocations", "60"),
        ],
        MAKING + SCALING,
    ),
    "serverless": (["--mode", "serverless", "--memory-mb", "4096"], MAKING),
    "async": (["--mode", "async"], MAKING),
    "async, to zero": (
        [
            *("--mode", "async", "--max-instances", "3", "--output", "s3://answers/here/"),
            *("--success-topic", "arn:aws:sns:eu-central-1:123456789012:done"),
            *("--error-topic", "arn:aws:sns:eu-central-1:123456789012:failed"),
        ],
        MAKING + SCALING + WAKING,
    ),
    "async, never zero": (
        ["--mode", "async", "--max-instances", "3", "--min-instances", "1"],
        MAKING + SCALING,
    ),
    "mme": (["--mode", "mme", "--max-instances", "2"], MAKING + SCALING),
}
STEPS = [
    pytest.param(name, index, id=f"{name}: {call}")
    for name, (_, calls) in CASES.items()
    for index, call in enumerate(calls)
]


def arguments(package: Path, *more: str) -> list[str]:
    return ["--package", str(package), "--endpoint", "shop", "--role", "Serving", *more]


def parameters(world: World, call: str) -> Any:
    return next(parameters for name, parameters in world.requests if name == call)


@pytest.mark.parametrize("case", CASES)
def test_every_mode_is_deployed(case: str, world: World, package: WritePackage) -> None:
    options, calls = CASES[case]
    told = world.run(deploy.main, *arguments(package(), *options))
    assert world.changes == calls
    assert "shop is in service in eu-central-1" in told
    assert world.holdings()["endpoints"] == ["shop"]


@pytest.mark.parametrize("case", CASES)
def test_a_second_run_changes_nothing(case: str, world: World, package: WritePackage) -> None:
    options, _ = CASES[case]
    world.run(deploy.main, *arguments(package(), *options))
    before = world.holdings()
    world.fresh()
    assert "nothing to change" in world.run(deploy.main, *arguments(package(), *options))
    assert world.changes == []
    assert world.holdings() == before


@pytest.mark.parametrize(("case", "index"), STEPS)
def test_a_failure_leaves_nothing_behind(
    case: str, index: int, world: World, package: WritePackage
) -> None:
    before = world.holdings()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        world.run(deploy.main, *arguments(package(), *CASES[case][0]))
    assert world.changes[: index + 1] == CASES[case][1][: index + 1]
    assert world.holdings() == before


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_shows_all_calls_and_makes_none(
    case: str, world: World, package: WritePackage
) -> None:
    options, calls = CASES[case]
    before = world.holdings()
    told = world.run(deploy.main, *arguments(package(), *options), "--dry-run")
    shown = [line.removesuffix(" {") for line in told.splitlines() if line.endswith(" {")]
    shown = [name for name in shown if "." in name and not name.startswith(" ")]
    assert [name.replace("_", "").lower() for name in shown] == [call.lower() for call in calls]
    assert world.changes == []
    assert world.holdings() == before


def test_the_requests_of_a_full_deployment(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package(), *CASES["realtime, all options"][0]))
    model = parameters(world, "sagemaker.CreateModel")
    assert model["ExecutionRoleArn"] == ROLE
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
    container = model["PrimaryContainer"]
    assert container["Image"].endswith("/pytorch-inference:2.6.0-gpu-py312")
    assert container["ModelDataUrl"].startswith(f"s3://{BUCKET}/d2serve/shop/shapes-")
    assert container["Environment"]["A"] == "b=c"
    config = parameters(world, "sagemaker.CreateEndpointConfig")
    # The disks of a g4dn are encrypted by its hardware; a key would be refused or ignored.
    assert "KmsKeyId" not in config
    assert config["DataCaptureConfig"]["KmsKeyId"] == "alias/ours"
    assert config["DataCaptureConfig"]["DestinationS3Uri"] == f"s3://{BUCKET}/d2serve-captured/shop"
    [variant] = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g4dn.xlarge", 2)


def test_the_requests_of_an_asynchronous_deployment(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package(), *CASES["async, to zero"][0]))
    config = parameters(world, "sagemaker.CreateEndpointConfig")
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    assert output["S3OutputPath"] == "s3://answers/here"
    assert output["S3FailurePath"] == "s3://answers/here/failed"
    assert set(output["NotificationConfig"]) == {"SuccessTopic", "ErrorTopic"}
    target = parameters(world, "application-autoscaling.RegisterScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    [action] = parameters(world, "cloudwatch.PutMetricAlarm")["AlarmActions"]
    policies = world.client("application-autoscaling").describe_scaling_policies(
        ServiceNamespace="sagemaker", PolicyNames=["d2serve-wake"]
    )["ScalingPolicies"]
    assert action in [policy["PolicyARN"] for policy in policies]


def test_all_that_is_made_is_tagged(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package(), *CASES["async, to zero"][0]))
    wanted = {"d2serve:endpoint": "shop", "d2serve:mode": "async", "created-by": "d2serve"}
    for call in (
        "sagemaker.CreateModel",
        "sagemaker.CreateEndpointConfig",
        "sagemaker.CreateEndpoint",
        "cloudwatch.PutMetricAlarm",
    ):
        tags = parameters(world, call)["Tags"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == wanted, call


def test_another_package_joins_a_multi_model_endpoint(world: World, package: WritePackage) -> None:
    options = ["--mode", "mme"]
    world.run(deploy.main, *arguments(package("shapes"), *options))
    world.fresh()
    world.run(deploy.main, *arguments(package("letters", "other"), *options))
    assert world.changes == ["s3.PutObject"]
    folder = f"s3://{BUCKET}/d2serve/shop/models"
    assert world.holdings()["objects"] == [f"{folder}/letters.tar.gz", f"{folder}/shapes.tar.gz"]
    model = world.client("sagemaker").describe_model(ModelName=world.holdings()["models"][0])
    assert model["PrimaryContainer"]["ModelDataUrl"] == f"{folder}/"


def test_a_loaded_package_is_not_overwritten(world: World, package: WritePackage) -> None:
    options = ["--mode", "mme"]
    world.run(deploy.main, *arguments(package(), *options))
    world.fresh()
    with pytest.raises(CommandError, match="another NAME"):
        world.run(deploy.main, *arguments(package(content="others"), *options))
    assert world.changes == []


def test_a_default_bucket_of_someone_else_is_not_used(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    # AWS refuses where the owner differs; moto does not.
    assert parameters(world, "s3.HeadBucket")["ExpectedBucketOwner"] == ACCOUNT_ID


def test_a_bucket_of_ones_own_is_not_made(world: World, package: WritePackage) -> None:
    with pytest.raises(CommandError, match="BUCKET ours: there is no such bucket"):
        world.run(deploy.main, *arguments(package(), "--bucket", "ours"))
    location = {"LocationConstraint": "eu-central-1"}
    world.client("s3").create_bucket(Bucket="ours", CreateBucketConfiguration=location)
    world.run(deploy.main, *arguments(package(), "--bucket", "ours", "--prefix", "a/b"))
    [uploaded] = world.holdings()["objects"]
    assert uploaded.startswith("s3://ours/a/b/shop/shapes-")
