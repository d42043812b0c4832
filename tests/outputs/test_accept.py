import pytest

from handler.errors import RequestError
from handler.outputs.accept import choose_media_type

JSON, JPEG, PNG = "application/json", "image/jpeg", "image/png"


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
        pytest.param("image/jpeg", JPEG, id="jpeg"),
        pytest.param("image/png", PNG, id="png"),
        pytest.param("image/png, image/jpeg", JPEG, id="a-tie-goes-to-the-first-supported"),
        pytest.param("image/jpeg;q=0.8, image/png;q=0.9", PNG, id="the-higher-q"),
        pytest.param("image/jpeg;q=0.8, image/png", PNG, id="no-q-is-one"),
        pytest.param("image/png;q=0.001", PNG, id="a-very-low-q"),
        pytest.param("text/html, image/png;q=0.5", PNG, id="the-better-one-is-not-supported"),
        pytest.param("image/webp,image/png,*/*;q=0.8", PNG, id="as-browsers-send-it"),
        pytest.param("*/*;q=0.9, image/png;q=0.1", JSON, id="wildcard-above-a-low-q"),
        pytest.param("image/*;q=0.9, image/jpeg;q=0.1", PNG, id="specific-beats-family"),
        pytest.param("*/*;q=1, image/*;q=0.5, application/json;q=0", JPEG, id="json-refused"),
        pytest.param("*/*, application/json;q=0.0", JPEG, id="zero-with-a-fraction"),
        pytest.param("image/*, image/jpeg;q=0", PNG, id="one-of-a-family-refused"),
        pytest.param("IMAGE/PNG", PNG, id="upper-case"),
        pytest.param("image/png;Q=0.5, image/jpeg;Q=0.4", PNG, id="upper-case-q"),
        pytest.param("  image/png ; q = 0.9 ,image/jpeg;q=0.8", PNG, id="spaces"),
        pytest.param("image/jpeg;q=0.8,image/png;level=1;q=0.9", PNG, id="other-parameters"),
        pytest.param(",, image/png ,", PNG, id="empty-members"),
        pytest.param("image/png;q=5, image/jpeg;q=0.9", PNG, id="a-q-above-one-is-one"),
        pytest.param("image/png;q=-1, image/jpeg;q=0.9", PNG, id="a-q-under-zero-is-one"),
        pytest.param("image/png;q=high, image/jpeg;q=0.9", PNG, id="a-q-that-is-no-number-is-one"),
        pytest.param("image/png;q=nan, image/jpeg;q=0.9", PNG, id="a-q-of-nan-is-one"),
        pytest.param("image/png;q, image/jpeg;q=0.9", PNG, id="a-q-without-value-is-one"),
    ],
)
def test_the_most_wanted_supported_type_is_chosen(accept: str | None, expected: str) -> None:
    assert choose_media_type(accept) == expected


@pytest.mark.parametrize(
    "accept",
    [
        pytest.param("text/html", id="not-supported"),
        pytest.param("text/*, audio/*", id="families-not-supported"),
        pytest.param("application/xml;q=0.9, text/csv", id="several-not-supported"),
        pytest.param("*/*;q=0", id="nothing-wanted"),
        pytest.param("application/json;q=0", id="the-only-one-refused"),
        pytest.param("application", id="no-slash"),
        pytest.param("application/jsonx", id="a-longer-name"),
        pytest.param("*", id="half-a-wildcard"),
        pytest.param(",", id="only-a-comma"),
        pytest.param(";q=1", id="only-a-parameter"),
        pytest.param("\x00\x01;;==,,/", id="garbage"),
    ],
)
def test_nothing_supported_is_a_406_that_names_the_supported_types(accept: str) -> None:
    with pytest.raises(RequestError) as raised:
        choose_media_type(accept)
    assert (raised.value.status, raised.value.code) == (406, "not_acceptable")
    for media_type in (JSON, JPEG, PNG):
        assert media_type in raised.value.hint
