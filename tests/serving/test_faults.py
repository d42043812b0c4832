"""Section 5 of the contract, the server's own faults: injected into a real worker's network."""

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from handler.integrity import SUMS_FILE
from scripts.torchserve import Server, running_server
from tests.serving.contract.rows import png_of

SECRET = "zqx /opt/secret"
# Whether a picture fails, and how, is told by its size.
FAULTY_SERVICE = f"""
import torch
from handler.service import Detectron2Handler

FAULTS = {{
    (500, 500): RuntimeError("{SECRET}"),
    (507, 507): torch.OutOfMemoryError("CUDA out of memory {SECRET}"),
}}


class FaultyHandler(Detectron2Handler):
    def initialize(self, context):
        super().initialize(context)
        network = self.pipeline.detector.model
        forward = network.forward

        def fail(images, sizes_hw):
            for size_hw in set(sizes_hw) & set(FAULTS):
                raise FAULTS[size_hw]
            return forward(images, sizes_hw)

        network.forward = fail
"""
FAULTS = {500: "internal", 507: "out_of_memory"}


@pytest.fixture(scope="module")
def faulty_server(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("faulty") / "shapes"
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(folder)
    (folder / "service.py").write_text(FAULTY_SERVICE)
    (folder / SUMS_FILE).unlink()
    with running_server(folder, log_dir=tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.mark.parametrize("status", FAULTS)
@pytest.mark.parametrize("route", ["/invocations", "/predictions/shapes"])
def test_a_fault_of_ours_has_its_status_and_says_nothing_of_the_inside(
    faulty_server: Server, http: httpx.Client, route: str, status: int
) -> None:
    picture = np.zeros((status, status, 3), np.uint8)
    response = png_of(picture).post(http, faulty_server.url + route)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["code"] == FAULTS[status]
    assert error["message"]
    assert error["hint"]
    for inside in (SECRET, "zqx", "Traceback", "CUDA", ".py"):
        assert inside not in response.text


def test_neighbours_of_a_fault_get_their_answers(faulty_server: Server, http: httpx.Client) -> None:
    sides = [500, 64, 507, 64] * 4
    pictures = [np.zeros((side, side, 3), np.uint8) for side in sides]
    url = f"{faulty_server.url}/invocations"
    with ThreadPoolExecutor(len(pictures)) as pool:
        responses = list(pool.map(lambda picture: png_of(picture).post(http, url), pictures))
    expected = [side if side in FAULTS else 200 for side in sides]
    assert [response.status_code for response in responses] == expected
