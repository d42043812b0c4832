import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.traffic import (
    Body,
    assert_same_prediction,
    image_body,
    images_run_together,
    npy_body,
    pixels,
)

ROUTES = ["/invocations", "/predictions/shapes", "/predictions/shapes/1.0"]


@pytest.mark.parametrize("route", ROUTES)
def test_jpeg_and_png(server: Server, http: httpx.Client, samples: list[Path], route: str) -> None:
    for sample in samples:
        response = image_body(sample).post(http, server.url + route)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        content = response.json()
        with Image.open(sample) as image:
            assert content["image"] == {"width": image.width, "height": image.height}
        lengths = {len(content[key]) for key in ("boxes", "scores", "classes", "names", "masks")}
        assert len(lengths) == 1
        assert content["scores"] == sorted(content["scores"], reverse=True)


def test_the_samples_contain_instances(http: httpx.Client, url: str, samples: list[Path]) -> None:
    assert all(image_body(sample).post(http, url).json()["names"] for sample in samples)


@pytest.mark.parametrize("route", ROUTES)
def test_npy_gets_the_same_response_as_the_image(
    server: Server, http: httpx.Client, png: Path, route: str
) -> None:
    expected = image_body(png).post(http, server.url + route).json()
    assert_same_prediction(npy_body(pixels(png)).post(http, server.url + route).json(), expected)


def test_several_images_of_an_array_keep_their_order(
    http: httpx.Client, url: str, png: Path
) -> None:
    image = pixels(png)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    both = npy_body(np.stack([image, mirrored])).post(http, url).json()
    assert [len(both), len(both["predictions"])] == [1, 2]
    for prediction, alone in zip(both["predictions"], [image, mirrored], strict=True):
        assert_same_prediction(prediction, npy_body(alone).post(http, url).json())


def test_the_bytes_take_precedence_over_the_declared_type(
    http: httpx.Client, url: str, png: Path
) -> None:
    expected = image_body(png).post(http, url).json()
    for declared in ("image/jpeg", "application/octet-stream", "application/x-image"):
        assert_same_prediction(Body(png.read_bytes(), declared).post(http, url).json(), expected)


def test_multipart(server: Server, http: httpx.Client, png: Path) -> None:
    url = f"{server.url}/predictions/shapes"
    response = http.post(url, files={"data": (png.name, png.read_bytes(), "image/png")})
    assert_same_prediction(response.json(), image_body(png).post(http, url).json())


@pytest.mark.parametrize(("accept", "name"), [("image/jpeg", "JPEG"), ("image/png", "PNG")])
def test_overlay(http: httpx.Client, url: str, jpeg: Path, accept: str, name: str) -> None:
    body = image_body(jpeg)
    response = Body(body.content, body.content_type, accept).post(http, url)
    assert response.status_code == 200
    assert response.headers["content-type"] == accept
    drawn = Image.open(io.BytesIO(response.content))
    assert drawn.format == name
    changed = np.abs(np.asarray(drawn, int) - pixels(jpeg).astype(int)).max(axis=2) > 40
    assert changed.any()
    assert not changed.all()


def test_server_timing_contains_the_stages(http: httpx.Client, url: str, jpeg: Path) -> None:
    response = image_body(jpeg).post(http, url)
    timing = response.headers["server-timing"]
    assert all(f"{stage};dur=" in timing for stage in ("decode", "forward", "encode"))
    assert images_run_together(response) == 1
