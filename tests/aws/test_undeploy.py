import pytest

from d2serve.aws import deploy, undeploy
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.test_deploy import CASES, arguments
from tests.aws.test_failures import make_foreign_endpoint
from tests.aws.world import BUCKET, World

REMOVING = [
    "cloudwatch.DeleteAlarms",
    "application-autoscaling.DeleteScalingPolicy",
    "application-autoscaling.DeleteScalingPolicy",
    "application-autoscaling.DeregisterScalableTarget",
    "sagemaker.DeleteEndpoint",
    "sagemaker.DeleteEndpointConfig",
    "s3.DeleteObject",
    "sagemaker.DeleteModel",
]


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_ours_is_left(case: str, world: World, package: WritePackage) -> None:
    make_foreign_endpoint(world, "shop-2")
    before = world.holdings()
    world.run(deploy.main, *arguments(package(), *CASES[case][0]))
    s3 = world.client("s3")
    s3.put_object(Bucket=BUCKET, Key="d2serve/shop/notes.txt", Body=b"theirs")
    for key in ("d2serve-output/shop/a.out", "d2serve/shop-2/a.tar.gz"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"as ours", Metadata={"sha256": "0"})
    told = world.run(undeploy.main, "--endpoint", "shop")
    assert "shop is gone" in told
    after = world.holdings()
    assert after.pop("buckets") == [BUCKET]
    assert after.pop("objects") == [
        f"s3://{BUCKET}/{key}"
        for key in (
            "d2serve-output/shop/a.out",
            "d2serve/shop-2/a.tar.gz",
            "d2serve/shop/notes.txt",
        )
    ]
    assert after == {kind: before[kind] for kind in after}


def test_a_second_run_finds_nothing(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.run(undeploy.main, "--endpoint", "shop")
    world.fresh()
    told = world.run(undeploy.main, "--endpoint", "shop")
    assert "d2serve has nothing called shop in eu-central-1" in told
    assert world.changes == []


@pytest.mark.parametrize("index", range(len(REMOVING)), ids=REMOVING)
def test_the_next_run_ends_what_broke_off(index: int, world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package(), *CASES["async, to zero"][0]))
    world.fresh()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        world.run(undeploy.main, "--endpoint", "shop")
    assert world.changes == REMOVING[: index + 1]
    world.fresh()
    world.run(undeploy.main, "--endpoint", "shop")
    left = world.holdings()
    assert left.pop("buckets") == [BUCKET]
    assert not any(left.values()), left


def test_all_packages_that_ever_served_are_removed(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.run(deploy.main, *arguments(package(content="better")))
    assert len(world.holdings()["objects"]) == 2
    world.run(undeploy.main, "--endpoint", "shop")
    assert world.holdings()["objects"] == []


def test_what_others_made_is_refused(world: World) -> None:
    make_foreign_endpoint(world)
    before = world.holdings()
    with pytest.raises(CommandError, match="was not made by d2serve"):
        world.run(undeploy.main, "--endpoint", "shop")
    assert world.changes == []
    assert world.holdings() == before


def test_a_dry_run_shows_all_and_removes_nothing(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package(), *CASES["async, to zero"][0]))
    before = world.holdings()
    world.fresh()
    told = world.run(undeploy.main, "--endpoint", "shop", "--dry-run")
    assert f"{len(REMOVING)} calls shown, none made" in told
    assert world.changes == []
    assert world.holdings() == before


def test_a_name_that_is_none_is_told(world: World) -> None:
    with pytest.raises(CommandError, match="ENDPOINT 'a_b'"):
        world.run(undeploy.main, "--endpoint", "a_b")


def test_an_endpoint_that_stays_is_told(world: World, package: WritePackage) -> None:
    world.run(deploy.main, *arguments(package()))
    world.fate.is_stuck = True
    with pytest.raises(CommandError, match="shop could not be deleted: it is Failed"):
        world.run(undeploy.main, "--endpoint", "shop")
    assert len(world.holdings()["models"]) == 1
