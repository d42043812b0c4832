"""Content negotiation by the Accept header."""

from dataclasses import replace
from functools import partial

import pytest

from d2serve.errors import RequestError
from d2serve.messages import RESPONSE_TYPES
from d2serve.outputs.accept import (
    JPEG,
    JSON,
    JSON_LINES,
    NPY,
    NPZ,
    PNG,
    MediaRange,
    best_match,
    choose_response,
    parse_accept,
)
from tests.outputs.results import ALL
from tests.work import calls_of


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, JSON, id="no-header"),
        pytest.param("", JSON, id="empty"),
        pytest.param("  ", JSON, id="blank"),
        pytest.param("*/*", JSON, id="anything"),
        pytest.param("application/*", JSON, id="any-application"),
        pytest.param("image/*", JPEG, id="any-image"),
        pytest.param("application/json", JSON, id="json"),
        pytest.param("application/jsonlines", JSON_LINES, id="json-lines"),
        pytest.param("image/jpeg", JPEG, id="jpeg"),
        pytest.param("image/png", PNG, id="png"),
        pytest.param("application/x-npy", NPY, id="npy"),
        pytest.param("application/x-npz", NPZ, id="npz"),
        pytest.param("image/png, image/jpeg", JPEG, id="a-tie-goes-to-the-first-supported"),
        pytest.param("image/png, */*", PNG, id="a-tie-goes-to-the-more-specific"),
        pytest.param("*/*, image/*", JPEG, id="a-tie-goes-to-the-family"),
        pytest.param("image/jpeg;q=0.8, image/png;q=0.9", PNG, id="the-higher-q"),
        pytest.param("image/jpeg;q=0.8, image/png", PNG, id="no-q-is-one"),
        pytest.param("image/png;q=0.001", PNG, id="a-very-low-q"),
        pytest.param("text/html, image/png;q=0.5", PNG, id="the-better-one-is-not-supported"),
        pytest.param("image/webp,image/png,*/*;q=0.8", PNG, id="browser-header"),
        pytest.param("*/*;q=0.9, image/png;q=0.1", JSON, id="wildcard-above-a-low-q"),
        pytest.param("image/*;q=0.9, image/jpeg;q=0.1", PNG, id="specific-beats-family"),
        pytest.param("*/*, application/json;q=0.0", JSON_LINES, id="json-rejected"),
        pytest.param("*/*;q=1, application/*;q=0", JPEG, id="a-family-rejected"),
        pytest.param("image/*, image/jpeg;q=0", PNG, id="one-of-a-family-rejected"),
        pytest.param("application/json;charset=utf-8", JSON, id="an-unknown-parameter"),
        pytest.param(",, image/png ,", PNG, id="empty-members"),
    ],
)
def test_best_supported_type_is_chosen(accept: str | None, expected: str) -> None:
    assert choose_response(accept, ALL, 1).media_type == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, PNG, id="no-header"),
        pytest.param("", PNG, id="empty"),
        pytest.param("*/*", PNG, id="anything"),
        pytest.param("*/*;q=0.1", PNG, id="anything-with-a-q"),
        pytest.param("text/html, */*", PNG, id="wildcard-after-unsupported-type"),
        pytest.param("image/*", PNG, id="its-family"),
        pytest.param("image/jpeg, image/png", PNG, id="a-tie"),
        pytest.param("image/jpeg, */*", JPEG, id="another-one-named"),
        pytest.param("application/json", JSON, id="only-another-one"),
        pytest.param("application/*", JSON, id="another-family"),
        pytest.param("image/png;q=0.5, image/jpeg", JPEG, id="a-lower-q"),
        pytest.param("*/*, image/png;q=0", JSON, id="rejected"),
    ],
)
def test_response_type_breaks_ties(accept: str | None, expected: str) -> None:
    options = replace(ALL, response_type="png")
    assert choose_response(accept, options, 1).media_type == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, JSON, id="no-header"),
        pytest.param("image/png, application/json;q=0.5", JSON, id="png-rather"),
        pytest.param("image/png, */*;q=0.1", JSON, id="anything-after-all"),
        pytest.param("image/png, application/jsonlines;q=0.1", JSON_LINES, id="json-lines"),
        pytest.param("application/x-npz, application/*;q=0.1", JSON, id="a-family"),
    ],
)
@pytest.mark.parametrize("count", [0, 2, 30])
def test_several_images_get_a_multi_image_type(
    accept: str | None, expected: str, count: int
) -> None:
    assert choose_response(accept, ALL, count).media_type == expected


@pytest.mark.parametrize(
    ("accept", "response_type"),
    [
        pytest.param("image/png", "json", id="png"),
        pytest.param("image/*, application/x-npy, application/x-npz", "json", id="all-of-them"),
        pytest.param("image/png, */*;q=0, text/html", "json", id="after-unsupported-type"),
        pytest.param(None, "png", id="by-the-option"),
        pytest.param("*/*", "npz", id="by-the-option-and-any-type"),
    ],
)
def test_several_images_in_a_single_image_type_is_a_406(
    accept: str | None, response_type: str
) -> None:
    with pytest.raises(RequestError, match=r"has 3 images, but .* hold only one") as raised:
        choose_response(accept, replace(ALL, response_type=response_type), 3)
    assert (raised.value.status, raised.value.code) == (406, "not_acceptable")
    assert "accept application/json or" in raised.value.hint
    assert "one image per request" in raised.value.hint


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "accept",
    [
        pytest.param("text/html", id="not-supported"),
        pytest.param("text/*, audio/*", id="families-not-supported"),
        pytest.param("*/*;q=0", id="all-types-rejected"),
        pytest.param("application/json;q=0", id="the-only-one-rejected"),
        pytest.param(",", id="only-a-comma"),
        pytest.param("<script>\x00\x01;;==,,/", id="garbage"),
    ],
)
def test_unsupported_accept_is_a_406_that_lists_the_types(accept: str, count: int) -> None:
    with pytest.raises(RequestError, match="the Accept header lists no supported type") as raised:
        choose_response(accept, ALL, count)
    assert (raised.value.status, raised.value.code) == (406, "not_acceptable")
    assert raised.value.hint == f"accept one of {', '.join(RESPONSE_TYPES.values())}"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, "coco", id="no-header"),
        pytest.param("application/json", "coco", id="none"),
        pytest.param("application/json;charset=utf-8", "coco", id="another-parameter"),
        pytest.param("application/json;verbose", "jumpstart", id="verbose"),
        pytest.param("Application/JSON; Verbose ;q=0.3", "jumpstart", id="verbose-and-q"),
        pytest.param("application/jsonlines;verbose", "jumpstart", id="verbose-lines"),
        pytest.param("application/*;verbose", "jumpstart", id="verbose-family"),
        pytest.param("image/png;verbose", "coco", id="verbose-image"),
        pytest.param("text/html;verbose, application/json", "coco", id="of-another-range"),
        pytest.param("image/png;verbose, */*;q=0.1", "coco", id="of-a-range-with-a-higher-q"),
    ],
)
def test_verbose_selects_the_jumpstart_format(accept: str | None, expected: str) -> None:
    options = replace(ALL, format="coco")
    assert choose_response(accept, options, 1).options == replace(options, format=expected)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param("application/json", 20, id="none"),
        pytest.param("application/json;n_predictions=5", 5, id="fewer"),
        pytest.param("application/json;n_predictions=20", 20, id="as-many"),
        pytest.param("application/json;n_predictions=999999999", 20, id="more"),
        pytest.param("application/json;n_predictions=007", 7, id="leading-zeros"),
        pytest.param("application/json;verbose; N_Predictions = 5 ;q=1", 5, id="mixed-case"),
        pytest.param("image/png;n_predictions=5", 5, id="of-an-image"),
        pytest.param("text/html;n_predictions=5, application/json", 20, id="of-another-range"),
        pytest.param("text/html;n_predictions=x, application/json", 20, id="not-looked-at"),
    ],
)
def test_n_predictions_limits_the_detections(accept: str, expected: int) -> None:
    options = replace(ALL, max_detections=20)
    assert choose_response(accept, options, 1).options.max_detections == expected


@pytest.mark.parametrize(
    "count", ["", "0", "00", "-1", "+1", "1.0", "1e3", "ten", "1_0", "٣", "²", "9" * 10, "9" * 5000]
)
def test_invalid_n_predictions_is_a_400(count: str) -> None:
    with pytest.raises(RequestError, match="an integer from 1 to 999999999") as raised:
        choose_response(f"application/json;n_predictions={count}", ALL, 1)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")
    assert len(raised.value.message + raised.value.hint) < 200


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" , ,", [], id="only-commas"),
        pytest.param("image/png", [MediaRange("image/png", 1.0, {})], id="a-type"),
        pytest.param("IMAGE/PNG", [MediaRange("image/png", 1.0, {})], id="upper-case"),
        pytest.param("*/*;q=0.5", [MediaRange("*/*", 0.5, {})], id="a-q"),
        pytest.param("a/b ; Q = 0.5", [MediaRange("a/b", 0.5, {})], id="a-q-with-spaces"),
        pytest.param("a/b;q=5", [MediaRange("a/b", 1.0, {})], id="a-q-above-one-is-one"),
        pytest.param("a/b;q=-1", [MediaRange("a/b", 1.0, {})], id="a-q-under-zero-is-one"),
        pytest.param("a/b;q=high", [MediaRange("a/b", 1.0, {})], id="invalid-q-is-one"),
        pytest.param("a/b;q=nan", [MediaRange("a/b", 1.0, {})], id="a-q-of-nan-is-one"),
        pytest.param("a/b;q", [MediaRange("a/b", 1.0, {})], id="a-q-without-value-is-one"),
        pytest.param("a/b;q=0.000", [MediaRange("a/b", 0.0, {})], id="a-q-of-zero"),
        pytest.param(
            "a/b;Verbose; N = 3;q=0.1",
            [MediaRange("a/b", 0.1, {"verbose": "", "n": "3"})],
            id="other-parameters",
        ),
        pytest.param(
            "a/b, c/d;q=0.1",
            [MediaRange("a/b", 1.0, {}), MediaRange("c/d", 0.1, {})],
            id="several",
        ),
        pytest.param(
            "a/b;q=0.1, a/b;x;q=0.3, a/b;y;q=0.3, a/b;q=0.2",
            [MediaRange("a/b", 0.3, {"x": ""})],
            id="the-best-of-equal-names",
        ),
    ],
)
def test_media_ranges_are_parsed(accept: str, expected: list[MediaRange]) -> None:
    assert list(parse_accept(accept).values()) == expected


@pytest.mark.parametrize(
    ("accept", "name", "specificity"),
    [
        pytest.param("*/*, image/*, image/png", "image/png", 2, id="the-type-itself"),
        pytest.param("*/*, image/*", "image/*", 1, id="its-family"),
        pytest.param("*/*", "*/*", 0, id="anything"),
        pytest.param("*/*, image/png;q=0", "image/png", 2, id="even-if-its-type-is-rejected"),
    ],
)
def test_most_specific_range_matches(accept: str, name: str, specificity: int) -> None:
    match = best_match("image/png", parse_accept(accept))
    assert match is not None
    assert (match.media_range.name, match.specificity) == (name, specificity)


@pytest.mark.parametrize(
    "accept",
    ["", "text/*", "image/pngx", "image", "*", "image/*x", "image/", "/png", ";q=1", "\x00;;=,/"],
)
def test_no_range_matches(accept: str) -> None:
    assert best_match("image/png", parse_accept(accept)) is None


@pytest.mark.parametrize("text", [",", ";", ";,", "a/b,", "a/b;q=,", "=;", "x" * 9 + ","])
def test_long_accept_header_is_parsed_in_linear_time(text: str) -> None:
    short, long = (calls_of(partial(parse_accept, text * size)) for size in (1_000, 4_000))
    assert long < 4.5 * short
