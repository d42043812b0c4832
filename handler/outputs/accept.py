"""Which of the supported media types a client wants (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from handler.errors import RequestError, not_acceptable

JSON = "application/json"
SUPPORTED = (JSON, "image/jpeg", "image/png")


def choose_media_type(accept: str | None, supported: Sequence[str] = SUPPORTED) -> str:
    """The supported type with the highest q-value; the first supported one wins a tie.

    Raises:
        RequestError: 406 where none is acceptable.
    """
    if accept is None or not accept.strip():
        return supported[0]
    ranges = [_parse_range(item) for item in accept.split(",") if item.strip()]
    best = max(supported, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) <= 0:
        raise _none_acceptable(supported)
    return best


def _parse_range(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = _parse_quality(value.strip())
    return media_range, quality


def _parse_quality(text: str) -> float:
    """A q-value; 1, as where none is given, for what is not a number in 0..1."""
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0.0 <= quality <= 1.0 else 1.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The q-value of the most specific range that covers the type, 0 where none does."""
    family = media_type.split("/")[0] + "/*"
    for covering in (media_type, family, "*/*"):
        matches = [quality for media_range, quality in ranges if media_range == covering]
        if matches:
            return max(matches)
    return 0.0


def _none_acceptable(supported: Sequence[str]) -> RequestError:
    return not_acceptable(
        "none of the types in the Accept header can be answered",
        f"accept one of {', '.join(supported)}",
    )
