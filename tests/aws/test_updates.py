"""A second deployment that differs from the first."""

from typing import Any

import pytest

from d2serve.aws import deploy
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.test_deploy import arguments, parameters
from tests.aws.world import World

UPDATING = [
    "s3.PutObject",
    "sagemaker.CreateModel",
    "sagemaker.CreateEndpointConfig",
    "sagemaker.UpdateEndpoint",
]
REMOVING = ["sagemaker.DeleteEndpointConfig", "sagemaker.DeleteModel"]
SCALED = ("--max-instances", "3")
WAKED = ("--mode", "async", "--max-instances", "3")


def test_another_package_replaces_the_first(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    before = world.holdings()
    world.fresh()
    world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes == UPDATING + REMOVING
    after = world.holdings()
    for kind in ("models", "configs", "endpoints"):
        assert len(after[kind]) == 1
    assert not set(before["models"]) & set(after["models"])
    assert len(after["objects"]) == 2
    world.fresh()
    assert "nothing to change" in world.run(deploy.main, *arguments(package(content="better")))


def test_another_size_keeps_the_model(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fresh()
    world.run(deploy.main, *arguments(package(), "--instances", "2"))
    assert world.changes == [*UPDATING[2:], REMOVING[0]]


@pytest.mark.parametrize(
    ("options", "wanted"),
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
def test_an_update_is_blue_green_on_instances(
    options: list[str], wanted: Any, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package(), *options))
    world.run(deploy.main, *arguments(package(content="better"), *options))
    update = parameters(world, "sagemaker.UpdateEndpoint")
    assert update.get("DeploymentConfig") == wanted
    assert ("RetainAllVariantProperties" in update) == ("--max-instances" in options)


@pytest.mark.parametrize("index", range(len(UPDATING)))
def test_a_failed_update_leaves_what_served(
    index: int, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package()))
    before = world.holdings()
    world.fresh()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.holdings() == before
    assert "nothing to change" in world.run(deploy.main, *arguments(package()))


@pytest.mark.parametrize("index", [len(UPDATING), len(UPDATING) + 1])
def test_what_was_replaced_is_removed_by_the_next_run(
    index: int, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fresh()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes[-1] == (UPDATING + REMOVING)[index]
    world.fresh()
    world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes == REMOVING[index - len(UPDATING) :]
    assert len(world.holdings()["models"]) == 1


def test_a_rollback_leaves_what_served(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    before = world.holdings()
    world.fate.rolls_back = True
    world.fate.statuses = ["Updating", "RollingBack", "InService"]
    world.fate.reason = "alarm errors went off"
    with pytest.raises(CommandError, match=r"rolled the update back \(alarm errors went off\)"):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.holdings() == before


@pytest.mark.parametrize("status", ["UpdateRollbackFailed", "Failed"])
def test_a_stuck_update_keeps_what_may_be_in_use(
    status: str, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fresh()
    world.fate.statuses = ["Updating", status]
    with pytest.raises(CommandError, match=f"shop is {status}: the container did not pass"):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes == UPDATING


def test_an_interrupted_update_goes_on(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fresh()
    world.on_sleep = interrupt
    world.fate.statuses = ["Updating"]
    with pytest.raises(CommandError, match="nothing was taken back"):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes == UPDATING


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("Updating", "run this again when AWS is done"),
        ("Creating", "run this again when AWS is done"),
        ("Failed", "make undeploy ENDPOINT=shop"),
        ("OutOfService", "make undeploy ENDPOINT=shop"),
    ],
)
def test_an_endpoint_that_cannot_be_updated(
    status: str, message: str, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fresh()
    world.server_sees("shop", status)
    with pytest.raises(CommandError, match=message):
        world.run(deploy.main, *arguments(package(content="better")))
    assert world.changes == []


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], ["--mode", "serverless"], "MODE=realtime, and an endpoint keeps its mode"),
        (SCALED, [*SCALED, "--instance", "ml.m5.large"], "INSTANCE=ml.m5.xlarge and without MAX"),
    ],
    ids=["another mode", "another instance type while it scales"],
)
def test_what_aws_would_refuse_is_refused_first(
    first: list[str], second: list[str], message: str, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package(), *first))
    world.fresh()
    with pytest.raises(CommandError, match=message):
        world.run(deploy.main, *arguments(package(), *second))
    assert world.changes == []


def test_an_update_keeps_the_count_that_scaling_has_set(
    world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package(), *SCALED))
    world.fresh()
    world.run(deploy.main, *arguments(package(content="better"), *SCALED))
    assert world.changes == UPDATING + REMOVING
    assert parameters(world, "sagemaker.UpdateEndpoint")["RetainAllVariantProperties"] is True


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
            WAKED,
            ["--mode", "async"],
            ["DeleteAlarms", *["DeleteScalingPolicy"] * 2, "DeregisterScalableTarget"],
            (0, [], 0),
            id="async off",
        ),
        pytest.param(
            WAKED,
            [*WAKED, "--min-instances", "1"],
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
    world: World,
    package: WritePackage,
) -> None:
    world.run(deploy.main, *arguments(package(), *first))
    world.fresh()
    world.run(deploy.main, *arguments(package(), *second))
    assert [call.partition(".")[2] for call in world.changes] == calls
    holdings = world.holdings()
    assert (len(holdings["targets"]), holdings["policies"], len(holdings["alarms"])) == left


@pytest.mark.parametrize("index", [0, 1])
def test_scaling_that_fails_leaves_the_endpoint(
    index: int, world: World, package: WritePackage
) -> None:
    world.run(deploy.main, *arguments(package()))
    before = world.holdings()
    world.fresh()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        world.run(deploy.main, *arguments(package(), *SCALED))
    assert world.holdings() == before


def test_someone_elses_scaling_stays(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/shop/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=9,
    )
    world.fresh()
    assert "nothing to change" in world.run(deploy.main, *arguments(package()))


def interrupt(_: float) -> None:
    raise KeyboardInterrupt
