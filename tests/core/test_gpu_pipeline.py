"""Whole requests on a GPU, and what happens when its context is lost."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from d2serve.detector.native import NativeDetector
from d2serve.inputs.jpeg_decoders import jpeg_decoder
from d2serve.messages import HttpRequest, Part
from d2serve.metadata import ModelMetadata
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.goldens.cases import TRAINED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
SETTINGS = {
    "defaults": Settings(),
    "all on the GPU": Settings(decode="device", resize="device", cuda_graphs=True),
    "auto": Settings(precision="auto", cuda_graphs=True),
}
ROUNDS = 4
# Indexing out of bounds on the device makes its context unusable for the process.
LOST = """
import torch
from d2serve.detector.native import NativeDetector
from d2serve.errors import DeviceLostError
from d2serve.settings import Settings
from tests.core.test_gpu_pipeline import pipeline_of, request_of
from tests.goldens.cases import TRAINED

device = torch.device("cuda", 0)
detector = NativeDetector(TRAINED.build().to(device), device, Settings())
pipeline = pipeline_of(detector, Settings())
request = request_of(TRAINED.images[1])
assert pipeline.submit(request).result(60).status == 200

def break_device(images, sizes_hw):
    torch.zeros(4, device=device)[torch.full((1,), 10**6, device=device)]
    torch.cuda.synchronize(device)

detector.model.forward = break_device
futures = [pipeline.submit(request) for _ in range(3)]
print([type(future.exception(60)).__name__ for future in futures])
"""


def pipeline_of(detector: NativeDetector, settings: Settings) -> Pipeline:
    names = tuple(f"class {index}" for index in range(detector.num_classes))
    metadata = ModelMetadata("shapes", names, detector.score_threshold, detector.max_detections)
    decode = jpeg_decoder(settings.decode, detector.device)
    return Pipeline(detector, metadata, settings, threads=8, decode_jpeg=decode)


def request_of(path: Path) -> HttpRequest:
    return HttpRequest({}, (Part("", path.read_bytes()),))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_requests_together_have_the_results_of_requests_alone(settings: Settings) -> None:
    device = torch.device("cuda", 0)
    detector = NativeDetector(TRAINED.build().to(device), device, settings)
    pipeline = pipeline_of(detector, settings)
    requests = [request_of(path) for path in TRAINED.images]
    try:
        alone = [pipeline.submit(request).result(60) for request in requests]
        futures = [pipeline.submit(request) for request in requests * ROUNDS]
        together = [future.result(60) for future in futures]
    finally:
        pipeline.close()
    for response, expected in zip(together, alone * ROUNDS, strict=True):
        assert response.status == expected.status == 200
        found, reference = json.loads(response.body), json.loads(expected.body)
        assert sorted(found["classes"]) == sorted(reference["classes"])
        # Scores that are nearly equal may change places.
        for name, tolerance in (("boxes", 2.0), ("scores", 0.02)):
            values, expected_values = (np.sort(each[name], axis=0) for each in (found, reference))
            np.testing.assert_allclose(values, expected_values, atol=tolerance)


def test_a_lost_device_ends_all_requests(repo_root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOST], cwd=repo_root, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.strip() == str(["DeviceLostError"] * 3), ran.stderr
