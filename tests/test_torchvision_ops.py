"""torchvision's compiled operators without its Python package."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from d2serve.inputs.jpeg_operators import DECODE_JPEG
from d2serve.torchvision_ops import NMS, ROI_ALIGN, ROI_POOL, Function, Operator, library_operator
from tests.bodies import image_bytes, noise

SERVE = """
import json
import sys
from pathlib import Path
import torch
from d2serve.messages import HttpRequest, Part
from d2serve.servers.torchserve.handler import Detectron2Handler
from d2serve.serving.loading import load_pipeline

pipeline = load_pipeline(Path(sys.argv[1]), torch.device("cpu"), "shapes")
[response] = pipeline.run([HttpRequest({}, (Part("image/jpeg", Path(sys.argv[2]).read_bytes()),))])
assert len(json.loads(response.body)["boxes"]) > 0
print(*({"torchvision", "torch._dynamo", "scipy"} & set(sys.modules)))
"""


def test_serving_does_not_import_torchvision_dynamo_or_scipy(
    shapes: Path, shapes_mar: Path, tmp_path: Path
) -> None:
    with ZipFile(shapes_mar) as archive:
        archive.extractall(tmp_path)
    image = shapes / "samples" / "shapes_01.jpg"
    command = [sys.executable, "-c", SERVE, str(tmp_path), str(image)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


LIBRARIES = """
import sys
from pathlib import Path

def libraries():
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).name for line in lines if "/torchvision/" in line}

import d2serve
import d2serve.detector.native
import d2serve.inputs.images
import d2serve.model.network
assert not libraries(), libraries()
d2serve.inputs.images.decode_image(Path(sys.argv[1]).read_bytes(), 10**6)
print(*libraries())
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system has no /proc")
def test_libraries_are_loaded_at_their_first_use(shapes: Path) -> None:
    image = shapes / "samples" / "shapes_01.jpg"
    command = [sys.executable, "-c", LIBRARIES, str(image)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert [name.partition(".")[0] for name in output.split()] == ["image"]


def missing() -> Function:
    raise AttributeError("'_OpNamespace' 'torchvision' object has no attribute")


def without_library() -> Function:
    return library_operator("_missing", "torchvision", "nms")()


def with_fewer_arguments() -> Function:
    return lambda only: only


def with_another_result() -> Function:
    return lambda *_: torch.zeros(3, 8, 8)


def sample_arguments(operator: Operator) -> tuple[object, ...]:
    random = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(20, 2, generator=random)
    boxes = torch.cat((corners, corners + 30 * torch.rand(20, 2, generator=random)), dim=1)
    if operator is NMS:
        return boxes, torch.rand(20, generator=random), 0.3
    if operator in (ROI_ALIGN, ROI_POOL):
        rois = torch.cat((torch.zeros(20, 1), boxes), dim=1)
        arguments = torch.rand(1, 3, 40, 40, generator=random), rois, 0.5, 7, 5
        return (*arguments, 2, False) if operator is ROI_ALIGN else arguments
    return torch.frombuffer(bytearray(image_bytes(noise(9, 7, 3), "JPEG")), dtype=torch.uint8), 3, 0


@pytest.mark.parametrize(
    "hidden", [missing, without_library, with_fewer_arguments, with_another_result]
)
@pytest.mark.parametrize(
    "operator", [NMS, ROI_ALIGN, ROI_POOL, DECODE_JPEG], ids=lambda each: each.name
)
def test_public_function_replaces_an_operator_that_is_not_usable(
    operator: Operator, hidden: Callable[[], Function], caplog: pytest.LogCaptureFixture
) -> None:
    _, public = operator.sources
    fallback = Operator(operator.name, [hidden, public], operator.check)
    arguments = sample_arguments(operator)
    for _ in range(2):
        torch.testing.assert_close(fallback(*arguments), operator(*arguments), rtol=0, atol=0)
    [record] = caplog.records
    assert f"operator {operator.name} is not usable: " in record.getMessage()


@pytest.mark.parametrize(
    "operator", [NMS, ROI_ALIGN, ROI_POOL, DECODE_JPEG], ids=lambda each: each.name
)
def test_installed_torchvision_has_the_private_operator(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    private, _ = operator.sources
    Operator(operator.name, [private], operator.check).load()
    assert not caplog.records


def test_operator_without_a_usable_source_is_an_import_error() -> None:
    expected = (
        "no usable operator nms \\(AttributeError: .*; its result for an example is wrong\\); "
    )
    with pytest.raises(ImportError, match=expected + "install the torchvision release for torch"):
        Operator("nms", [missing, lambda: lambda *_: torch.zeros(1)], NMS.check)(1, 2, 3)


def test_threads_load_an_operator_once() -> None:
    loaded = []

    def load() -> Function:
        loaded.append(1)
        time.sleep(0.05)
        return lambda value: value + 1

    operator = Operator("increment", [load], lambda increment: bool(increment(1) == 2))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(operator, range(8))) == list(range(1, 9))
    assert loaded == [1]
