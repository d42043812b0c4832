"""The ML backend's routes, as Label Studio calls them."""

import asyncio
import base64
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from d2serve.cli.main import invoke
from d2serve.client import Client
from d2serve.detections import Detections
from d2serve.errors import D2ServeError, PredictionError
from d2serve.integrations.label_studio.app import MAX_BODY_BYTES, create_app
from d2serve.integrations.label_studio.backend import Backend
from d2serve.integrations.label_studio.images import ImageSource
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.server import Server
from tests.environment import clean_environment
from tests.integrations.label_studio.configs import CONFIGS, config
from tests.integrations.label_studio.fake_label_studio import (
    LEGACY_TOKEN,
    FakeLabelStudio,
    fake_label_studio,
)
from tests.integrations.samples import KEYPOINTS, FakePredictor, sample

IMAGE = b"the content of an image file"
BAD_IMAGE = b"not an image"
SERVED_IMAGE = "samples/shapes_02.png"


class AppClient:
    """Sends requests to an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._transport = httpx.ASGITransport(app)

    def get(self, route: str, **options: Any) -> httpx.Response:
        """Send a GET request."""
        return asyncio.run(self._send("GET", route, **options))

    def post(self, route: str, **options: Any) -> httpx.Response:
        """Send a POST request."""
        return asyncio.run(self._send("POST", route, **options))

    async def _send(self, method: str, route: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=self._transport, base_url="http://app") as client:
            return await client.request(method, route, **options)


class Predictor(FakePredictor):
    """Refuses BAD_IMAGE, and fails unexpectedly with an empty one."""

    def predict(self, images: Any, **options: Any) -> list[Detections]:
        """The detections of each image."""
        if BAD_IMAGE in images:
            raise PredictionError(400, "bad_request", "the image is damaged")
        if b"" in images:
            raise RuntimeError("a fault")
        return super().predict(images, **options)


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with fake_label_studio(IMAGE) as fake:
        yield fake


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(sample(with_keypoints=True))


@pytest.fixture
def client(label_studio: FakeLabelStudio, predictor: Predictor) -> Iterator[AppClient]:
    with ImageSource(label_studio.url, token=LEGACY_TOKEN) as images:
        backend = Backend(predictor, images, "v1", score_threshold=0.55, keypoints=KEYPOINTS)
        yield AppClient(create_app(backend))


def task(image: object, number: int = 7) -> dict[str, Any]:
    return {"id": number, "project": 1, "data": {"image": image, "text": "a"}}


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def predict(client: AppClient, *tasks: dict[str, Any], labels: str = CONFIGS["brush"]) -> Any:
    """The body that Label Studio sends, and the results."""
    body = {
        "tasks": tasks,
        "project": "1.1700000000",
        "label_config": labels,
        "params": {"login": None, "password": None, "context": None},
    }
    response = client.post("/predict", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["model_version"] == "v1"
    return response.json()["results"]


@pytest.mark.parametrize("route", ["/", "/health"])
def test_health(client: AppClient, route: str) -> None:
    assert client.get(route).json()["status"] == "UP"


def test_a_task_is_predicted(client: AppClient, predictor: Predictor) -> None:
    [[prediction]] = predict(client, task("/data/upload/1/a.png"))
    assert predictor.images == [IMAGE]
    expected = sample().scores[:4]
    assert [region["score"] for region in prediction["result"]] == pytest.approx(expected)
    assert prediction["score"] == pytest.approx(expected.mean())
    assert prediction["model_version"] == "v1"


def test_an_image_without_instances_has_an_empty_prediction(
    label_studio: FakeLabelStudio,
) -> None:
    with ImageSource(label_studio.url, token=LEGACY_TOKEN) as images:
        backend = Backend(FakePredictor(sample().select([])), images, "v1")
        [[prediction]] = predict(AppClient(create_app(backend)), task("/data/upload/1/a.png"))
    assert (prediction["result"], prediction["score"]) == ([], 0)


def test_a_failed_task_leaves_the_others_unaffected(
    client: AppClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        results = predict(
            client,
            task("/data/upload/1/a.png", 1),
            task("/data/missing.png", 2),
            task(data_uri(BAD_IMAGE), 3),
            task(data_uri(b""), 4),
            task(None, 5),
            task("http://127.0.0.1:1/a.png", 6),
            task("/data/upload/1/b.png", 7),
        )
    assert [len(predictions) for predictions in results] == [1, 0, 0, 0, 0, 0, 1]
    messages = {re.split("[ :]", record.message)[1]: record.message for record in caplog.records}
    assert "HTTP 404" in messages["2"]
    assert "the image is damaged" in messages["3"]
    assert "task 4 has no prediction" in messages["4"]
    assert "data.image is None; expected the URL of an image" in messages["5"]
    assert "--allow-host 127.0.0.1" in messages["6"]


def test_keypoints_are_predicted_if_the_project_labels_them(client: AppClient) -> None:
    [[prediction]] = predict(client, task(data_uri(IMAGE)), labels=CONFIGS["keypoint"])
    types = [region["type"] for region in prediction["result"]]
    assert types == ["rectanglelabels", "keypointlabels"] * 4


def test_several_images_of_a_task(client: AppClient, predictor: Predictor) -> None:
    more = (
        '<Image name="second" value="$text"/><BrushLabels name="b" toName="second">'
        '<Label value="cat"/></BrushLabels>'
    )
    both = {"id": 1, "data": {"image": data_uri(IMAGE), "text": data_uri(b"second")}}
    [[prediction]] = predict(client, both, labels=config("RectangleLabels", more=more))
    assert predictor.images == [IMAGE, b"second"]
    assert [region["to_name"] for region in prediction["result"]] == ["photo"] * 4 + ["second"] * 2


def test_a_project_without_controls_has_no_predictions(
    client: AppClient, predictor: Predictor
) -> None:
    assert predict(client, task("/data/upload/1/a.png"), labels="<View/>") == [[]]
    assert predictor.images == []


def test_setup_reports_the_version_and_missing_labels(
    client: AppClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        body = {"project": "1.1", "schema": config("BrushLabels", names=("Cat",)), "hostname": "h"}
        assert client.post("/setup", json=body).json() == {"model_version": "v1"}
        assert client.post("/validate", json={"config": "<View/>"}).is_success
    assert "no label for traffic light, dog" in caplog.text
    assert "has no BrushLabels or PolygonLabels" in caplog.text
    assert client.get("/versions").json() == {"versions": ["v1"]}


@pytest.mark.parametrize("route", ["/webhook", "/train"])
def test_events_are_ignored(client: AppClient, route: str) -> None:
    assert client.post(route, json={"action": "START_TRAINING"}).json() == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "`tasks` is not a list of objects"),
        (b'{"tasks": {}}', "`tasks` is not a list of objects"),
        (b'{"tasks": [{"data": []}]}', "`tasks` is not a list of objects"),
        (b'{"tasks": [], "label_config": 5}', "`label_config` is not a string"),
        (b'{"tasks": [], "label_config": "<View>"}', "is not XML"),
        (b'{"tasks": [], "label_config": "<!DOCTYPE a><View/>"}', "a declaration"),
    ],
)
def test_invalid_requests_are_explained(client: AppClient, content: bytes, message: str) -> None:
    response = client.post("/predict", content=content)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused(client: AppClient) -> None:
    response = client.post("/predict", content=bytes(MAX_BODY_BYTES + 1))
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("auth", "status", "health"),
    [
        (None, 401, 200),
        (("user", "wrong"), 401, 401),
        (("user", "pässword"), 200, 200),
        # The encoding of Label Studio.
        (("user", "pässword".encode("latin-1")), 200, 200),
    ],
)
def test_basic_authentication(
    label_studio: FakeLabelStudio,
    predictor: Predictor,
    auth: tuple[str, str | bytes] | None,
    status: int,
    health: int,
) -> None:
    with ImageSource(label_studio.url) as images:
        app = create_app(Backend(predictor, images, "v1"), "user:pässword")
    client = AppClient(app)
    assert client.get("/health", auth=auth).status_code == health
    assert client.get("/versions", auth=auth).status_code == status
    body = {"tasks": [], "label_config": CONFIGS["brush"]}
    assert client.post("/predict", json=body, auth=auth).status_code == status


def test_the_command_predicts_with_a_server(server: Server, shapes: Path, tmp_path: Path) -> None:
    port = Ports.free().inference
    names = ("circle", "triangle", "square", "star", "cross", "ring")
    command = [
        *(sys.executable, "-m", "d2serve.cli.main", "label-studio", "--url", server.url),
        *("--port", str(port), "--score-threshold", "0.9", "--model-version", "v1"),
    ]
    with Client(server.url) as client:
        [expected] = client.predict(shapes / SERVED_IMAGE, score_threshold=0.9)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=clean_environment(), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        await_health(url)
        content = data_uri((shapes / SERVED_IMAGE).read_bytes())
        body = {"tasks": [task(content)], "label_config": config("RectangleLabels", names=names)}
        response = httpx.post(f"{url}/predict", json=body, timeout=60, trust_env=False)
    finally:
        process.terminate()
        process.wait()
    [[prediction]] = response.json()["results"]
    labels = [region["value"]["rectanglelabels"][0] for region in prediction["result"]]
    assert labels == list(expected.class_names)
    assert "classes: circle, triangle" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of MODEL, --url and --endpoint"),
        (("a.mar", "--url", "http://127.0.0.1:1"), "give one of MODEL, --url and --endpoint"),
        (("a.mar", "--address", "0.0.0.0"), "give --basic-auth-file"),
        (("missing.mar",), "missing.mar"),
        (("a.mar", "--token-file", "missing"), "--token-file missing cannot be read"),
    ],
)
def test_wrong_options_are_explained(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(capsys, "label-studio", *arguments)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command."""
    try:
        assert invoke(arguments) == 2
    except D2ServeError as error:
        return str(error)
    # The words of a usage error, without the box around them.
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


@retry(
    retry=retry_if_exception_type(httpx.TransportError),
    wait=wait_fixed(0.05),
    stop=stop_after_delay(60),
    reraise=True,
)
def await_health(url: str) -> None:
    """Return when the command accepts connections."""
    assert httpx.get(f"{url}/health", timeout=60, trust_env=False).is_success
