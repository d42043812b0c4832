"""Runs every command and example of docs/sagemaker.md against fake AWS services."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from d2serve.aws.local_container import Container
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.client.conftest import Connect, Session
from tests.client.runtime import Runtime
from tests.environment import clean_environment
from tests.serving.sagemaker.test_client import forward_to
from tests.serving.test_readme import blocks_of, commands_of, is_healthy, project, serving

__all__ = ["project"]

PAGE = "docs/sagemaker.md"
FAKE_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "NO_PROXY": "127.0.0.1",
}
BLOCK_OF = {"boto3": 0, "client": 1, "sagemaker": 2}
PRINTED = {
    "boto3": r"\['\w+'.*\]",
    "client": r"\['\w+'.*\] \(\d+, 4\) \(\d+, \d+, \d+\)",
    "sagemaker": r"\[\]",
}


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_kind_of_command_on_the_page_is_tested(repo_root: Path) -> None:
    kinds = {" ".join(command.split()[:2]) for command in commands_of(repo_root / PAGE)}
    assert kinds == {
        *("make archive", "make package", "make sagemaker-local", "make deploy", "make undeploy"),
        *("make predict", "make transform", "make clarify", "curl -T", "curl --aws-sigv4"),
    }


@pytest.fixture(scope="module")
def built(repo_root: Path, project: Path) -> Path:
    """A copy of the repository with the archive and packages of the page."""
    for command in commands_of(repo_root / PAGE):
        if command.startswith(("make archive", "make package")):
            run(["bash", "-c", command], project)
    return project


def test_dry_runs_print_the_aws_calls(repo_root: Path, built: Path) -> None:
    makes = re.compile(r"make (deploy|transform) .*DRY_RUN=1")
    commands = [command for command in commands_of(repo_root / PAGE) if makes.match(command)]
    assert len(commands) == 3
    for command in commands:
        assert "sagemaker.create_" in run(["bash", "-c", command], built)


def test_clarify_writes_the_analysis_configuration(repo_root: Path, built: Path) -> None:
    [command] = [c for c in commands_of(repo_root / PAGE) if c.startswith("make clarify")]
    run(["bash", "-c", command], built)
    assert json.loads((built / "out" / "analysis_config.json").read_text())


def test_packages_are_served_locally(repo_root: Path, built: Path, port: str) -> None:
    commands = commands_of(repo_root / PAGE)
    one, many = [command for command in commands if command.startswith("make sagemaker-local")]
    [request] = [command for command in commands if command.startswith("curl -T")]

    def responds(port: str, route: str = "models/shapes/invoke") -> bool:
        command = request.replace("8080/invocations", f"{port}/{route}")
        return '"names"' in run(["bash", "-c", command], built)

    with serving(one, built, port):
        assert responds(port, "invocations")
    # A multi-model endpoint is healthy before it has any model.
    one_more = many.removesuffix("PORT=9080")
    with serving(one_more, built, port, lambda port: is_healthy(port) and responds(port)):
        assert responds(port)


def test_deploy_predict_and_undeploy(
    repo_root: Path, built: Path, container: Container, connect: Connect, aws: Session
) -> None:
    deploy, predict, undeploy = (
        next(command for command in commands_of(repo_root / PAGE) if command.startswith(verb))
        for verb in ("make deploy", "make predict", "make undeploy")
    )
    trust = {"Version": "2012-10-17", "Statement": []}
    aws.client("iam").create_role(
        RoleName="MySageMakerRole", AssumeRolePolicyDocument=json.dumps(trust)
    )
    _, runtime = connect("now", lambda request: forward_to(container, request))
    sagemaker = aws.client("sagemaker")
    before = len(sagemaker.list_endpoints()["Endpoints"])

    def execute(command: str, *, dry: bool = False) -> str:
        executed = command if dry else command.replace("DRY_RUN=1", "")
        return run(
            ["bash", "-c", executed], built, **FAKE_CREDENTIALS, **addresses_of(aws, runtime)
        )

    assert "in service" in execute(deploy)
    assert len(sagemaker.list_endpoints()["Endpoints"]) == before + 1
    assert "shapes_01.jpg" in execute(predict)
    assert "sagemaker.delete_endpoint" in execute(undeploy, dry=True)
    execute(undeploy)
    assert len(sagemaker.list_endpoints()["Endpoints"]) == before


def addresses_of(aws: Session, runtime: Runtime) -> dict[str, str]:
    """Endpoint URLs of the fake services for boto3."""
    return {"AWS_ENDPOINT_URL": aws.url, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url}


@pytest.fixture
def port() -> str:
    return str(Ports.free().inference)


@pytest.mark.parametrize("example", PRINTED)
def test_python_examples_work(
    repo_root: Path, container: Container, connect: Connect, aws: Session, example: str
) -> None:
    code = blocks_of(repo_root / PAGE, "python")[BLOCK_OF[example]].replace('"shapes"', '"now"')
    _, runtime = connect("now", lambda request: forward_to(container, request))
    sdk = repo_root / ".venv-sagemaker" / "bin" / "python"
    python = str(sdk) if example == "sagemaker" else sys.executable
    printed = run([python, "-c", code], repo_root, **FAKE_CREDENTIALS, **addresses_of(aws, runtime))
    assert re.fullmatch(PRINTED[example], printed.strip().splitlines()[-1]), printed


def test_curl_example_works(repo_root: Path, container: Container, connect: Connect) -> None:
    [command] = [c for c in commands_of(repo_root / PAGE) if "--aws-sigv4" in c]
    _, runtime = connect("now", lambda request: forward_to(container, request))
    address = re.sub(r"https://runtime\.\S+?\.com", runtime.url, command)
    assert '"names"' in run(["bash", "-c", address], repo_root, **FAKE_CREDENTIALS)
    [received] = runtime.received
    assert "/eu-central-1/sagemaker/aws4_request" in received.headers["authorization"]
