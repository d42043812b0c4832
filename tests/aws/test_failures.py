"""What goes wrong on AWS's side, and on the way there."""

import io
import time
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.credentials import CredentialResolver
from rich.console import Console

from d2serve.aws import deploy, undeploy
from d2serve.aws.account import Account
from d2serve.aws.steps import log_tail
from d2serve.cli.run import run as run_command
from d2serve.errors import CommandError
from tests.aws.conftest import WritePackage
from tests.aws.test_deploy import CASES, arguments
from tests.aws.test_updates import interrupt
from tests.aws.world import LOADER, REGION, World, new_session

GROUP = "/aws/sagemaker/Endpoints/shop"


def write_log(world: World, group: str, stream: str, lines: list[str]) -> None:
    logs = world.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + i, "message": line} for i, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_a_failed_endpoint_is_told_with_its_log_and_removed(
    world: World, package: WritePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = world.holdings()
    world.fate.statuses = ["Creating", "Creating", "Failed"]
    write_log(world, GROUP, "AllTraffic/i-1", [f"line {i}" for i in range(40)])
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: int(bool(world.run(deploy.main, *arguments(package())))))
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "shop is Failed: the container did not pass its health check" in told
    assert "line 39" in told
    assert "line 10\n" in told
    assert "line 9\n" not in told
    assert world.holdings() == before


def test_no_log_is_no_further_failure(world: World) -> None:
    assert GROUP in log_tail(world.account()[0], GROUP)


def test_waiting_polls_and_sleeps(world: World, package: WritePackage) -> None:
    slept: list[float] = []
    world.on_sleep = slept.append
    world.fate.statuses = ["Creating", "Creating", "Creating", "InService"]
    world.run(deploy.main, *arguments(package()))
    assert slept == [15.0] * 3


def test_waiting_ends(world: World, package: WritePackage) -> None:
    world.fate.statuses = ["Creating"]
    with pytest.raises(CommandError, match="not done within 2 hours; everything was left"):
        world.run(deploy.main, *arguments(package()))
    assert world.holdings()["endpoints"] == ["shop"]


def test_an_interrupted_creation_is_taken_back(world: World, package: WritePackage) -> None:
    before = world.holdings()
    world.fate.statuses = ["Creating"]
    world.on_sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.run(deploy.main, *arguments(package()))
    assert world.holdings() == before


def test_what_cannot_be_taken_back_is_told(world: World, package: WritePackage) -> None:
    world.fate.statuses = ["Creating", "Failed"]
    world.fail_at = 5  # the first that takes something back
    account, told = world.account()
    with pytest.raises(CommandError, match="shop is Failed"):
        deploy.main(arguments(package()), connect=lambda _: account)
    assert "could not clean up: sagemaker.delete_endpoint: ThisOneFails" in told.getvalue()
    for call in ("delete_endpoint ", "delete_endpoint_config", "delete_model", "delete_object"):
        assert f".{call}" in told.getvalue().partition("still to be done:")[2]
    assert world.holdings()["configs"] != []
    world.run(undeploy.main, "--endpoint", "shop")
    assert world.holdings()["objects"] == []


def test_an_endpoint_of_others_is_left_alone(world: World, package: WritePackage) -> None:
    make_foreign_endpoint(world)
    before = world.holdings()
    world.fresh()
    with pytest.raises(CommandError, match="shop was not made by d2serve"):
        world.run(deploy.main, *arguments(package()))
    assert world.changes == []
    assert world.holdings() == before


def make_foreign_endpoint(world: World, name: str = "shop") -> None:
    """Names as ours would be, and no tag."""
    sagemaker = world.client("sagemaker")
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


def nobody(region: str | None) -> Account:
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    core.register_component("credential_provider", CredentialResolver([]))
    session = boto3.Session(region_name=region, botocore_session=core)
    # Nothing listens there: whoever asks AWS fails the test.
    return Account(session, endpoint_url="http://127.0.0.1:9", console=Console(file=io.StringIO()))


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_needs_no_credentials(
    case: str, package: WritePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    options, calls = CASES[case]
    account = nobody(REGION)
    told = io.StringIO()
    account.console = Console(file=told, soft_wrap=True)
    arguments_ = arguments(package(), *options, "--dry-run")
    assert deploy.main(arguments_, connect=lambda _: account) == 0
    assert "No credentials: the account 123456789012 stands for yours" in told.getvalue()
    assert f"{len(calls)} calls shown, none made" in told.getvalue()


def test_no_credentials_are_told(package: WritePackage) -> None:
    with pytest.raises(CommandError, match=r"no AWS credentials .*`aws configure`"):
        deploy.main(arguments(package()), connect=lambda _: nobody(REGION))


def test_no_region_is_told(world: World, package: WritePackage) -> None:
    account, _ = world.account(new_session(region=None))
    with pytest.raises(CommandError, match="REGION="):
        deploy.main(arguments(package()), connect=lambda _: account)


def test_no_way_to_aws_is_told(package: WritePackage) -> None:
    account = Account(new_session(), endpoint_url="http://127.0.0.1:9")
    with pytest.raises(CommandError, match="Could not connect to the endpoint"):
        deploy.main(arguments(package()), connect=lambda _: account)


def test_a_missing_package_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="make package"):
        world.run(deploy.main, *arguments(tmp_path / "none.tar.gz"))
    assert world.calls == []
