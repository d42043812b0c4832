"""`Client` and `AsyncClient`: the same calls, results and errors."""

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from PIL import Image

from d2serve.client import AsyncClient, AsyncHttpTransport, Client, HttpTransport
from d2serve.client.urls import route_url
from d2serve.detections import Detections
from d2serve.errors import CommandError, PredictionError, UnreachableError

URL = "http://server.test/"
OPTIONS_HEADER = "x-amzn-sagemaker-custom-attributes"
IMAGE: dict[str, Any] = {
    "boxes": [[1, 2, 3, 4]],
    "scores": [0.5],
    "classes": [1],
    "names": ["dog"],
    "masks": [],
    "image": {"width": 8, "height": 6},
}
Server: TypeAlias = Callable[[httpx.Request], httpx.Response]
Calls: TypeAlias = Callable[..., Any]


class Clients:
    """Opens clients of one kind, and records their pauses between attempts."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pauses: list[float] = []

    def __call__(self, server: Server, **settings: Any) -> Calls:
        """The calls of a client in front of a server."""
        run = self._call if self.kind == "Client" else self._call_async
        return partial(run, server, settings)

    def _call(
        self, server: Server, settings: dict[str, Any], name: str, *args: Any, **options: Any
    ) -> Any:
        transport = HttpTransport(URL, transport=httpx.MockTransport(server))
        with Client(transport, sleep=self.pauses.append, **settings) as client:
            if name == "class_names":
                return client.class_names
            result = getattr(client, name)(*args, **options)
            return list(result) if isinstance(result, Iterator) else result

    def _call_async(self, *args: Any, **options: Any) -> Any:
        return asyncio.run(self._awaited(*args, **options))

    async def _awaited(
        self, server: Server, settings: dict[str, Any], name: str, *args: Any, **options: Any
    ) -> Any:
        transport = AsyncHttpTransport(URL, transport=httpx.MockTransport(server))
        async with AsyncClient(transport, sleep=self._pause, **settings) as client:
            result = getattr(client, name)(*args, **options)
            return [each async for each in result] if hasattr(result, "__aiter__") else await result

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture(params=["Client", "AsyncClient"])
def calls_of(request: pytest.FixtureRequest) -> Clients:
    return Clients(request.param)


def echo(request: httpx.Request) -> httpx.Response:
    """One instance, whose class index is the number in the body."""
    number = int(request.content)
    return httpx.Response(200, json=IMAGE | {"classes": [number]})


def classes_of(results: Iterable[Detections | PredictionError]) -> list[Any]:
    return [each.code if isinstance(each, PredictionError) else each.classes[0] for each in results]


def test_one_image_of_every_kind(calls_of: Clients, tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["content-type"], request.content[:4]))
        return httpx.Response(200, json=IMAGE)

    file = tmp_path / "a.jpg"
    file.write_bytes(b"bytes")
    pixels = np.zeros((2, 3, 3), np.uint8)
    kinds: list[Any] = [file, str(file), b"bytes", bytearray(b"bytes"), pixels]
    pil = [Image.new("RGB", (2, 2)), Image.new("CMYK", (2, 2)), Image.new("F", (2, 2))]
    for image in (*kinds, *pil):
        [found] = calls_of(server)("predict", image)
        assert found.class_names == ("dog",)
    assert seen == [
        *([("image/jpeg", b"byte")] * 2),
        *([("application/octet-stream", b"byte")] * 2),
        ("application/x-npy", b"\x93NUM"),
        ("image/png", b"\x89PNG"),
        *([("image/tiff", b"II*\0")] * 2),
    ]


def test_options_are_those_of_a_model(calls_of: Clients) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == "application/json"
        names = [request.headers[OPTIONS_HEADER]]
        return httpx.Response(200, json=IMAGE | {"names": names})

    calls = calls_of(server)
    options = {"score_threshold": np.float32(0.5), "classes": (1, np.int64(2), "ä"), "masks": None}
    [found] = calls("predict", b"", **options)
    assert json.loads(found.class_names[0]) == {
        "format": "default",
        "masks": "rle",
        "score_threshold": 0.5,
        "classes": [1, 2, "ä"],
    }
    with pytest.raises(TypeError, match="unknown option 'threshold'; expected score_threshold, "):
        calls("predict", b"", threshold=0.5)
    with pytest.raises(TypeError, match="the image is int; expected a path"):
        calls("predict", [3])


def test_results_are_in_order_and_errors_stay_with_their_image(
    calls_of: Clients,
) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if request.content == b"2":
            error = {"code": "bad_request", "message": "damaged", "hint": "send it again"}
            return httpx.Response(400, json={"error": error})
        return echo(request)

    images = [str(number).encode() for number in range(5)]
    assert classes_of(calls_of(server)("predict_each", images)) == [0, 1, "bad_request", 3, 4]
    message = r"image 2: bad_request: damaged \(send it again\)"
    with pytest.raises(PredictionError, match=message) as raised:
        calls_of(server)("predict", images)
    assert raised.value.position == 2


def test_array_of_several_images_has_several_results(calls_of: Clients) -> None:
    error = {"error": {"code": "unprocessable", "message": "NaN", "hint": ""}}
    content = {"predictions": [IMAGE, error, IMAGE]}
    calls = calls_of(lambda _: httpx.Response(200, json=content))
    batch = np.zeros((3, 2, 2, 3), np.uint8)
    assert classes_of(calls("predict_each", batch)) == [1, "unprocessable", 1]


def test_images_are_read_only_a_few_ahead(calls_of: Clients) -> None:
    done, most_ahead = [0], [0]

    def server(request: httpx.Request) -> httpx.Response:
        response = echo(request)
        done[0] += 1
        return response

    def images() -> Iterator[bytes]:
        for number in range(40):
            most_ahead[0] = max(most_ahead[0], number - done[0])
            yield str(number).encode()

    assert classes_of(calls_of(server, concurrency=3)("predict_each", images())) == list(range(40))
    assert most_ahead[0] <= 3 + 1


def test_overload_is_retried_after_the_pause_that_the_server_demands(
    calls_of: Clients,
) -> None:
    responses = iter(
        [
            httpx.Response(503, headers={"retry-after": "7"}),
            httpx.Response(429, headers={"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}),
            httpx.Response(200, json=IMAGE),
        ]
    )
    calls = calls_of(lambda _: next(responses))
    assert len(calls("predict", b"")) == 1
    first, second = calls_of.pauses
    assert first == 7
    assert second < 5


def test_pause_beyond_the_timeout_is_the_error(calls_of: Clients) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, headers={"retry-after": "300"})

    assert classes_of(calls_of(server)("predict_each", b"")) == ["http_503"]
    assert calls_of.pauses == []
    assert classes_of(calls_of(server, timeout_s=400)("predict_each", b"")) == ["http_503"]
    assert calls_of.pauses == [300] * 5


def test_server_that_does_not_exist_ends_the_call(calls_of: Clients) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for name in ("predict", "predict_each"):
        with pytest.raises(UnreachableError, match=r"cannot connect to http://server\.test/"):
            calls_of(refuse)(name, [b"1", b"2"])


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ((200, "<html>"), "no_prediction"),
        ((200, '{"status": "Healthy"}'), "no_prediction"),
        ((200, '{"scores": ['), "no_prediction"),
        pytest.param((200, "[" * 100_000), "no_prediction", id="deeply-nested"),
        ((200, '{"error": "no model"}'), "http_400"),
        ((502, "<html>Bad Gateway"), "http_502"),
    ],
)
def test_response_of_another_server_is_an_error(
    calls_of: Clients, response: tuple[int, str], code: str
) -> None:
    status, text = response
    calls = calls_of(lambda _: httpx.Response(status, text=text))
    assert classes_of(calls("predict_each", b"")) == [code]


def test_folder(calls_of: Clients, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, content in {"b.png": b"1", "a.jpg": b"0", "sub/c.jpg": b"2", "d.txt": b"9"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    results = calls_of(echo)("predict_folder", tmp_path, progress=False)
    names = [str(path.relative_to(tmp_path)) for path, _ in results]
    assert dict(zip(names, classes_of(found for _, found in results), strict=True)) == {
        "a.jpg": 0,
        "b.png": 1,
        "sub/c.jpg": 2,
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="contains no image"):
        calls_of(echo)("predict_folder", tmp_path / "empty")


def test_unreadable_file_is_the_error_of_its_image(calls_of: Clients, tmp_path: Path) -> None:
    images = [b"0", tmp_path / "missing.jpg", b"2"]
    assert classes_of(calls_of(echo)("predict_each", images)) == [0, "unreadable", 2]


def test_class_names_are_requested(calls_of: Clients) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.headers[OPTIONS_HEADER])["format"] == "jumpstart"
        return httpx.Response(200, json={"labels": ["cat", "dog"]})

    assert calls_of(server)("class_names") == ("cat", "dog")
    with pytest.raises(PredictionError, match="the response contains no class names"):
        calls_of(lambda _: httpx.Response(200, json=IMAGE))("class_names")
    with pytest.raises(PredictionError, match="the response is not a prediction: '<html>'"):
        calls_of(lambda _: httpx.Response(200, text="<html>"))("class_names")


def test_panoptic_stuff_is_numbered_after_the_classes(calls_of: Clients) -> None:
    ids = np.zeros((6, 8, 3), np.uint8)
    ids[0, 0] = (1, 2, 0)  # 1 + 2 * 256
    info = {"id": 513, "category_id": 5, "isthing": False}

    def server(request: httpx.Request) -> httpx.Response:
        if "jumpstart" in request.headers[OPTIONS_HEADER]:
            return httpx.Response(200, json={"labels": ["cat", "dog", "cow"]})
        return httpx.Response(200, json=IMAGE | {"panoptic": encoded(ids, info)})

    [found] = calls_of(server)("predict", b"")
    assert found.panoptic.ids[0, 0] == 513
    [segment] = found.panoptic.segments
    assert (segment.class_index, segment.is_thing, segment.score) == (2, False, None)


def encoded(ids: "np.ndarray[Any, Any]", info: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(ids).save(file, "PNG")
    return {"png": base64.b64encode(file.getvalue()).decode(), "segments_info": [info]}


def test_cancelled_call_closes_its_requests() -> None:
    started, cancelled = list[bool](), list[bool]()

    async def server(_: httpx.Request) -> httpx.Response:
        started.append(True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError("not reached")

    async def run() -> None:
        transport = AsyncHttpTransport(URL, transport=httpx.MockTransport(server))
        async with AsyncClient(transport) as client:
            call = asyncio.create_task(client.predict([b"1", b"2", b"3"]))
            while len(started) < 3:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(run())
    assert cancelled == [True] * 3


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "http://"}, "is not an HTTP URL"),
        ({"target": "ftp://host"}, "is not an HTTP URL"),
        ({"target": "localhost:8080"}, "target is 'localhost:8080'; expected a URL such as http:"),
        (
            {"target": "http://host", "region": "eu-west-1"},
            "region belongs to a SageMaker endpoint",
        ),
        ({"target": "endpoint", "token": "secret"}, "token belongs to the URL of a server"),
        ({"target": "http://host/ping", "model": "a"}, "contains a route, and model is 'a'"),
        ({"target": "http://host", "concurrency": 0}, "concurrency is 0; expected at least 1"),
    ],
)
def test_arguments_that_do_not_match(client: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message) as raised:
        client(**arguments)
    assert "secret" not in str(raised.value)


def test_model_of_a_server_of_several() -> None:
    assert route_url("http://host:1", "a b/c") == "http://host:1/predictions/a%20b%2Fc"
    assert route_url("http://host:1/v1/models/a:predict") == "http://host:1/v1/models/a:predict"


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["boto3"] = None
import httpx, d2serve
from d2serve.client import HttpTransport
server = httpx.MockTransport(lambda _: httpx.Response(200, content=sys.argv[1]))
with d2serve.Client(HttpTransport("http://server.test", transport=server)) as client:
    [found] = client.predict(b"image")
print(json.dumps([found.to_coco(), found.masks_polygons(), found.masks_dense().sum().item()]))
"""


def test_client_runs_without_torch() -> None:
    mask = {"size": [6, 8], "counts": "7240m0"}
    response = json.dumps(IMAGE | {"masks": [mask]})
    command = [sys.executable, "-c", WITHOUT_TORCH, response]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [[result], polygons, pixels] = json.loads(done.stdout)
    assert (result["segmentation"], polygons, pixels) == (mask, [[[1, 1, 1, 3, 3, 3, 3, 1]]], 4)
