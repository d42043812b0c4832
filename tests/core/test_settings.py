from collections.abc import Mapping
from typing import Any

import pytest

from d2serve.serving.model_config import load_settings
from d2serve.settings import Settings, SettingsError, picture_sizes

INTEGERS = (
    ("max_request_bytes", 1),
    ("max_image_pixels", 1),
    ("max_images_per_request", 1),
    ("images_per_forward", 1),
    ("threads", 0),
    ("drain_seconds", 0),
    ("longest_wait_seconds", 0),
)


@pytest.mark.parametrize("section", [None, {}], ids=["no-section", "empty-section"])
def test_defaults_hold_where_nothing_is_said(section: Mapping[str, Any] | None) -> None:
    assert load_settings(section, {}) == Settings()


def test_limits_on_bytes_pixels_and_pictures_are_on_by_default() -> None:
    settings = Settings()
    assert settings.max_request_bytes == 100_000_000
    assert settings.max_image_pixels == 50_000_000
    assert settings.max_images_per_request == 64


def test_a_stop_waits_for_what_runs_by_default() -> None:
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


def test_a_text_setting_comes_from_the_environment_too() -> None:
    assert load_settings({}, {"D2SERVE_PADDING": "batch"}) == Settings(padding="batch")


@pytest.mark.parametrize("text", ["true", "false"])
def test_a_switch_comes_from_the_environment_too(text: str) -> None:
    assert load_settings({}, {"D2SERVE_REQUEST_LOG": text}).request_log is (text == "true")


@pytest.mark.parametrize("value", [None, 0, 1, "yes", []])
def test_a_switch_is_true_or_false(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"request_log is .*; use true or false$"):
        load_settings({"request_log": value}, {})


@pytest.mark.parametrize(("name", "least"), INTEGERS)
def test_the_least_value_is_accepted(name: str, least: int) -> None:
    assert getattr(load_settings({name: least}, {}), name) == least


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
@pytest.mark.parametrize(("name", "least"), INTEGERS)
def test_what_is_no_whole_number_is_refused_with_the_key_and_the_least_value(
    name: str, least: int, value: Any
) -> None:
    with pytest.raises(SettingsError, match=rf"{name} is .* at least {least}$"):
        load_settings({name: value}, {})


@pytest.mark.parametrize("name", [name for name, least in INTEGERS if least == 1])
def test_a_limit_of_zero_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name} is 0"):
        load_settings({name: 0}, {})


@pytest.mark.parametrize("text", ["", "many", "-1", "8.5", "٨"])
def test_an_environment_variable_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=rf"threads is '{text}'; .* at least 0"):
        load_settings({}, {"D2SERVE_THREADS": text})


@pytest.mark.parametrize("value", ["", "Batch", "images", None, 1, ["image"]])
def test_an_unknown_padding_is_refused_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"padding is .*; use one of image, batch"):
        load_settings({"padding": value}, {})


@pytest.mark.parametrize("value", ["", "auto", "Native", None, 2])
def test_an_unknown_runtime_is_refused_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"runtime is .*; use one of native, detectron2"):
        load_settings({"runtime": value}, {})


@pytest.mark.parametrize("value", ["", "float16", "FP32", None, 16, ["bf16"]])
def test_an_unknown_precision_is_refused_with_the_valid_ones(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"precision is .*; use one of fp32, bf16, fp16, auto"):
        load_settings({"precision": value}, {})


def test_who_resizes_is_one_of_two_and_the_upstream_package_takes_pillow() -> None:
    assert load_settings({"resize": "device"}, {}) == Settings(resize="device")
    with pytest.raises(SettingsError, match=r"resize is 'gpu'; use one of pil, device"):
        load_settings({"resize": "gpu"}, {})
    with pytest.raises(SettingsError, match=r"resize is 'device'; the detectron2 package.*use pil"):
        load_settings({"resize": "device", "runtime": "detectron2"}, {})


def test_who_decodes_jpegs_is_one_of_two() -> None:
    assert load_settings({}, {"D2SERVE_DECODE": "device"}) == Settings(decode="device")
    with pytest.raises(SettingsError, match=r"decode is 'gpu'; use one of cpu, device"):
        load_settings({"decode": "gpu"}, {})


def test_cuda_graphs_are_the_native_runtimes() -> None:
    assert load_settings({"cuda_graphs": True}, {}) == Settings(cuda_graphs=True)
    with pytest.raises(SettingsError, match=r"cuda_graphs is for the native runtime.*use false"):
        load_settings({"cuda_graphs": True, "runtime": "detectron2"}, {})


def test_the_environment_chooses_a_precision() -> None:
    assert load_settings({}, {"D2SERVE_PRECISION": "bf16"}) == Settings(precision="bf16")


@pytest.mark.parametrize("value", ["bf16", "fp16"])
def test_the_upstream_package_has_one_precision(value: str) -> None:
    with pytest.raises(SettingsError, match=rf"precision is '{value}'; the detectron2 package"):
        load_settings({"precision": value, "runtime": "detectron2"}, {})
    assert load_settings({"precision": "auto", "runtime": "detectron2"}, {}).precision == "auto"


@pytest.mark.parametrize("name", ["", "max_pixels", "Threads", 7])
def test_an_unknown_setting_is_refused_with_the_known_ones(name: Any) -> None:
    with pytest.raises(SettingsError, match=rf"setting {name} does not exist") as raised:
        load_settings({name: 1}, {})
    for known in ("images_per_forward", "max_image_pixels", "padding"):
        assert known in str(raised.value)


@pytest.mark.parametrize("section", [[], "threads", 3])
def test_a_section_that_is_no_mapping_is_refused_with_an_example(section: Any) -> None:
    with pytest.raises(SettingsError, match=r"must be a mapping, e\.g\. images_per_forward: 8"):
        load_settings(section, {})


def test_more_pixels_than_pillow_decodes_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"max_image_pixels is 178956971; .* 178956970"):
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
def test_defaults_of_options_stand_beside_the_settings(
    section: dict[str, Any], environment: dict[str, str], options: dict[str, Any]
) -> None:
    settings = load_settings({**section, "threads": 2}, environment)
    assert settings == Settings(threads=2, options=options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_image_pixels", 200_000_000), ("max_json_nesting", 501), ("max_response_bytes", 0)],
)
def test_a_limit_beyond_what_can_be_kept_is_told(name: str, value: int) -> None:
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
def test_sizes_of_pictures_are_read(text: str, sizes: tuple[tuple[int, int], ...]) -> None:
    assert picture_sizes(text) == sizes


@pytest.mark.parametrize("text", ["640", "640x", "0x480", "640x480,480x640", "640X480", 640, None])
def test_sizes_that_are_none_are_told(text: Any) -> None:
    with pytest.raises(SettingsError, match=r"warm_up_sizes is .+ such as '640x480 480x640'"):
        load_settings({"warm_up_sizes": text}, {})
