import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from tests.aws import sagemaker_server
from tests.aws.fake_aws import FakeAws, Session
from tests.aws.sagemaker_server import SageMaker, Scenario

WritePackage = Callable[..., Path]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    sagemaker_server.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def hide_real_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's AWS configuration from the tests."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def fake_aws(moto_url: str) -> Iterator[FakeAws]:
    """An empty account except for a role named Serving."""
    fake_aws = Session.recorder = FakeAws(moto_url)
    fake_aws.client("iam").create_role(
        RoleName="Serving", AssumeRolePolicyDocument=json.dumps(TRUST), Path="/"
    )
    yield fake_aws
    # Shared by all servers of this process.
    SageMaker.scenario = Scenario()
    SageMaker.next_statuses.clear()
    httpx.post(f"{moto_url}/moto-api/reset", timeout=60, trust_env=False).raise_for_status()


@pytest.fixture
def package(tmp_path: Path) -> WritePackage:
    """Writes minimal packages; different `content` gives different digests."""

    def write(
        name: str = "shapes",
        content: str = "weights",
        classes: str = '["circle", "star"]',
        *,
        for_ray: bool = False,
    ) -> Path:
        manifest = {"model": {"modelName": name, "modelVersion": "1.0"}}
        root = "model/" if for_ray else ""
        files = {
            f"{root}MAR-INF/MANIFEST.json": json.dumps(manifest),
            f"{root}classes.json": classes,
            f"{root}model.pth": content,
            **({"config.yaml": "applications: []"} if for_ray else {}),
        }
        folder = tmp_path / content
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.tar.gz"
        path.write_bytes(_tar(files))
        return path

    return write


def _tar(files: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(file.getvalue(), mtime=0)
