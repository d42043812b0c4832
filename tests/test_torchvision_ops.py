"""torchvision's compiled operators without its Python package."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from d2serve import torchvision_ops
from d2serve.torchvision_ops import load_operators

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


@pytest.mark.parametrize("path", [None, "without the operator"])
def test_missing_operators_are_loaded_with_the_package(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    imported: list[str] = []
    operators = SimpleNamespace()
    monkeypatch.setattr(torchvision_ops, "_path", lambda _: path)
    loaded: list[str] = []
    ops = SimpleNamespace(torchvision=operators, load_library=loaded.append)
    monkeypatch.setattr(torchvision_ops, "torch", SimpleNamespace(ops=ops))
    monkeypatch.setattr(torchvision_ops, "import_module", imported.append)
    assert load_operators("_C", "torchvision", ["nms"]) is operators
    assert imported == ["torchvision.io"]
    assert loaded == ([path] if path else [])
