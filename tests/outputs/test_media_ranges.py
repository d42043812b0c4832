import time

import pytest

from d2serve.outputs.accept import MediaRange, best_match, parse_accept


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
        pytest.param("a/b;q=high", [MediaRange("a/b", 1.0, {})], id="a-q-that-is-no-number-is-one"),
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
def test_ranges_are_read(accept: str, expected: list[MediaRange]) -> None:
    assert list(parse_accept(accept).values()) == expected


@pytest.mark.parametrize(
    ("accept", "name", "specificity"),
    [
        pytest.param("*/*, image/*, image/png", "image/png", 2, id="the-type-itself"),
        pytest.param("*/*, image/*", "image/*", 1, id="its-family"),
        pytest.param("*/*", "*/*", 0, id="anything"),
        pytest.param("*/*, image/png;q=0", "image/png", 2, id="also-where-it-is-refused"),
    ],
)
def test_the_most_specific_range_covers_a_type(accept: str, name: str, specificity: int) -> None:
    match = best_match("image/png", parse_accept(accept))
    assert match is not None
    assert (match.media_range.name, match.specificity) == (name, specificity)


@pytest.mark.parametrize(
    "accept",
    ["", "text/*", "image/pngx", "image", "*", "image/*x", "image/", "/png", ";q=1", "\x00;;=,/"],
)
def test_no_range_covers_it(accept: str) -> None:
    assert best_match("image/png", parse_accept(accept)) is None


@pytest.mark.parametrize("text", [",", ";", ";,", "a/b,", "a/b;q=,", "=;", "x" * 9 + ","])
def test_a_header_of_a_hundred_kilobytes_takes_no_more_than_its_share_of_time(text: str) -> None:
    started = time.perf_counter()
    parse_accept(text * (100_000 // len(text)))
    assert time.perf_counter() - started < 5
