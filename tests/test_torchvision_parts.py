"""A worker needs torchvision's compiled parts alone."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2serve import torchvision_ops as torchvision_parts
from d2serve.torchvision_ops import load_operators

SERVES = """
import sys
from pathlib import Path
import numpy as np
import torch
from handler.inputs.image import decode_image
from handler.service import Detectron2Handler
from handler.detector.native import NativeDetector
from handler.rcnn.build import build_model
from handler.rcnn.checkpoint import read_checkpoint
from handler.rcnn.config import load_config
from handler.settings import Settings

folder = Path(sys.argv[1])
cpu = torch.device("cpu")
weights = read_checkpoint(folder / "model_final.pth")
model = build_model(load_config(folder / "config.yaml"), weights, cpu)
detector = NativeDetector(model, cpu, Settings())
picture = decode_image((folder / "samples/shapes_01.jpg").read_bytes(), 10**6)
[outcome] = detector.detect([picture])
assert len(outcome.found) > 0
print(*({"torchvision", "torch._dynamo", "scipy"} & set(sys.modules)))
"""


def test_serving_imports_no_package_that_takes_long_and_is_not_needed(shapes: Path) -> None:
    command = [sys.executable, "-c", SERVES, str(shapes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("path", [None, "without the operator"])
def test_what_the_library_lacks_comes_with_the_package(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    imported: list[str] = []
    operators = SimpleNamespace()
    monkeypatch.setattr(torchvision_parts, "_path", lambda _: path)
    loaded: list[str] = []
    ops = SimpleNamespace(torchvision=operators, load_library=loaded.append)
    monkeypatch.setattr(torchvision_parts, "torch", SimpleNamespace(ops=ops))
    monkeypatch.setattr(torchvision_parts, "import_module", imported.append)
    assert load_operators("_C", "torchvision", ["nms"]) is operators
    assert imported == ["torchvision.io"]
    assert loaded == ([path] if path else [])
