"""`d2serve predict` and the clients with an endpoint's name; other tests have a URL."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

import d2serve
from d2serve.cli.main import invoke
from d2serve.detections import Detections
from tests.client.conftest import KEYS, REGION, Connect, Session
from tests.client.runtime import Received, Response, Runtime
from tests.environment import NO_ACCOUNT

RESPONSE: dict[str, Any] = {
    "boxes": [[1, 2, 3, 4]],
    "scores": [0.9],
    "classes": [0],
    "names": ["ball"],
    "masks": [],
    "image": {"width": 8, "height": 6},
}

PIXELS = np.zeros((6, 8), np.uint8, order="F")
PIXELS[2:4, 1:3] = 1
RLE = {"size": [6, 8], "counts": coco_masks.encode(PIXELS)["counts"].decode()}
SQUARE = RESPONSE | {"boxes": [[1, 2, 3, 4]], "classes": [1], "masks": [RLE]}


def respond(_: Received) -> Response:
    return Response(body=json.dumps(RESPONSE).encode())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return path


@pytest.fixture
def runtime(connect: Connect, aws: Session, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime of the endpoint `now`, in the account of the environment."""
    _, runtime = connect("now", respond)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    keys = {name.upper(): value for name, value in KEYS.items()}
    for name, value in (NO_ACCOUNT | keys).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
    return runtime


def test_command(runtime: Runtime, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--endpoint", "now", "--region", REGION, "--target-model", "a.tar.gz", "--json"]
    assert invoke(["predict", str(image), *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [{"file": str(image), "answer": RESPONSE}]
    [received] = runtime.received
    assert received.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert f"/{REGION}/sagemaker/" in received.headers["authorization"]


def predict(image: Path, **arguments: Any) -> list[Detections]:
    with d2serve.Client("now", **arguments) as client:
        return client.predict([image] * 3, masks="none")


def predict_async(image: Path, **arguments: Any) -> list[Detections]:
    async def awaited() -> list[Detections]:
        async with d2serve.AsyncClient("now", **arguments) as client:
            return await client.predict([image] * 3, masks="none")

    return asyncio.run(awaited())


@pytest.mark.parametrize("call", [predict, predict_async])
def test_clients(runtime: Runtime, image: Path, call: Any) -> None:
    results = call(image, region=REGION, target_model="a.tar.gz")
    assert [found.class_names for found in results] == [("ball",)] * 3
    for received in runtime.received:
        assert received.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
        options = json.loads(received.headers["x-amzn-sagemaker-custom-attributes"])
        assert options == {"format": "default", "masks": "none"}
    assert len(runtime.received) == 3


@pytest.mark.parametrize("client", [d2serve.Client, d2serve.AsyncClient])
def test_endpoint_without_boto3(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(d2serve.CommandError, match=r"pip install 'd2serve\[aws\]'"):
        client("now")


def classes_or_result(received: Received) -> Response:
    if b"broken" in received.body:
        error = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
        return Response(400, json.dumps({"error": error}).encode())
    options = json.loads(received.headers["x-amzn-sagemaker-custom-attributes"])
    names = {"labels": ["bat", "ball"]}
    return Response(body=json.dumps(names if options["format"] == "jumpstart" else SQUARE).encode())


def dataset_of(folder: Path, file: Path, *arguments: str) -> tuple[int, COCO]:
    endpoint = ("--endpoint", "now", "--region", REGION)
    code = invoke(["predict", str(folder), "--coco", str(file), *endpoint, *arguments])
    return code, COCO(str(file))


@pytest.mark.parametrize("masks", ["polygon", "rle"])
def test_dataset(runtime: Runtime, image: Path, masks: str, tmp_path: Path) -> None:
    runtime.container = classes_or_result
    nested = image.parent / "sub" / "b.png"
    nested.parent.mkdir()
    nested.write_bytes(b"bytes")
    arguments = ["--masks", masks, "--score-threshold", "0.5"]
    code, dataset = dataset_of(image.parent, tmp_path / "out" / "a.json", *arguments)
    assert code == 0
    assert [entry["file_name"] for entry in dataset.loadImgs([1, 2])] == ["a.png", "sub/b.png"]
    assert [entry["name"] for entry in dataset.loadCats([1, 2])] == ["bat", "ball"]
    first, second = dataset.loadAnns(dataset.getAnnIds(catIds=[2]))
    assert (first["image_id"], second["image_id"]) == (1, 2)
    assert first["area"] == 4
    assert isinstance(first["segmentation"], list if masks == "polygon" else dict)
    thresholds = [_options(received).get("score_threshold") for received in runtime.received]
    assert sorted(thresholds, key=str) == [0.5, 0.5, None]


def test_dataset_without_masks_and_a_failed_image(
    runtime: Runtime, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.container = classes_or_result
    (image.parent / "b.png").write_bytes(b"broken")
    code, dataset = dataset_of(image.parent, tmp_path / "a.json", "--masks", "none")
    assert code == 1
    assert [entry["file_name"] for entry in dataset.dataset["images"]] == ["a.png"]
    assert "b.png: bad_request: truncated (send all of it)" in capsys.readouterr().err
    assert {_options(received)["masks"] for received in runtime.received} == {"none"}


def _options(received: Received) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(received.headers["x-amzn-sagemaker-custom-attributes"])
    return options


def test_dataset_with_two_images_of_one_name(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    other.write_bytes(b"bytes")
    sources = [str(image), str(other.parent)]
    with pytest.raises(d2serve.CommandError, match=r"a\.png and .*other/a\.png would have the"):
        invoke(["predict", *sources, "--coco", str(tmp_path / "a.json")])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--masks", "rle"], "belong to --coco"),
        (["--score-threshold", "0.5"], "belong to --coco"),
        (["--coco", "a.json", "--json"], "--coco excludes"),
        (["--endpoint", "now", "--model", "a"], "--model belongs to --url"),
    ],
)
def test_contradicting_options(
    image: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["predict", str(image), *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_model_of_a_server_of_several(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def send(_: httpx.Client, request: httpx.Request, **__: Any) -> httpx.Response:
        requested.append(str(request.url))
        return httpx.Response(200, json=RESPONSE, request=request)

    monkeypatch.setattr(httpx.Client, "send", send)
    assert invoke(["predict", str(image), "--url", "http://server.test", "--model", "a/b"]) == 0
    assert requested == ["http://server.test/predictions/a%2Fb"]
