"""The client against a server, and against both kinds of endpoints in front of a container."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from d2serve.aws.local_container import Container
from d2serve.client.client import Client
from d2serve.client.http import HttpTransport
from d2serve.client.predictions import Prediction
from d2serve.errors import PredictionError
from d2serve.servers.torchserve.launcher.server import Server
from tests.client.conftest import Connect
from tests.client.runtime import Received, Response
from tests.serving.traffic import pixels

TIMEOUT_S = 120
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
def client(
    request: pytest.FixtureRequest, server: Server, container: Container, connect: Connect
) -> Client:
    if request.param == "server":
        return Client(HttpTransport(f"{server.url}/invocations"))
    return connect(request.param, lambda received: forward_to(container, received))[0]


def assert_same(found: Prediction, expected: Prediction) -> None:
    assert found.names == expected.names
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=0.01)
    assert (found.masks() == expected.masks()).mean() > 0.999


def test_files_arrays_and_several_images(client: Client, server: Server, png: Path) -> None:
    with client, Client(HttpTransport(f"{server.url}/invocations")) as local:
        [expected] = local.detect(png)
        assert len(expected) > 1
        assert expected.masks().shape == (len(expected), *expected.size_hw)
        [of_file] = client.detect(png)
        assert_same(of_file, expected)
        [of_array] = client.detect(pixels(png))
        assert_same(of_array, expected)
        pair = client.detect(np.stack([pixels(png)] * 2))
        assert len(pair) == 2
        assert_same(pair[1], expected)


def test_options_overlays_and_errors(client: Client, png: Path) -> None:
    with client:
        [best] = client.detect(png, max_detections=1, masks="polygon")
        assert len(best) == 1
        assert best.masks().any()
        assert client.predict(png, accept="image/png").content.startswith(b"\x89PNG")
        with pytest.raises(PredictionError, match="unsupported_media_type"):
            client.predict(b"no image")
