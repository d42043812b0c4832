from datetime import datetime, timezone
from pathlib import Path

import pytest

from d2serve.aws import transform
from d2serve.aws.steps import TRANSFORM_JOBS
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.test_deploy import parameters
from tests.aws.test_failures import nobody, write_log
from tests.aws.test_updates import interrupt
from tests.aws.world import BUCKET, REGION, World

CALLS = [
    "s3.CreateBucket",
    "s3.PutObject",
    "sagemaker.CreateModel",
    "sagemaker.CreateTransformJob",
]
CLEANING = ["sagemaker.DeleteModel", "s3.DeleteObject"]
JOB = "shapes-20260102-030405"


def arguments(package: Path, *more: str) -> list[str]:
    places = ["--input", "s3://in/pictures/", "--output", "s3://out/answers", "--role", "Serving"]
    return ["--package", str(package), *places, *more]


def at_that_time() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def run(world: World, package: Path, *more: str) -> str:
    return world.run(transform.main, *arguments(package, *more), now=at_that_time)


def test_a_job_runs_and_leaves_its_answers_alone(world: World, package: WritePackage) -> None:
    told = run(world, package(), "--kms-key", "alias/ours", "--env", "A=b")
    assert f"{JOB} is done; its answers are in s3://out/answers" in told
    assert world.changes == CALLS + CLEANING
    request = parameters(world, "sagemaker.CreateTransformJob")
    assert request["TransformJobName"] == request["ModelName"] == JOB
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    assert source == {"S3DataType": "S3Prefix", "S3Uri": "s3://in/pictures/"}
    assert request["TransformOutput"]["KmsKeyId"] == "alias/ours"
    assert request["TransformResources"]["VolumeKmsKeyId"] == "alias/ours"
    container = parameters(world, "sagemaker.CreateModel")["PrimaryContainer"]
    assert container["ModelDataUrl"] == f"s3://{BUCKET}/d2serve-transform/{JOB}/shapes.tar.gz"
    assert container["Environment"]["A"] == "b"
    holdings = world.holdings()
    assert holdings.pop("buckets") == [BUCKET]  # it may hold the answers
    assert not any(holdings.values())


@pytest.mark.parametrize("index", range(len(CALLS)), ids=CALLS)
def test_a_failure_leaves_nothing_behind(index: int, world: World, package: WritePackage) -> None:
    before = world.holdings()
    world.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        run(world, package())
    assert world.holdings() == before


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_failed_job_is_told_with_its_log(
    status: str, world: World, package: WritePackage
) -> None:
    before = world.holdings()
    world.fate.job_statuses = ["InProgress", status]
    write_log(world, TRANSFORM_JOBS, f"{JOB}/i-2", ["no memory left"])
    write_log(world, TRANSFORM_JOBS, "shapes-1/i-1", ["not this"])
    with pytest.raises(CommandError, match=f"{JOB} is {status}: the container") as failed:
        run(world, package())
    assert "no memory left" in str(failed.value)
    assert "not this" not in str(failed.value)
    assert world.holdings() == before


def test_an_interrupted_job_is_stopped(world: World, package: WritePackage) -> None:
    world.on_sleep = interrupt
    world.fate.job_statuses = ["InProgress"]
    with pytest.raises(KeyboardInterrupt):
        run(world, package())
    assert "sagemaker.StopTransformJob" in world.changes
    assert world.holdings()["models"] == []


@pytest.mark.parametrize("has_credentials", [True, False])
def test_a_dry_run_makes_no_calls(
    has_credentials: bool, world: World, package: WritePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_credentials:
        told = run(world, package(), "--dry-run")
    else:
        options = arguments(package(), "--dry-run")
        account = nobody(REGION)
        transform.main(options, connect=lambda _: account, now=at_that_time)
        told = account.console.file.getvalue()  # type: ignore[attr-defined]
    assert "4 calls shown, none made" in told
    assert world.changes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "pictures/"], "INPUT 'pictures/': an S3 address"),
        (["--output", "out"], "OUTPUT 'out': an S3 address"),
        (["--requests-at-once", "17"], "17 requests at once of up to 6 MB"),
        (["--instances", "0"], "must be 1 or more"),
        (["--subnets", "subnet-1"], "both SUBNETS and SECURITY_GROUPS"),
        (["--instance", "ml.inf2.xlarge"], "x86 CPUs and NVIDIA GPUs"),
        (["--env", "A"], "KEY=VALUE"),
    ],
)
def test_what_a_job_cannot_be(
    options: list[str], message: str, world: World, package: WritePackage
) -> None:
    with pytest.raises(CommandError, match=message):
        run(world, package(), *options)
    assert world.changes == []


@pytest.mark.parametrize(
    ("name", "job"),
    [("my_model", "my-model-20260102-030405"), ("a" * 60, f"{'a' * 40}-20260102-030405")],
)
def test_a_job_is_named_as_sagemaker_takes_it(
    name: str, job: str, world: World, package: WritePackage
) -> None:
    assert f"{job} is done" in run(world, package(name))
