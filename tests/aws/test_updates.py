"""Updates: a second deployment that differs from the first."""

from typing import Any

import pytest

from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import FakeAws
from tests.aws.test_deploy import arguments, parameters

UPDATE = [
    "s3.PutObject",
    "sagemaker.CreateModel",
    "sagemaker.CreateEndpointConfig",
    "sagemaker.UpdateEndpoint",
]
REMOVAL = ["sagemaker.DeleteEndpointConfig", "sagemaker.DeleteModel"]
SCALED = ("--max-instances", "3")
SCALED_TO_ZERO = ("--mode", "async", "--max-instances", "3")


def test_second_package_replaces_the_first(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package()))
    before = fake_aws.resources()
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes == UPDATE + REMOVAL
    after = fake_aws.resources()
    for kind in ("models", "configs", "endpoints"):
        assert len(after[kind]) == 1
    assert not set(before["models"]) & set(after["models"])
    assert len(after["objects"]) == 2
    fake_aws.reset_calls()
    assert "nothing to change" in fake_aws.run("deploy", *arguments(package(content="better")))


def test_instance_count_changes_without_a_new_model(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package(), "--instances", "2"))
    assert fake_aws.changes == [*UPDATE[2:], REMOVAL[0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            [],
            {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {
                        "Type": "ALL_AT_ONCE",
                        "WaitIntervalInSeconds": 0,
                    },
                    "TerminationWaitInSeconds": 0,
                }
            },
            id="one instance, no alarm",
        ),
        pytest.param(
            ["--instances", "2", "--alarm", "errors", "--alarm", "latency"],
            {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {
                        "Type": "CANARY",
                        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
                        "WaitIntervalInSeconds": 300,
                    },
                    "TerminationWaitInSeconds": 300,
                },
                "AutoRollbackConfiguration": {
                    "Alarms": [{"AlarmName": "errors"}, {"AlarmName": "latency"}]
                },
            },
            id="two instances, alarms",
        ),
        pytest.param(
            ["--mode", "async", "--max-instances", "2", "--instances", "2"],
            {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {
                        "Type": "ALL_AT_ONCE",
                        "WaitIntervalInSeconds": 0,
                    },
                    "TerminationWaitInSeconds": 0,
                }
            },
            id="fewer than two after scaling",
        ),
        pytest.param(["--mode", "serverless"], None, id="serverless"),
    ],
)
def test_update_is_blue_green_on_instances(
    options: list[str], expected: Any, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package(), *options))
    fake_aws.run("deploy", *arguments(package(content="better"), *options))
    update = parameters(fake_aws, "sagemaker.UpdateEndpoint")
    assert update.get("DeploymentConfig") == expected
    assert ("RetainAllVariantProperties" in update) == ("--max-instances" in options)


@pytest.mark.parametrize("index", range(len(UPDATE)))
def test_failed_update_keeps_the_previous_deployment(
    index: int, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    before = fake_aws.resources()
    fake_aws.reset_calls()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.resources() == before
    assert "nothing to change" in fake_aws.run("deploy", *arguments(package()))


@pytest.mark.parametrize("index", [len(UPDATE), len(UPDATE) + 1])
def test_next_run_removes_the_replaced_resources(
    index: int, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.reset_calls()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes[-1] == (UPDATE + REMOVAL)[index]
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes == REMOVAL[index - len(UPDATE) :]
    assert len(fake_aws.resources()["models"]) == 1


def test_rollback_by_aws_keeps_the_previous_deployment(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    before = fake_aws.resources()
    fake_aws.scenario.rolls_back = True
    fake_aws.scenario.statuses = ["Updating", "RollingBack", "InService"]
    fake_aws.scenario.reason = "alarm errors went off"
    with pytest.raises(CommandError, match=r"rolled the update back \(alarm errors went off\)"):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.resources() == before


@pytest.mark.parametrize("status", ["UpdateRollbackFailed", "Failed"])
def test_stuck_update_keeps_resources_that_may_be_in_use(
    status: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.reset_calls()
    fake_aws.scenario.statuses = ["Updating", status]
    with pytest.raises(CommandError, match=f"shop is {status}: the container did not pass"):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes == UPDATE


def test_interrupted_update_continues(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.reset_calls()
    fake_aws.on_sleep = interrupt
    fake_aws.scenario.statuses = ["Updating"]
    with pytest.raises(CommandError, match="nothing was rolled back"):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes == UPDATE


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("Updating", "run this again when AWS has completed that"),
        ("Creating", "run this again when AWS has completed that"),
        ("Failed", "d2serve undeploy --endpoint shop"),
        ("OutOfService", "d2serve undeploy --endpoint shop"),
    ],
)
def test_endpoint_that_cannot_be_updated(
    status: str, message: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.reset_calls()
    fake_aws.set_status("shop", status)
    with pytest.raises(CommandError, match=message):
        fake_aws.run("deploy", *arguments(package(content="better")))
    assert fake_aws.changes == []


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], ["--mode", "serverless"], "--mode realtime, and an endpoint's mode cannot change"),
        (
            SCALED,
            [*SCALED, "--instance", "ml.m5.large"],
            "--instance ml.m5.xlarge and without",
        ),
    ],
    ids=["another mode", "another instance type while it scales"],
)
def test_unsupported_changes_are_rejected(
    first: list[str], second: list[str], message: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package(), *first))
    fake_aws.reset_calls()
    with pytest.raises(CommandError, match=message):
        fake_aws.run("deploy", *arguments(package(), *second))
    assert fake_aws.changes == []


def test_update_keeps_the_scaled_instance_count(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package(), *SCALED))
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package(content="better"), *SCALED))
    assert fake_aws.changes == UPDATE + REMOVAL
    assert parameters(fake_aws, "sagemaker.UpdateEndpoint")["RetainAllVariantProperties"] is True


@pytest.mark.parametrize(
    ("first", "second", "calls", "left"),
    [
        pytest.param(
            [],
            SCALED,
            ["RegisterScalableTarget", "PutScalingPolicy"],
            (1, ["d2serve-follow-load"], 0),
            id="on",
        ),
        pytest.param(
            SCALED, [], ["DeleteScalingPolicy", "DeregisterScalableTarget"], (0, [], 0), id="off"
        ),
        pytest.param(
            SCALED,
            ["--max-instances", "5"],
            ["RegisterScalableTarget", "PutScalingPolicy"],
            (1, ["d2serve-follow-load"], 0),
            id="wider",
        ),
        pytest.param(
            SCALED_TO_ZERO,
            ["--mode", "async"],
            ["DeleteAlarms", *["DeleteScalingPolicy"] * 2, "DeregisterScalableTarget"],
            (0, [], 0),
            id="async off",
        ),
        pytest.param(
            SCALED_TO_ZERO,
            [*SCALED_TO_ZERO, "--min-instances", "1"],
            ["RegisterScalableTarget", "PutScalingPolicy", "DeleteAlarms", "DeleteScalingPolicy"],
            (1, ["d2serve-follow-load"], 0),
            id="no longer to zero",
        ),
    ],
)
def test_scaling_changes_without_an_update(
    first: list[str],
    second: list[str],
    calls: list[str],
    left: tuple[int, list[str], int],
    fake_aws: FakeAws,
    package: WritePackage,
) -> None:
    fake_aws.run("deploy", *arguments(package(), *first))
    fake_aws.reset_calls()
    fake_aws.run("deploy", *arguments(package(), *second))
    assert [call.partition(".")[2] for call in fake_aws.changes] == calls
    resources = fake_aws.resources()
    assert (len(resources["targets"]), resources["policies"], len(resources["alarms"])) == left


@pytest.mark.parametrize("index", [0, 1])
def test_failed_scaling_keeps_the_endpoint(
    index: int, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    before = fake_aws.resources()
    fake_aws.reset_calls()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        fake_aws.run("deploy", *arguments(package(), *SCALED))
    assert fake_aws.resources() == before


def test_scaling_by_the_user_stays(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/shop/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=9,
    )
    fake_aws.reset_calls()
    assert "nothing to change" in fake_aws.run("deploy", *arguments(package()))


def interrupt(_: float) -> None:
    raise KeyboardInterrupt
