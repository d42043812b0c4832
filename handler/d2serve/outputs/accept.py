"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from d2serve.errors import RequestError, bad_request, not_acceptable
from d2serve.messages import RESPONSE_TYPES, Options


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


JSON = RESPONSE_TYPES["json"]
JSON_LINES = RESPONSE_TYPES["jsonlines"]
JPEG = RESPONSE_TYPES["jpeg"]
PNG = RESPONSE_TYPES["png"]
NPY = RESPONSE_TYPES["npy"]
NPZ = RESPONSE_TYPES["npz"]
# The others have room for one picture alone.
FOR_SEVERAL_PICTURES = (JSON, JSON_LINES)
WHOLE_NUMBER = re.compile("0*[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Choice:
    """The media type of an answer, and the options with what the Accept header adds to them."""

    media_type: str
    options: Options


def choose_response(accept: str | None, options: Options, count: int) -> Choice:
    """The supported type with the highest q-value that can answer `count` pictures.

    At equal q-values the type that is named more specifically wins, then the options' own
    response_type. That one is also meant where `accept` is None, empty or `*/*`.

    SageMaker JumpStart's parameters count too: `verbose` asks for its format, `n_predictions=K`
    for K detections at most.

    Raises:
        RequestError: 406 where no type is acceptable, 400 where K is no whole number above 0.
    """
    preferred = RESPONSE_TYPES[options.response_type]
    wanted = _wanted_types(_what_is_meant(accept, preferred))
    able = [name for name in wanted if count == 1 or name in FOR_SEVERAL_PICTURES]
    if not able:
        raise _one_picture_only(count) if wanted else _none_acceptable()
    chosen = max(able, key=lambda name: (*_rank(wanted[name]), name == preferred))
    return Choice(chosen, _refined(options, chosen, wanted[chosen].media_range.parameters))


def _what_is_meant(accept: str | None, preferred: str) -> str:
    if accept is None or accept.strip() in ("", "*/*"):
        return preferred
    return accept


def _wanted_types(accept: str) -> dict[str, Match]:
    """The supported types that the client does not refuse, in the order of RESPONSE_TYPES."""
    ranges = parse_accept(accept)
    matches = {name: best_match(name, ranges) for name in RESPONSE_TYPES.values()}
    return {name: match for name, match in matches.items() if match and _rank(match)[0] > 0}


def _rank(match: Match) -> tuple[float, int]:
    return match.media_range.quality, match.specificity


def _refined(options: Options, media_type: str, parameters: Mapping[str, str]) -> Options:
    if "verbose" in parameters and media_type in (JSON, JSON_LINES):
        options = replace(options, format="jumpstart")
    if "n_predictions" in parameters:
        count = _read_count(parameters["n_predictions"])
        options = replace(options, max_detections=min(options.max_detections, count))
    return options


def _read_count(text: str) -> int:
    if not WHOLE_NUMBER.fullmatch(text):
        raise bad_request(
            "n_predictions in the Accept header is not a whole number from 1 to 999999999",
            "such as application/json;verbose;n_predictions=10",
        )
    return int(text)


def _one_picture_only(count: int) -> RequestError:
    return not_acceptable(
        f"the types in the Accept header or response_type hold one picture, and {count} were sent",
        f"accept {JSON} or {JSON_LINES}, or send one picture at a time",
    )


def _none_acceptable() -> RequestError:
    return not_acceptable(
        "none of the types in the Accept header can be answered",
        f"accept one of {', '.join(RESPONSE_TYPES.values())}",
    )
