import pytest

from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import BUCKET, FakeAws
from tests.aws.test_deploy import CASES, arguments
from tests.aws.test_failures import make_foreign_endpoint

REMOVAL = [
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
def test_all_own_resources_are_removed(case: str, fake_aws: FakeAws, package: WritePackage) -> None:
    make_foreign_endpoint(fake_aws, "shop-2")
    before = fake_aws.resources()
    fake_aws.run("deploy", *arguments(package(), *CASES[case][0]))
    s3 = fake_aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="d2serve/shop/notes.txt", Body=b"the user's")
    for key in ("d2serve-output/shop/a.out", "d2serve/shop-2/a.tar.gz"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"similar", Metadata={"sha256": "0"})
    output = fake_aws.run("undeploy", "--endpoint", "shop")
    assert "Removed shop and its resources" in output
    after = fake_aws.resources()
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


def test_second_run_finds_nothing(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.run("undeploy", "--endpoint", "shop")
    fake_aws.reset_calls()
    output = fake_aws.run("undeploy", "--endpoint", "shop")
    assert "eu-central-1 has no resources of d2serve named shop" in output
    assert fake_aws.changes == []


@pytest.mark.parametrize("index", range(len(REMOVAL)), ids=REMOVAL)
def test_next_run_resumes_after_a_failure(
    index: int, fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package(), *CASES["async, to zero"][0]))
    fake_aws.reset_calls()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        fake_aws.run("undeploy", "--endpoint", "shop")
    assert fake_aws.changes == REMOVAL[: index + 1]
    fake_aws.reset_calls()
    fake_aws.run("undeploy", "--endpoint", "shop")
    left = fake_aws.resources()
    assert left.pop("buckets") == [BUCKET]
    assert not any(left.values()), left


def test_packages_of_earlier_deployments_are_removed(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.run("deploy", *arguments(package(content="better")))
    assert len(fake_aws.resources()["objects"]) == 2
    fake_aws.run("undeploy", "--endpoint", "shop")
    assert fake_aws.resources()["objects"] == []


def test_endpoint_of_another_tool_is_rejected(fake_aws: FakeAws) -> None:
    make_foreign_endpoint(fake_aws)
    before = fake_aws.resources()
    with pytest.raises(CommandError, match="was not created by d2serve"):
        fake_aws.run("undeploy", "--endpoint", "shop")
    assert fake_aws.changes == []
    assert fake_aws.resources() == before


def test_dry_run_shows_all_calls_and_makes_none(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package(), *CASES["async, to zero"][0]))
    before = fake_aws.resources()
    fake_aws.reset_calls()
    output = fake_aws.run("undeploy", "--endpoint", "shop", "--dry-run")
    assert f"{len(REMOVAL)} calls shown, none made" in output
    assert fake_aws.changes == []
    assert fake_aws.resources() == before


def test_invalid_endpoint_name(fake_aws: FakeAws) -> None:
    with pytest.raises(CommandError, match="--endpoint 'a_b'"):
        fake_aws.run("undeploy", "--endpoint", "a_b")


def test_failed_deletion_is_reported(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.run("deploy", *arguments(package()))
    fake_aws.scenario.is_stuck = True
    with pytest.raises(CommandError, match="shop could not be deleted: it is Failed"):
        fake_aws.run("undeploy", "--endpoint", "shop")
    assert len(fake_aws.resources()["models"]) == 1
