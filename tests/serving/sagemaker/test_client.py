"""The client against a server, and against both kinds of endpoints in front of a container."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import d2serve
from d2serve.aws.local_container import Container
from d2serve.client import Client, HttpTransport, Sender
from d2serve.detections import Detections
from d2serve.errors import PredictionError
from d2serve.servers.torchserve.launcher.server import Server
from tests.client.comparison import assert_equal
from tests.client.conftest import Connect
from tests.client.runtime import Received, Response
from tests.serving.traffic import pixels

TIMEOUT_S = 300
NAMES = {
    "x-amzn-sagemaker-content-type": "content-type",
    "x-amzn-sagemaker-accept": "accept",
}


def forward_to(container: Container, received: Received) -> Response:
    """Forward a request as SageMaker does; return the container's response."""
    headers = {NAMES.get(name, name): value for name, value in received.headers.items()}
    forwarded = {
        name: value
        for name, value in headers.items()
        if name in ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")
    }
    url = f"{container.url}/invocations"
    response = httpx.post(
        url, content=received.body, headers=forwarded, timeout=TIMEOUT_S, trust_env=False
    )
    return Response(response.status_code, response.content, response.headers["content-type"])


@pytest.fixture(params=["server", "now", "later"])
def sender(
    request: pytest.FixtureRequest, server: Server, container: Container, connect: Connect
) -> Sender:
    if request.param == "server":
        return Sender(HttpTransport(f"{server.url}/invocations"))
    return connect(request.param, lambda received: forward_to(container, received))[0]


@pytest.fixture
def client(sender: Sender) -> Iterator[Client]:
    """A client of the sender's transport; results are those of a model in this process."""
    with Client(sender._transport, sleep=lambda _: None) as opened:
        yield opened


def test_files_arrays_and_several_images(client: Client, shapes_mar: Path, png: Path) -> None:
    with d2serve.load(shapes_mar) as model:
        [expected] = model.predict(png)
    assert len(expected) > 1
    pair = np.stack([pixels(png)] * 2)
    for found in client.predict([png, pixels(png), pair, png.read_bytes(), Image.open(png)]):
        assert_equal(found, expected)
    assert client.class_names == model.class_names


def test_options_and_errors(client: Client, png: Path) -> None:
    [best] = client.predict(str(png), max_detections=1, masks="polygon")
    assert len(best) == 1
    assert best.masks_dense().any()
    good, bad = client.predict_each([png, b"no image"])
    assert isinstance(good, Detections)
    assert isinstance(bad, PredictionError)
    assert bad.code == "unsupported_media_type"


def test_overlays(sender: Sender, png: Path) -> None:
    with sender:
        assert sender.predict(png, accept="image/png").content.startswith(b"\x89PNG")
