import json
import unicodedata
from typing import Any, Literal

import pytest

from d2serve.errors import RequestError, SettingsError
from d2serve.inputs.options import (
    MAX_COMPOSED_LENGTH,
    OptionReader,
    merged,
    read_custom_attributes,
)
from d2serve.messages import Options
from tests.fakes import metadata_of

NAMES = ("cat", "dog", "7", "rose bush")
MODEL = metadata_of(*NAMES, score_threshold=0.25, max_detections=50)
CANARY = "zqxcanary"


def read(*sources: dict[str, Any]) -> Options:
    return OptionReader(MODEL, {}).read(*sources)


def rejected(**options: Any) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read(options)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")
    assert CANARY not in raised.value.message + raised.value.hint
    return raised.value


def test_defaults_are_those_of_the_model() -> None:
    assert read() == read({}) == Options(score_threshold=0.25, max_detections=50)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("response_type", "npz", "npz"),
        ("format", "clarify-scores", "clarify-scores"),
        ("masks", "polygon", "polygon"),
        ("score_threshold", 0.25, 0.25),
        ("score_threshold", "0.5", 0.5),
        ("score_threshold", 1, 1.0),
        ("max_detections", 1, 1),
        ("max_detections", "50", 50),
        ("max_detections", 2.0, 2),
        ("classes", "cat", {0}),
        ("classes", "cat, dog", {0, 1}),
        ("classes", "rose bush,0", {3, 0}),
        ("classes", ["dog", 3], {1, 3}),
        ("classes", [1.0], {1}),
        # A class name that looks like a number takes precedence over the id.
        ("classes", "7", {2}),
        ("classes", ["7", 3], {2, 3}),
        ("input_layout", "chw", "chw"),
        ("input_color", "bgr", "bgr"),
        ("input_range", "-1-1", "-1-1"),
    ],
)
def test_valid_value_is_accepted(name: str, given: Any, expected: Any) -> None:
    assert getattr(read({name: given}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("response_type", CANARY, "jsonlines"),
        ("response_type", None, "json"),
        ("format", ["coco"], "coco"),
        ("masks", "RLE", "rle"),
        ("masks", "", "rle"),
        ("score_threshold", 0.2499, "0.25 to 1"),
        ("score_threshold", 1.0001, "0.25 to 1"),
        ("score_threshold", "nan", "0.25 to 1"),
        ("score_threshold", "0_1", "0.25 to 1"),
        ("max_detections", "1_0", "1 to 50"),
        ("score_threshold", "1e999", "0.25 to 1"),
        ("score_threshold", CANARY, "0.25 to 1"),
        ("score_threshold", True, "0.25 to 1"),
        ("score_threshold", [0.5], "0.25 to 1"),
        ("max_detections", 0, "1 to 50"),
        ("max_detections", 51, "1 to 50"),
        ("max_detections", 1.5, "1 to 50"),
        ("max_detections", 10**400, "1 to 50"),
        ("max_detections", "9" * 5000, "1 to 50"),
        ("classes", "", "cat, dog"),
        ("classes", [], "cat"),
        ("classes", {"cat": 1}, "cat"),
        ("classes", CANARY, "0 to 3"),
        ("classes", ["cat", 4], "0 to 3"),
        ("classes", [-1], "0 to 3"),
        ("classes", [0.5], "0 to 3"),
        ("classes", [["cat"]], "0 to 3"),
        ("input_layout", "nhwc", "chw"),
        ("input_color", "gray", "bgr"),
        ("input_range", "0-65535", "-1-1"),
        (CANARY, 1, "score_threshold"),
        ("", 1, "score_threshold"),
    ],
)
def test_invalid_value_is_a_400_that_lists_the_valid_ones(
    name: str, value: Any, named: str
) -> None:
    error = rejected(**{name: value})
    assert named in error.message + error.hint


def test_similar_option_is_suggested() -> None:
    assert "did you mean score_threshold?" in rejected(score_treshold=0.5).message


def test_hint_lists_at_most_twenty_classes() -> None:
    reader = OptionReader(metadata_of(*(f"class_{index}" for index in range(1203))), {})
    with pytest.raises(RequestError) as raised:
        reader.read({"classes": "unicorn"})
    assert "class_0, class_1" in raised.value.hint
    assert raised.value.hint.endswith("...")
    assert len(raised.value.hint) < 400


def test_last_source_wins() -> None:
    options = read({"masks": "none", "format": "coco"}, {"masks": "polygon"}, {})
    assert (options.masks, options.format) == ("polygon", "coco")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        pytest.param(("naïve",), "nai\u0308ve", id="decomposed"),
        pytest.param(("nai\u0308ve",), "naïve", id="decomposed-in-the-model"),
        pytest.param(("\u212b", "\u00c5"), "\u00c5", id="equal-names-first"),
        pytest.param(("\uac01",), "\u1100\u1161\u11a8", id="Korean"),
    ],
)
def test_class_names_match_in_any_unicode_normal_form(names: tuple[str, ...], text: str) -> None:
    expected = names.index(text) if text in names else 0
    options = OptionReader(metadata_of(*names), {}).read({"classes": text})
    assert options.classes == frozenset({expected})


def test_long_class_names_are_not_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time grows with the square of their length."""
    lengths, normalize = [0], unicodedata.normalize

    def composing(form: Literal["NFC"], text: str) -> str:
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", composing)
    assert rejected(classes="a" + "\u0301\u0316" * 10_000).status == 400
    assert max(lengths) <= MAX_COMPOSED_LENGTH


@pytest.mark.parametrize(
    "text", ["classes=圆,naïve", '{"classes": "圆,naïve"}', "classes=треугольник;masks=none"]
)
def test_custom_attributes_in_utf_8_are_decoded(text: str) -> None:
    received = text.encode().decode("latin-1")  # as servers decode headers
    assert read_custom_attributes(received) == read_custom_attributes(text)
    assert read_custom_attributes(text)["classes"] in text


def test_custom_attributes_in_latin_1_stay_as_they_are() -> None:
    assert read_custom_attributes("classes=naïve") == {"classes": "naïve"}


def test_repeated_classes_are_a_list() -> None:
    pairs = [("classes", "cat"), ("masks", "rle"), ("classes", "dog"), ("masks", "none")]
    assert merged(pairs) == {"classes": "cat,dog", "masks": "none"}


def test_archive_defaults_apply_without_options() -> None:
    reader = OptionReader(MODEL, {"score_threshold": 0.7, "classes": ["cat"]})
    assert reader.read({}).score_threshold == 0.7
    assert reader.read({"score_threshold": 0.25}).score_threshold == 0.25
    assert reader.read({"masks": "none"}).classes == frozenset({0})


def test_invalid_archive_default_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="max_detections must be an integer from 1 to 50"):
        OptionReader(MODEL, {"max_detections": 51})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        (";,;", {}),
        ("masks=none", {"masks": "none"}),
        ("masks=none;format=coco", {"masks": "none", "format": "coco"}),
        ("masks=none,format=coco", {"masks": "none", "format": "coco"}),
        (" masks = none ; format = coco ; ", {"masks": "none", "format": "coco"}),
        ("classes=cat,dog;masks=none", {"classes": "cat,dog", "masks": "none"}),
        ("masks=none;classes=cat,dog", {"classes": "cat,dog", "masks": "none"}),
        ("masks=rle;masks=none", {"masks": "none"}),
        ("classes=cat;masks=none;classes=dog", {"classes": "cat,dog", "masks": "none"}),
        ("classes=a=b", {"classes": "a=b"}),
        ("classes=cat;dog", {"classes": "cat,dog"}),
        ("score_threshold=", {"score_threshold": ""}),
        # Text of other programs.
        (CANARY, {}),
        ("1c32b7a4-6d67-4a4c-8f2b-3f4c2bd8a1aa", {}),
        ("cat,masks=none", {"masks": "none"}),
        ("masks=none;1c32b7a4", {"masks": "none"}),
        ("https://example.com/?trace=1", {}),
        ("[1, 2]", {}),
        ("ZDJzZXJ2ZQ==", {}),
        ("dHJhY2U=;masks=none", {"masks": "none"}),
        ("masks=none,c29tZSBpZA==", {"masks": "none"}),
        ("accept_eula=true", {}),
        ("accept_eula=true,masks=none", {"masks": "none"}),
        ('{"accept_eula": true, "masks": "none"}', {"masks": "none"}),
        # Pairs are options, also unknown ones, which the OptionReader rejects.
        ("Root=1-67891233-abcdef;Sampled=1", {"Root": "1-67891233-abcdef", "Sampled": "1"}),
        ("{}", {}),
        (' {"masks": "none", "classes": [1]} ', {"masks": "none", "classes": [1]}),
    ],
)
def test_custom_attributes_are_parsed(text: str, expected: dict[str, Any]) -> None:
    assert read_custom_attributes(text) == expected


@pytest.mark.parametrize(
    "text", ["{" + CANARY, "{", "{'masks': 'none'}", '{"a": 1}}', '{"a":' * 5000]
)
def test_invalid_custom_attributes_are_a_400(text: str) -> None:
    with pytest.raises(RequestError, match="custom attributes") as raised:
        read_custom_attributes(text)
    assert raised.value.status == 400
    assert CANARY not in raised.value.message + raised.value.hint


def test_json_custom_attributes_are_parsed() -> None:
    assert isinstance(read_custom_attributes(json.dumps({"masks": None})), dict)
