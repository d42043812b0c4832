"""An unpacked archive on its way to a pipeline."""

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from d2serve.detections import Picture
from d2serve.inputs.images import JpegDecoder, decode_on_cpu
from d2serve.serving import loading
from d2serve.serving.loading import load_pipeline
from d2serve.settings import SettingsError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("archive")
    with ZipFile(shapes_mar) as packed:
        packed.extractall(unpacked)
    return unpacked


def test_jpegs_are_decoded_on_the_cpu(folder: Path) -> None:
    assert load_pipeline(folder, CPU, "shapes").decode_jpeg is decode_on_cpu


def test_the_pipeline_decodes_as_the_settings_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def other(body: bytes) -> Picture:
        return decode_on_cpu(body)

    def choose(decode: str, device: torch.device) -> JpegDecoder:
        asked.append((decode, device))
        return other

    monkeypatch.setattr(loading, "jpeg_decoder", choose)
    monkeypatch.setenv("D2SERVE_DECODE", "device")
    assert load_pipeline(folder, CPU, "shapes").decode_jpeg is other
    assert asked == [("device", CPU)]


def test_a_gpu_that_is_not_there_is_told_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2SERVE_DECODE", "device")
    monkeypatch.setattr(loading, "load_detector", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SettingsError, match="decode is 'device', which is for GPUs"):
        load_pipeline(folder, CPU, "shapes")
