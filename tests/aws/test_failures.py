"""Failures of AWS and of the connection to it."""

import io
import time
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.credentials import CredentialResolver
from rich.console import Console

from d2serve.aws.account import Account
from d2serve.aws.waiting import log_tail
from d2serve.cli.run import run
from d2serve.errors import ArchiveError, CommandError
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import LOADER, REGION, FakeAws, new_session, run_on
from tests.aws.test_deploy import CASES, arguments
from tests.aws.test_updates import interrupt

GROUP = "/aws/sagemaker/Endpoints/shop"


def write_log(fake_aws: FakeAws, group: str, stream: str, lines: list[str]) -> None:
    logs = fake_aws.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + i, "message": line} for i, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_failed_endpoint_is_reported_with_its_log_and_removed(
    fake_aws: FakeAws, package: WritePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fake_aws.resources()
    fake_aws.scenario.statuses = ["Creating", "Creating", "Failed"]
    write_log(fake_aws, GROUP, "AllTraffic/i-1", [f"line {i}" for i in range(40)])
    with pytest.raises(SystemExit) as ended:
        run(lambda: int(bool(fake_aws.run("deploy", *arguments(package())))))
    assert ended.value.code == 1
    output = capsys.readouterr().err
    assert "shop is Failed: the container did not pass its health check" in output
    assert "line 39" in output
    assert "line 10\n" in output
    assert "line 9\n" not in output
    assert fake_aws.resources() == before


def test_missing_log_is_not_an_error(fake_aws: FakeAws) -> None:
    assert GROUP in log_tail(fake_aws.account()[0], GROUP)


def test_waiting_polls_and_sleeps(fake_aws: FakeAws, package: WritePackage) -> None:
    sleeps: list[float] = []
    fake_aws.on_sleep = sleeps.append
    fake_aws.scenario.statuses = ["Creating", "Creating", "Creating", "InService"]
    fake_aws.run("deploy", *arguments(package()))
    assert sleeps == [15.0] * 3


def test_waiting_times_out(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.scenario.statuses = ["Creating"]
    with pytest.raises(CommandError, match="not complete the change within 2 hours; nothing was"):
        fake_aws.run("deploy", *arguments(package()))
    assert fake_aws.resources()["endpoints"] == ["shop"]


def test_interrupted_creation_is_rolled_back(fake_aws: FakeAws, package: WritePackage) -> None:
    before = fake_aws.resources()
    fake_aws.scenario.statuses = ["Creating"]
    fake_aws.on_sleep = interrupt
    fake_aws.run("deploy", *arguments(package()), exit_code=130)
    assert fake_aws.resources() == before


def test_failed_rollback_is_reported(fake_aws: FakeAws, package: WritePackage) -> None:
    fake_aws.scenario.statuses = ["Creating", "Failed"]
    fake_aws.fail_at = 5  # the first call of the rollback
    account, output = fake_aws.account()
    with pytest.raises(CommandError, match="shop is Failed"):
        run_on(account, "deploy", *arguments(package()))
    assert "rollback failed: sagemaker.delete_endpoint: ThisOneFails" in output.getvalue()
    for call in ("delete_endpoint ", "delete_endpoint_config", "delete_model", "delete_object"):
        assert f".{call}" in output.getvalue().partition("remaining calls:")[2]
    assert fake_aws.resources()["configs"] != []
    fake_aws.run("undeploy", "--endpoint", "shop")
    assert fake_aws.resources()["objects"] == []


def test_endpoint_of_another_tool_is_unchanged(fake_aws: FakeAws, package: WritePackage) -> None:
    make_foreign_endpoint(fake_aws)
    before = fake_aws.resources()
    fake_aws.reset_calls()
    with pytest.raises(CommandError, match="shop was not created by d2serve"):
        fake_aws.run("deploy", *arguments(package()))
    assert fake_aws.changes == []
    assert fake_aws.resources() == before


def make_foreign_endpoint(fake_aws: FakeAws, name: str = "shop") -> None:
    """Create an endpoint with names like those of d2serve, without its tag."""
    sagemaker = fake_aws.client("sagemaker")
    sagemaker.create_model(
        ModelName=f"{name}-000000000000", ExecutionRoleArn="arn:aws:iam::123456789012:role/Theirs"
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": f"{name}-000000000000",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    config = f"{name}-111111111111"
    sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)


def offline_account(region: str | None) -> Account:
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    core.register_component("credential_provider", CredentialResolver([]))
    session = boto3.Session(region_name=region, botocore_session=core)
    # A port without a listener: every call fails.
    return Account(session, endpoint_url="http://127.0.0.1:9", console=Console(file=io.StringIO()))


@pytest.mark.parametrize("case", CASES)
def test_dry_run_needs_no_credentials(
    case: str, package: WritePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    options, calls = CASES[case]
    account = offline_account(REGION)
    output = io.StringIO()
    account.console = Console(file=output, soft_wrap=True)
    assert run_on(account, "deploy", *arguments(package(), *options), "--dry-run") == 0
    assert (
        "No credentials: showing the calls for an empty account, 123456789012" in output.getvalue()
    )
    assert f"{len(calls)} calls shown, none made" in output.getvalue()


def test_missing_credentials(package: WritePackage) -> None:
    with pytest.raises(CommandError, match=r"no AWS credentials .*`aws configure`"):
        run_on(offline_account(REGION), "deploy", *arguments(package()))


def test_missing_region(fake_aws: FakeAws, package: WritePackage) -> None:
    account, _ = fake_aws.account(new_session(region=None))
    with pytest.raises(CommandError, match="--region"):
        run_on(account, "deploy", *arguments(package()))


def test_unreachable_aws(package: WritePackage) -> None:
    account = Account(new_session(), endpoint_url="http://127.0.0.1:9")
    with pytest.raises(CommandError, match="Could not connect to the endpoint"):
        run_on(account, "deploy", *arguments(package()))


def test_missing_package(fake_aws: FakeAws, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="d2serve package --name none"):
        fake_aws.run("deploy", *arguments(tmp_path / "none.tar.gz"))
    assert fake_aws.calls == []
