"""Settings of the archive's `model-config.yaml` and of the environment."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from d2serve.errors import SettingsError
from d2serve.servers.torchserve.workers import read_workers
from d2serve.serving.model_config import load_settings, read_settings
from d2serve.settings import RETIRED_SETTINGS, SETTING_NAMES, Settings, image_sizes

INTEGERS = (
    ("max_request_bytes", 1),
    ("max_image_pixels", 1),
    ("max_images_per_request", 1),
    ("images_per_forward", 1),
    ("pixels_per_forward", 1),
    ("max_queued_requests", 1),
    ("max_queued_bytes", 1),
    ("batch_wait_ms", 0),
    ("threads", 0),
    ("drain_seconds", 0),
    ("longest_wait_seconds", 0),
)


@pytest.mark.parametrize("section", [None, {}], ids=["no-section", "empty-section"])
def test_defaults_apply_without_settings(section: Mapping[str, Any] | None) -> None:
    assert load_settings(section, {}) == Settings()


def test_limits_on_bytes_pixels_and_images_are_on_by_default() -> None:
    settings = Settings()
    assert settings.max_request_bytes == 100_000_000
    assert settings.max_image_pixels == 50_000_000
    assert settings.max_images_per_request == 64


def test_queue_is_bounded_by_default() -> None:
    settings = Settings()
    assert settings.max_queued_requests == 64
    assert settings.max_queued_bytes == 1_000_000_000
    assert settings.pixels_per_forward == 16_000_000


def test_lone_image_does_not_wait_for_a_batch_by_default() -> None:
    assert Settings().batch_wait_ms == 0


def test_stopping_waits_for_running_requests_by_default() -> None:
    assert Settings().drain_seconds == 20


@pytest.mark.parametrize(
    ("section", "environment", "expected"),
    [
        pytest.param({}, {"PATH": "/bin", "D2SERVE_UNKNOWN": "1"}, 8, id="default"),
        pytest.param({"images_per_forward": 4}, {}, 4, id="section-over-default"),
        pytest.param({}, {"D2SERVE_IMAGES_PER_FORWARD": "2"}, 2, id="environment-over-default"),
        pytest.param(
            {"images_per_forward": 4},
            {"D2SERVE_IMAGES_PER_FORWARD": "2"},
            2,
            id="environment-over-section",
        ),
    ],
)
def test_the_environment_wins_over_the_section_over_the_default(
    section: Mapping[str, Any], environment: Mapping[str, str], expected: int
) -> None:
    assert load_settings(section, environment) == Settings(images_per_forward=expected)


def test_text_setting_of_the_environment() -> None:
    assert load_settings({}, {"D2SERVE_PADDING": "batch"}) == Settings(padding="batch")


@pytest.mark.parametrize("text", ["true", "false"])
def test_switch_of_the_environment(text: str) -> None:
    assert load_settings({}, {"D2SERVE_REQUEST_LOG": text}).request_log is (text == "true")


@pytest.mark.parametrize("value", [None, 0, 1, "yes", []])
def test_switch_is_true_or_false(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"request_log is .*, expected true or false$"):
        load_settings({"request_log": value}, {})


@pytest.mark.parametrize(("name", "minimum"), INTEGERS)
def test_minimum_is_accepted(name: str, minimum: int) -> None:
    assert getattr(load_settings({name: minimum}, {}), name) == minimum


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param("8", id="text"),
        pytest.param(8.0, id="fraction"),
        pytest.param(True, id="boolean"),
        pytest.param([8], id="list"),
        pytest.param(-1, id="negative"),
    ],
)
@pytest.mark.parametrize(("name", "minimum"), INTEGERS)
def test_value_that_is_not_an_integer_is_an_error_with_the_minimum(
    name: str, minimum: int, value: Any
) -> None:
    with pytest.raises(
        SettingsError, match=rf"{name} is .*, expected an integer of at least {minimum}$"
    ):
        load_settings({name: value}, {})


@pytest.mark.parametrize("name", [name for name, minimum in INTEGERS if minimum == 1])
def test_limit_of_zero_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name} is 0"):
        load_settings({name: 0}, {})


@pytest.mark.parametrize("text", ["", "many", "-1", "8.5", "٨"])
def test_environment_variable_that_is_not_an_integer_is_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match=rf"threads is '{text}', .* at least 0"):
        load_settings({}, {"D2SERVE_THREADS": text})


@pytest.mark.parametrize("value", ["", "Batch", "images", None, 1, ["image"]])
def test_unknown_padding_is_an_error_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"padding is .*, expected one of image, batch"):
        load_settings({"padding": value}, {})


@pytest.mark.parametrize("value", ["", "auto", "Native", None, 2])
def test_unknown_runtime_is_an_error_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"runtime is .*, expected one of native, detectron2"):
        load_settings({"runtime": value}, {})


@pytest.mark.parametrize("value", ["", "float16", "FP32", None, 16, ["bf16"]])
def test_unknown_precision_is_an_error_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"precision is .*, expected one of fp32, bf16, fp16, int8, auto"
    ):
        load_settings({"precision": value}, {})


def test_resize_is_pil_or_device_and_pil_for_the_detectron2_package() -> None:
    assert load_settings({"resize": "device"}, {}) == Settings(resize="device")
    with pytest.raises(SettingsError, match=r"resize is 'gpu', expected one of pil, device"):
        load_settings({"resize": "gpu"}, {})
    with pytest.raises(
        SettingsError, match=r"resize is 'device', expected pil: the detectron2 package"
    ):
        load_settings({"resize": "device", "runtime": "detectron2"}, {})


def test_decode_is_cpu_or_device() -> None:
    assert load_settings({}, {"D2SERVE_DECODE": "device"}) == Settings(decode="device")
    with pytest.raises(SettingsError, match=r"decode is 'gpu', expected one of cpu, device"):
        load_settings({"decode": "gpu"}, {})


def test_cuda_graphs_need_the_native_runtime() -> None:
    assert load_settings({"cuda_graphs": True}, {}) == Settings(cuda_graphs=True)
    with pytest.raises(
        SettingsError, match=r"cuda_graphs is True, expected false: the detectron2 package"
    ):
        load_settings({"cuda_graphs": True, "runtime": "detectron2"}, {})


def test_precision_of_the_environment() -> None:
    assert load_settings({}, {"D2SERVE_PRECISION": "bf16"}) == Settings(precision="bf16")


@pytest.mark.parametrize("value", ["bf16", "fp16", "int8"])
def test_detectron2_package_has_one_precision(value: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"precision is '{value}', expected fp32 or auto: the detectron2"
    ):
        load_settings({"precision": value, "runtime": "detectron2"}, {})
    assert load_settings({"precision": "auto", "runtime": "detectron2"}, {}).precision == "auto"


@pytest.mark.parametrize("name", ["", "max_pixels", "Threads", 7])
def test_unknown_setting_is_an_error_with_the_known_ones(name: Any) -> None:
    with pytest.raises(SettingsError, match=rf"setting {name} does not exist") as raised:
        load_settings({name: 1}, {})
    for known in ("images_per_forward", "max_image_pixels", "padding"):
        assert known in str(raised.value)


@pytest.mark.parametrize("section", [[], "threads", 3])
def test_section_that_is_not_a_mapping_is_an_error_with_an_example(section: Any) -> None:
    with pytest.raises(SettingsError, match=r"expected a mapping such as images_per_forward: 8"):
        load_settings(section, {})


def test_more_pixels_than_pillow_decodes_are_an_error() -> None:
    with pytest.raises(
        SettingsError, match=r"max_image_pixels is 178956971, expected at most 178956970"
    ):
        load_settings({"max_image_pixels": 178_956_971}, {})


@pytest.mark.parametrize(
    ("section", "environment", "options"),
    [
        pytest.param({}, {}, {}, id="none"),
        pytest.param({"masks": "none"}, {}, {"masks": "none"}, id="in-the-section"),
        pytest.param(
            {"masks": "none", "classes": ["cat"]},
            {"D2SERVE_MASKS": "polygon", "D2SERVE_MAX_DETECTIONS": "5"},
            {"masks": "polygon", "classes": ["cat"], "max_detections": 5},
            id="the-environment-wins",
        ),
    ],
)
def test_section_may_contain_default_options(
    section: dict[str, Any], environment: dict[str, str], options: dict[str, Any]
) -> None:
    settings = load_settings({**section, "threads": 2}, environment)
    assert settings == Settings(threads=2, options=options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_image_pixels", 200_000_000), ("max_response_bytes", 0)],
)
def test_limit_out_of_range_is_an_error(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({name: value}, {})


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("640x480 480x640", ((640, 480), (480, 640))),
        (" 1x99999 ", ((1, 99999),)),
        ("", ()),
    ],
)
def test_image_sizes(text: str, sizes: tuple[tuple[int, int], ...]) -> None:
    assert image_sizes(text) == sizes


@pytest.mark.parametrize("text", ["640", "640x", "0x480", "640x480,480x640", "640X480", 640, None])
def test_invalid_image_sizes_are_an_error(text: Any) -> None:
    with pytest.raises(SettingsError, match=r"warm_up_sizes is .+ such as '640x480 480x640'"):
        load_settings({"warm_up_sizes": text}, {})


def test_retired_settings_are_ignored_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Archives of earlier versions contain all settings of their time."""
    retired = "".join(f"  {name}: 7\n" for name in RETIRED_SETTINGS)
    file = tmp_path / "model-config.yaml"
    file.write_text(f"batchSize: 8\nhandler:\n  threads: 2\n{retired}", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert read_settings(file, {}) == Settings(threads=2)
    [message] = caplog.messages
    assert message.startswith("model-config.yaml: the handler settings max_npy_header_bytes, ")
    assert all(name in message for name in RETIRED_SETTINGS)
    assert not set(RETIRED_SETTINGS) & set(SETTING_NAMES)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model-config.yaml"
    file.write_text("handler: {threads: 2, masks: none}", encoding="utf-8")
    settings = read_settings(file, {}, {"threads": 3, "max_detections": 5})
    assert settings == Settings(threads=3, options={"masks": "none", "max_detections": 5})


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("minWorkers: 1\nmaxWorkers: 3\n", 3),
        ("minWorkers: 2\n", 2),
        ("maxWorkers: many\n", 1),
        ("handler: {threads: 0}\n", 1),
        (None, 1),
    ],
)
def test_number_of_workers_is_set_by_the_archive(
    tmp_path: Path, text: str | None, workers: int
) -> None:
    file = tmp_path / "model-config.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert read_workers(file, {}) == workers


@pytest.mark.parametrize(
    ("text", "environment", "workers"),
    [
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "3"}, 3),
        ("", {"SAGEMAKER_TS_MIN_WORKERS": "2", "SAGEMAKER_TS_MAX_WORKERS": "4"}, 4),
        ("", {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, 2),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_WORKERS": "8"}, 3),
        ("maxWorkers: 2", {"SAGEMAKER_TS_MAX_WORKERS": "3"}, 2),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "many"}, 1),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "0"}, 1),
    ],
)
def test_number_of_workers_is_set_by_sagemakers_variables_otherwise(
    tmp_path: Path, text: str, environment: dict[str, str], workers: int
) -> None:
    file = tmp_path / "model-config.yaml"
    file.write_text(f"batchSize: 8\n{text}\n", encoding="utf-8")
    assert read_workers(file, environment) == workers
