"""The detector that an archive asks for."""

import sys
from pathlib import Path

import pytest
import torch

from d2serve.building.runtimes import write_network
from d2serve.detector.detectron2.model import PackageError
from d2serve.detector.native import NativeDetector
from d2serve.serving.loading import load_detector
from d2serve.settings import Settings
from tests.goldens.cases import CONFIGS, GoldenModel

CPU = torch.device("cpu")
CONFIG = CONFIGS / "faster_rcnn_r18_avg_rgb.yaml"


def test_native_is_our_own_network(tmp_path: Path) -> None:
    weights = GoldenModel("tiny", CONFIG, None, ()).build().state_dict()
    written = write_network(tmp_path, CONFIG, weights, "native")
    assert (written.num_classes, written.num_stuff_classes) == (5, 0)
    assert isinstance(load_detector(tmp_path, CPU, Settings()), NativeDetector)


def test_a_package_that_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(PackageError) as raised:
        load_detector(tmp_path, CPU, Settings(runtime="detectron2"))
    message = str(raised.value)
    assert message.startswith("this model needs the detectron2 package")
    assert "pip install" in message
    assert "\n" not in message
