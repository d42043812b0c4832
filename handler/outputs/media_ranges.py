"""The media ranges of an Accept header (RFC 9110, section 12.5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MediaRange:
    """Such as `image/*;q=0.5`.

    Attributes:
        name: `type/subtype`, `type/*` or `*/*` in lower case.
        quality: the q-value, 0..1.
        parameters: all others, by their names in lower case; empty text where there is no value.
    """

    name: str
    quality: float
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Match:
    """A range that covers a media type; `specificity` is 2 for the type itself, 0 for `*/*`."""

    media_range: MediaRange
    specificity: int


def parse_accept(accept: str) -> dict[str, MediaRange]:
    """The header's ranges by their names; of equal names the one with the highest q-value."""
    ranges: dict[str, MediaRange] = {}
    for media_range in (_parse_range(item) for item in accept.split(",") if item.strip()):
        known = ranges.get(media_range.name)
        if known is None or known.quality < media_range.quality:
            ranges[media_range.name] = media_range
    return ranges


def best_match(media_type: str, ranges: Mapping[str, MediaRange]) -> Match | None:
    """The most specific range that covers the type, None where none does."""
    family = media_type.split("/")[0] + "/*"
    for specificity, name in ((2, media_type), (1, family), (0, "*/*")):
        if name in ranges:
            return Match(ranges[name], specificity)
    return None


def _parse_range(item: str) -> MediaRange:
    name, *parts = item.lower().split(";")
    pairs = (part.partition("=") for part in parts)
    parameters = {key.strip(): value.strip() for key, _, value in pairs}
    return MediaRange(name.strip(), _parse_quality(parameters.pop("q", "1")), parameters)


def _parse_quality(text: str) -> float:
    """A q-value; 1, as where none is given, for what is not a number in 0..1."""
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0.0 <= quality <= 1.0 else 1.0
