"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from d2serve.errors import RequestError, bad_request, not_acceptable
from d2serve.messages import RESPONSE_TYPES, Options

JSON = RESPONSE_TYPES["json"]
JSON_LINES = RESPONSE_TYPES["jsonlines"]
JPEG = RESPONSE_TYPES["jpeg"]
PNG = RESPONSE_TYPES["png"]
NPY = RESPONSE_TYPES["npy"]
NPZ = RESPONSE_TYPES["npz"]
# The other types hold a single image.
MULTI_IMAGE_TYPES = (JSON, JSON_LINES)
POSITIVE_INTEGER = re.compile("0*[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class MediaRange:
    """A media range such as `image/*;q=0.5`.

    Attributes:
        name: `type/subtype`, `type/*` or `*/*` in lower case.
        quality: the q-value, 0..1.
        parameters: all others by lower-case name; an empty string for one without a value.
    """

    name: str
    quality: float
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Match:
    """A range that covers a media type; `specificity` is 2 for the type itself, 0 for `*/*`."""

    media_range: MediaRange
    specificity: int

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key: q-value, then specificity."""
        return self.media_range.quality, self.specificity


@dataclass(frozen=True)
class Choice:
    """The media type of a response, and the options including those of the Accept header."""

    media_type: str
    options: Options


def choose_response(accept: str | None, options: Options, count: int) -> Choice:
    """The supported type with the highest q-value that can hold `count` images.

    For equal q-values the more specific range wins, then the options' own response_type, which is
    also used if `accept` is None, empty or `*/*`.

    SageMaker JumpStart's parameters count too: `verbose` requests its format, `n_predictions=K`
    at most K detections.

    Raises:
        RequestError: 406 if no type is acceptable, 400 if K is not a positive integer.

    Examples:
        >>> options = Options(score_threshold=0.05, max_detections=100)
        >>> choose_response("image/png;q=0.5, application/json", options, 1).media_type
        'application/json'
    """
    preferred = RESPONSE_TYPES[options.response_type]
    if accept is None or accept.strip() in ("", "*/*"):
        accept = preferred
    acceptable = _acceptable_types(accept)
    able = [name for name in acceptable if count == 1 or name in MULTI_IMAGE_TYPES]
    if not able:
        raise _single_image_only(count) if acceptable else _not_acceptable()
    chosen = max(able, key=lambda name: (*acceptable[name].rank, name == preferred))
    parameters = acceptable[chosen].media_range.parameters
    return Choice(chosen, _with_parameters(options, chosen, parameters))


def parse_accept(accept: str) -> dict[str, MediaRange]:
    """The header's ranges by name; for equal names the one with the highest q-value.

    Examples:
        >>> parse_accept("image/*;q=0.5")
        {'image/*': MediaRange(name='image/*', quality=0.5, parameters={})}
    """
    ranges: dict[str, MediaRange] = {}
    for media_range in (_parse_range(item) for item in accept.split(",") if item.strip()):
        known = ranges.get(media_range.name)
        if known is None or known.quality < media_range.quality:
            ranges[media_range.name] = media_range
    return ranges


def best_match(media_type: str, ranges: Mapping[str, MediaRange]) -> Match | None:
    """The most specific range that covers the type; None if there is none."""
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
    """A q-value; 1, the default, for text that is not a number in 0..1."""
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0.0 <= quality <= 1.0 else 1.0


def _acceptable_types(accept: str) -> dict[str, Match]:
    """The supported types with a q-value above 0, in the order of RESPONSE_TYPES."""
    ranges = parse_accept(accept)
    matches = {name: best_match(name, ranges) for name in RESPONSE_TYPES.values()}
    return {name: match for name, match in matches.items() if match and match.rank[0] > 0}


def _with_parameters(options: Options, media_type: str, parameters: Mapping[str, str]) -> Options:
    if "verbose" in parameters and media_type in MULTI_IMAGE_TYPES:
        options = replace(options, format="jumpstart")
    if "n_predictions" in parameters:
        count = _read_count(parameters["n_predictions"])
        options = replace(options, max_detections=min(options.max_detections, count))
    return options


def _read_count(text: str) -> int:
    if not POSITIVE_INTEGER.fullmatch(text):
        raise bad_request(
            "n_predictions in the Accept header is not an integer from 1 to 999999999",
            "send a number, as in application/json;verbose;n_predictions=10",
        )
    return int(text)


def _single_image_only(count: int) -> RequestError:
    return not_acceptable(
        f"the request has {count} images, but the types in Accept or response_type hold only one",
        f"accept {JSON} or {JSON_LINES}, or send one image per request",
    )


def _not_acceptable() -> RequestError:
    return not_acceptable(
        "the Accept header lists no supported type",
        f"accept one of {', '.join(RESPONSE_TYPES.values())}",
    )
