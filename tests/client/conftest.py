"""SageMaker endpoints without AWS: moto's server, and a fake runtime in front of a container."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from d2serve.client.sagemaker import AsyncEndpointTransport, endpoint_transport
from d2serve.client.sender import Sender
from tests.client.runtime import Container, Runtime

REGION = "eu-central-1"
BUCKET = "responses-of-an-endpoint"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
VARIANT = {"VariantName": "AllTraffic", "ModelName": "model"}
ROLE = "arn:aws:iam::123456789012:role/Serving"


class Session(boto3.Session):  # type: ignore[misc]
    """Fake credentials, and a URL per service."""

    def __init__(self, urls: dict[str, str], url: str) -> None:
        super().__init__(region_name=REGION, **KEYS)
        self._urls, self.url = urls, url

    def client(self, service_name: str, **options: Any) -> Any:
        url = self._urls.get(service_name, self.url)
        return super().client(service_name, endpoint_url=url, **options)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_url: str) -> Iterator[Session]:
    """An account with the real-time endpoint `now` and the asynchronous endpoint `later`."""
    session = Session({}, moto_url)
    session.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    sagemaker = session.client("sagemaker")
    sagemaker.create_model(
        ModelName="model", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "image"}
    )
    variant = VARIANT | {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    output = {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out"}}
    for name, more in {"now": {}, "later": {"AsyncInferenceConfig": output}}.items():
        sagemaker.create_endpoint_config(
            EndpointConfigName=f"{name}-1", ProductionVariants=[variant], **more
        )
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1")
    yield session
    httpx.post(f"{moto_url}/moto-api/reset", timeout=60, trust_env=False).raise_for_status()


Connect = Callable[..., tuple[Sender, Runtime]]


@pytest.fixture
def connect(aws: Session, moto_url: str) -> Iterator[Connect]:
    """Returns a client of an endpoint, and the runtime in front of the given container."""
    with ExitStack() as stack:

        def open_client(endpoint: str, container: Container, **more: Any) -> tuple[Sender, Runtime]:
            runtime = stack.enter_context(Runtime(container, aws.client("s3"), BUCKET))
            Thread(target=runtime.serve_forever, daemon=True).start()
            stack.callback(runtime.shutdown)
            session = Session({"sagemaker-runtime": runtime.url}, moto_url)
            transport = endpoint_transport(endpoint, session, **more)
            assert isinstance(transport, AsyncEndpointTransport) == (endpoint == "later")
            return stack.enter_context(Sender(transport, sleep=lambda _: None)), runtime

        yield open_client
