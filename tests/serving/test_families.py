"""All families on one server: the results of the projects' own code, in batches of many clients."""

import base64
import io
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

import d2serve
from d2serve.building.archive import ONE_WORKER
from d2serve.client import Client
from d2serve.detections import Detections
from d2serve.servers.torchserve.launcher.server import running_server
from d2serve.serving.model_config import MODEL_CONFIG_FILE
from tests.client.comparison import assert_equal
from tests.serving.archives import HANDLER, alter, unpack
from tests.serving.asgi_server import running_asgi_server
from tests.serving.families import (
    FAMILIES,
    Family,
    assert_arrays,
    assert_same,
    assert_tensors,
    found_in,
    mirrored,
)
from tests.serving.traffic import Body, image_body, images_run_together, pixels

# Of the header by which the worker of all families chooses the network.
FAMILY = "x-family"
BROKEN = Body(b"no image", "image/jpeg")
# Requests of three families at a time.
BATCH_SIZE, CLIENTS = 15, 15
# A batch has two images, and waits for the second one longer than clients take to send it.
SETTINGS = {
    "images_per_forward": 2,
    "batch_wait_ms": 2000,
    "threads": 1,
    "decode_threads": 2,
    "warm_up_sizes": "",
}
# A worker of TorchServe has one model, and its start costs seconds: this one has all of them.
ALL_FAMILIES = f"""
from pathlib import Path
from d2serve.servers.torchserve.handler import Detectron2Handler
from d2serve.servers.torchserve.workers import worker_device
from d2serve.serving.loading import load_pipeline

class AllFamilies(Detectron2Handler):
    def initialize(self, context):
        super().initialize(context)
        folder = Path(context.system_properties["model_dir"], "families")
        self.pipelines = {{
            each.name: load_pipeline(
                each, worker_device(context), each.name, server_forms_batches=True
            )
            for each in folder.iterdir()
        }}

    def inference(self, data):
        names = [request.headers["{FAMILY}"] for request in data]
        responses = {{
            name: iter(self.pipelines[name].run([r for r in data if r.headers["{FAMILY}"] == name]))
            for name in set(names)
        }}
        return [next(responses[name]) for name in names]
"""


@dataclass(frozen=True)
class Sent:
    """A request of a family.

    Attributes:
        family: of the network.
        body: an image, or none.
        image: its position among the images of the golden; None for BROKEN.
        is_mirrored: whether it is that image or the mirrored one.
    """

    family: Family
    body: Body
    image: int | None = None
    is_mirrored: bool = False


def requests_of(family: Family) -> list[Sent]:
    """Each image, next to it one of the same size, and a file that is not an image."""
    pairs = [
        (Sent(family, image_body(path), index), Sent(family, mirrored(path), index, True))
        for index, path in enumerate(family.golden.images)
    ]
    return [*chain.from_iterable(pairs), Sent(family, BROKEN)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The unpacked archive of each family, by name."""
    home, checkpoints = tmp_path_factory.mktemp("families"), tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        family.write_folder(home / family.name, checkpoints / f"{family.name}.pth")
        (home / family.name / MODEL_CONFIG_FILE).write_text(yaml.safe_dump({"handler": SETTINGS}))
    return {family.name: home / family.name for family in FAMILIES}


@pytest.fixture(scope="module")
def asgi_url(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of an ASGI server with all families."""
    first, *others = folders.values()
    log_dir, more = tmp_path_factory.mktemp("asgi-logs"), [str(folder) for folder in others]
    with running_asgi_server(first, log_dir=log_dir, arguments=more) as server:
        server.wait_until_ready()
        yield server.url


@pytest.fixture(scope="module")
def torchserve_url(
    shapes_mar: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base URL of a TorchServe whose worker has all families."""
    folder = unpack(shapes_mar, tmp_path_factory.mktemp("torchserve") / "all")
    shutil.copytree(folders[FAMILIES[0].name].parent, folder / "families")
    batches = {"batchSize": BATCH_SIZE, "maxBatchDelay": 500, **ONE_WORKER}
    config = yaml.safe_dump({**batches, "handler": {"threads": 1, "decode_threads": 2}})
    alter(folder, {HANDLER: ALL_FAMILIES, MODEL_CONFIG_FILE: config})
    with running_server(folder, log_dir=tmp_path_factory.mktemp("logs")) as running:
        yield running.url


def send(url: str, sent: Sequence[Sent], clients: int) -> list[httpx.Response]:
    """Send requests from as many clients at a time."""
    with httpx.Client(timeout=120, trust_env=False) as http, ThreadPoolExecutor(clients) as pool:

        def post(each: Sent) -> httpx.Response:
            headers = {"Content-Type": each.body.content_type, FAMILY: each.family.name}
            return http.post(
                url.format(each.family.name), content=each.body.content, headers=headers
            )

        return list(pool.map(post, sent))


@pytest.fixture(scope="module")
def alone(asgi_url: str) -> dict[tuple[str, int], Detections]:
    """The results of mirrored images that ran alone, by family and position of the image."""
    found: dict[tuple[str, int], Detections] = {}
    for index in range(2):
        sent = [
            each
            for family in FAMILIES
            for each in requests_of(family)
            if each.is_mirrored and each.image == index
        ]
        responses = send(f"{asgi_url}/predictions/{{}}", sent, len(sent))
        assert [images_run_together(response) for response in responses] == [1] * len(sent)
        found |= {
            (each.family.name, index): found_in(response)
            for each, response in zip(sent, responses, strict=True)
        }
    return found


@pytest.fixture(scope="module", params=["asgi", "torchserve"])
def responses(request: pytest.FixtureRequest) -> dict[str, list[httpx.Response]]:
    """The responses to the requests of all families, which many clients send at a time."""
    base = request.getfixturevalue(f"{request.param}_url")
    url = f"{base}/predictions/{{}}" if request.param == "asgi" else f"{base}/invocations"
    sent = [each for family in FAMILIES for each in requests_of(family)]
    responses = send(url, sent, CLIENTS)
    found: dict[str, list[httpx.Response]] = {family.name: [] for family in FAMILIES}
    for each, response in zip(sent, responses, strict=True):
        found[each.family.name].append(response)
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_mixed_batches_give_each_client_its_own_result(
    responses: dict[str, list[httpx.Response]],
    alone: dict[tuple[str, int], Detections],
    family: Family,
) -> None:
    batches = []
    for each, response in zip(requests_of(family), responses[family.name], strict=True):
        if each.image is None:
            assert response.status_code == 415
            continue
        found = found_in(response)
        batches.append(images_run_together(response))
        if each.is_mirrored:
            assert_same(found, alone[family.name, each.image])
        else:
            family.assert_as_stored(found, each.image)
    assert max(batches) == 2


def family_of(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


# Together they have each output.
WITH_OUTPUTS = [
    family_of(name)
    for name in (
        *("keypoint_rcnn", "panoptic_fpn", "center_mask_vovnet", "condinst"),
        *("mask2former_panoptic", "densepose-deep_lab"),
    )
]


@pytest.mark.parametrize("family", WITH_OUTPUTS, ids=lambda family: family.name)
def test_every_format_has_the_same_result(asgi_url: str, family: Family) -> None:
    image = family.golden.images[0]
    accepted = ("application/json", "application/x-npz", "image/png")
    url, body = f"{asgi_url}/predictions/{family.name}", image.read_bytes()
    with httpx.Client(timeout=120, trust_env=False) as http, ThreadPoolExecutor(4) as pool:
        posts = [
            pool.submit(http.post, url, content=body, headers={"Accept": media_type})
            for media_type in accepted
        ]
        v2_url = f"{asgi_url}/v2/models/{family.name}/infer"
        posts.append(pool.submit(http.post, v2_url, json=v2_request(body)))
        in_json, arrays, drawn, tensors = (post.result() for post in posts)
    found = found_in(in_json)
    family.assert_as_stored(found, 0)
    assert_arrays(np.load(io.BytesIO(arrays.content), allow_pickle=False), found)
    overlay = np.asarray(Image.open(io.BytesIO(drawn.content)))
    assert overlay.shape == pixels(image).shape
    assert (overlay != pixels(image)).any()
    assert_tensors(tensors.json()["outputs"], in_json.json())


def v2_request(image: bytes) -> dict[str, Any]:
    data = [base64.b64encode(image).decode()]
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}


@pytest.mark.parametrize("name", ["keypoint_rcnn", "panoptic_fpn"])
def test_client_has_the_results_of_a_model_in_this_process(
    asgi_url: str, folders: dict[str, Path], name: str
) -> None:
    images = [*family_of(name).golden.images]
    with d2serve.load(folders[name]) as model, Client(asgi_url, model=name) as client:
        assert client.class_names == model.class_names
        for found, expected in zip(client.predict(images), model.predict(images), strict=True):
            assert_equal(found, expected)
