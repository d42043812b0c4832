"""Load an unpacked archive into a pipeline, and warm it up."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import current_thread
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from d2serve.building.runtimes import write_model_folder
from d2serve.detections import RGBImage
from d2serve.detector.base import Failure
from d2serve.detector.native import NativeDetector
from d2serve.errors import RuntimeUnavailableError, SettingsError
from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu
from d2serve.serving import loading
from d2serve.serving.loading import load_detector, load_pipeline, warm_up
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise
from tests.core.requests import BAD, pipeline, request_of
from tests.core.samples import RecordingSink
from tests.fakes import FakeDetector
from tests.goldens.cases import CONFIGS, GoldenModel

CPU = torch.device("cpu")
CONFIG = CONFIGS / "faster_rcnn_r18_avg_rgb.yaml"


@pytest.fixture(scope="module")
def folder(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("archive")
    with ZipFile(shapes_mar) as packed:
        packed.extractall(unpacked)
    return unpacked


Load = Callable[..., Pipeline]


@pytest.fixture
def load(folder: Path) -> Iterator[Load]:
    """Loads the bundled model, whose threads end with the test."""
    loaded: list[Pipeline] = []
    threads = torch.get_num_threads()

    def load(**arguments: Any) -> Pipeline:
        loaded.append(load_pipeline(folder, CPU, "shapes", **arguments))
        return loaded[-1]

    yield load
    for each in loaded:
        each.close()
    torch.set_num_threads(threads)


def test_jpegs_are_decoded_on_the_cpu(load: Load) -> None:
    assert load().stages.decode_jpeg is decode_on_cpu


def test_pipeline_decodes_with_the_decoder_of_the_settings(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = []

    def other(body: bytes) -> RGBImage:
        return decode_on_cpu(body)

    def choose(decode: str, device: torch.device) -> JpegDecoder:
        requested.append((decode, device))
        return other

    monkeypatch.setattr(loading, "jpeg_decoder", choose)
    monkeypatch.setenv("D2SERVE_DECODE", "device")
    assert load().stages.decode_jpeg is other
    assert requested == [("device", CPU)]


def test_loaded_pipeline_serves_and_publishes_its_start(load: Load) -> None:
    sink = RecordingSink()
    served = load(sink=sink)
    assert sink.values("worker_starts_total") == [(1, {})]
    assert sink.values("forward_images") == []
    jpeg = image_bytes(noise(48, 64, 3), "JPEG")
    [response] = served.run([request_of(jpeg)])
    assert response.status == 200
    served.close()
    assert sink.values("forward_images") == [(1, {})]


def test_request_log_is_written_if_enabled(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "")
    for enabled in ("true", "false"):
        monkeypatch.setenv("D2SERVE_REQUEST_LOG", enabled)
        caplog.clear()
        with caplog.at_level("INFO"):
            load().run([BAD["empty"][0]])
        assert ('"event": "request"' in caplog.text) == (enabled == "true")


@pytest.mark.parametrize("share", [1, 2])
def test_models_share_the_cpus(load: Load, monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    requested = []

    def record(threads: int, share: int) -> int:
        requested.append((threads, share))
        return 1

    monkeypatch.setattr(loading, "set_num_threads", record)
    monkeypatch.setattr(loading, "decode_threads", record)
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "")
    load(share=share)
    assert requested == [(0, share), (0, share)]


def test_freed_memory_is_kept_before_threads_start(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = []
    monkeypatch.setattr(loading, "keep_freed_memory", lambda: callers.append(current_thread()))
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "")
    load()
    assert callers == [current_thread()]


def test_missing_gpu_is_an_error_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2SERVE_DECODE", "device")
    monkeypatch.setattr(loading, "load_detector", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SettingsError, match="decode is 'device', which requires a GPU"):
        load_pipeline(folder, CPU, "shapes")


def test_native_runtime_loads_the_native_detector(tmp_path: Path) -> None:
    weights = GoldenModel("tiny", CONFIG, None, ()).build().state_dict()
    folder = tmp_path / "model"
    folder.mkdir()
    written = write_model_folder(folder, CONFIG, weights, "native")
    assert (written.num_classes, written.num_stuff_classes) == (5, 0)
    assert isinstance(load_detector(tmp_path, CPU, Settings()), NativeDetector)


def test_missing_detectron2_package_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(RuntimeUnavailableError) as raised:
        load_detector(tmp_path, CPU, Settings(runtime="detectron2"))
    message = str(raised.value)
    assert message.startswith("this model needs the detectron2 package")
    assert "pip install" in message
    assert "\n" not in message


@pytest.mark.parametrize("server_forms_batches", [True, False])
def test_warm_up_runs_each_size_in_each_batch_size(server_forms_batches: bool) -> None:
    sizes_hw: list[tuple[int, ...]] = []

    def record(image: RGBImage) -> bool:
        sizes_hw.append(image.shape[:2])
        return False

    detector = FakeDetector(record)
    served = pipeline(detector, threads=2, server_forms_batches=server_forms_batches)
    warm_up(served, [(64, 48), (20, 30)], [1, 3])
    assert detector.images_per_call == [1, 3, 1, 3]
    assert sizes_hw == [(48, 64)] * 4 + [(30, 20)] * 4


@pytest.mark.parametrize(
    ("failure", "status"), [(Failure.ERROR, 500), (Failure.OUT_OF_MEMORY, 507)]
)
def test_failing_warm_up_image_is_an_error(failure: Failure, status: int) -> None:
    detector = FakeDetector(lambda image: len(image) == 30, failure)
    with pytest.raises(RuntimeError, match=rf"1 of 20x30 failed: .+\({status}\)"):
        warm_up(pipeline(detector), [(64, 48), (20, 30)], [1])


def test_rejected_warm_up_images_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    detector = FakeDetector()
    warm_up(pipeline(detector, max_image_pixels=700), [(64, 48), (20, 30)], [1])
    assert detector.images_per_call == [1]
    assert caplog.messages == [
        "warm-up with 1 of 64x48 got no result: the image is 64x48, the limit is 700 pixels"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="weights are shared on Linux only")
def test_processes_that_serve_one_model_share_its_weights(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    [expected] = load().run([request_of(image_bytes(noise(64, 48), "PNG"))])
    load(shares_weights=lambda: False)
    assert not list(tmp_path.iterdir())
    shared = load(shares_weights=lambda: True)
    [found] = shared.run([request_of(image_bytes(noise(64, 48), "PNG"))])
    assert found.body == expected.body
    [folder] = tmp_path.iterdir()
    assert str(folder) in Path("/proc/self/maps").read_text()
