from datetime import datetime, timezone
from pathlib import Path

import pytest

from d2serve.aws.waiting import TRANSFORM_LOGS
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import BUCKET, REGION, FakeAws, run_on
from tests.aws.test_deploy import parameters
from tests.aws.test_failures import offline_account, write_log
from tests.aws.test_updates import interrupt

CALLS = [
    "s3.CreateBucket",
    "s3.PutObject",
    "sagemaker.CreateModel",
    "sagemaker.CreateTransformJob",
]
CLEANING = ["sagemaker.DeleteModel", "s3.DeleteObject"]
JOB = "shapes-20260102-030405"


def arguments(package: Path, *more: str) -> list[str]:
    urls = ["--input", "s3://in/images/", "--output", "s3://out/answers", "--role", "Serving"]
    return ["--package", str(package), *urls, *more]


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def run(fake_aws: FakeAws, package: Path, *more: str) -> str:
    return fake_aws.run("transform", *arguments(package, *more), now=NOW)


def test_job_leaves_only_its_responses(fake_aws: FakeAws, package: WritePackage) -> None:
    output = run(fake_aws, package(), "--kms-key", "alias/ours", "--env", "A=b")
    assert f"{JOB} is done; its responses are in s3://out/answers" in output
    assert fake_aws.changes == CALLS + CLEANING
    request = parameters(fake_aws, "sagemaker.CreateTransformJob")
    assert request["TransformJobName"] == request["ModelName"] == JOB
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    assert source == {"S3DataType": "S3Prefix", "S3Uri": "s3://in/images/"}
    assert request["TransformOutput"]["KmsKeyId"] == "alias/ours"
    assert request["TransformResources"]["VolumeKmsKeyId"] == "alias/ours"
    container = parameters(fake_aws, "sagemaker.CreateModel")["PrimaryContainer"]
    assert container["ModelDataUrl"] == f"s3://{BUCKET}/d2serve-transform/{JOB}/shapes.tar.gz"
    assert container["Environment"]["A"] == "b"
    resources = fake_aws.resources()
    assert resources.pop("buckets") == [BUCKET]  # it may contain the responses
    assert not any(resources.values())


@pytest.mark.parametrize("index", range(len(CALLS)), ids=CALLS)
def test_failure_is_rolled_back(index: int, fake_aws: FakeAws, package: WritePackage) -> None:
    before = fake_aws.resources()
    fake_aws.fail_at = index
    with pytest.raises(CommandError, match="ThisOneFails"):
        run(fake_aws, package())
    assert fake_aws.resources() == before


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_failed_job_is_reported_with_its_log(
    status: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    before = fake_aws.resources()
    fake_aws.scenario.job_statuses = ["InProgress", status]
    write_log(fake_aws, TRANSFORM_LOGS, f"{JOB}/i-2", ["no memory left"])
    write_log(fake_aws, TRANSFORM_LOGS, "shapes-1/i-1", ["not this"])
    with pytest.raises(CommandError, match=f"{JOB} is {status}: the container") as failed:
        run(fake_aws, package())
    assert "no memory left" in str(failed.value)
    assert "not this" not in str(failed.value)
    assert fake_aws.resources() == before


def test_interrupted_job_is_stopped(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.on_sleep = interrupt
    fake_aws.scenario.job_statuses = ["InProgress"]
    fake_aws.run("transform", *arguments(package()), exit_code=130, now=NOW)
    assert "sagemaker.StopTransformJob" in fake_aws.changes
    assert fake_aws.resources()["models"] == []


@pytest.mark.parametrize("has_credentials", [True, False])
def test_dry_run_makes_no_calls(
    has_credentials: bool,
    fake_aws: FakeAws,
    package: WritePackage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if has_credentials:
        output = run(fake_aws, package(), "--dry-run")
    else:
        account = offline_account(REGION)
        run_on(account, "transform", *arguments(package(), "--dry-run"), now=NOW)
        output = account.console.file.getvalue()  # type: ignore[attr-defined]
    assert "4 calls shown, none made" in output
    assert fake_aws.changes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "images/"], "--input 'images/' is not an S3 URL"),
        (["--output", "out"], "--output 'out' is not an S3 URL"),
        (["--requests-at-once", "17"], "--requests-at-once 17 times --max-payload-mb 6 exceeds"),
        (["--instances", "0"], "--instances 0 is out of range: use a number from 1"),
        (["--subnets", "subnet-1"], "both --subnets and --security-groups"),
        (["--instance", "ml.inf2.xlarge"], "x86 CPUs and NVIDIA GPUs"),
        (["--env", "A"], "KEY=VALUE"),
    ],
)
def test_invalid_options_are_rejected(
    options: list[str], message: str, fake_aws: FakeAws, package: WritePackage
) -> None:
    with pytest.raises(CommandError, match=message):
        run(fake_aws, package(), *options)
    assert fake_aws.changes == []


@pytest.mark.parametrize(
    ("name", "job"),
    [("my_model", "my-model-20260102-030405"), ("a" * 60, f"{'a' * 40}-20260102-030405")],
)
def test_job_name(name: str, job: str, fake_aws: FakeAws, package: WritePackage) -> None:
    assert f"{job} is done" in run(fake_aws, package(name))
