"""Requests of roboflow's `inference-sdk` -> requests as the contract defines them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from d2serve.errors import bad_request
from d2serve.inputs.json_values import parse_json
from d2serve.messages import JSON_TYPE, RESPONSE_TYPES, HttpRequest, Part
from d2serve.metadata import ModelMetadata
from d2serve.settings import Settings

# Confidences of the SDK that are no numbers: the model's own default.
DEFAULT_CONFIDENCES = ("best", "default")
# The format of a request to `/{name}/{version}` whose response is an image.
IMAGE_FORMAT = "image"
PERCENT = 100
JPEG = RESPONSE_TYPES["jpeg"]
# Headers about the SDK's own body and response.
OWN_HEADERS = ("accept", "content-type", "x-amzn-sagemaker-custom-attributes")


@dataclass(frozen=True)
class Inference:
    """A request of the SDK.

    Attributes:
        images: base64 of each image.
        options: the contract's options.
        is_list: whether the response is a list, also for a single image.
        draws: whether to return the images with the detections drawn on them.
        only_draws: whether the response is only the drawn image.
    """

    images: Sequence[Any]
    options: Mapping[str, Any]
    is_list: bool = False
    draws: bool = False
    only_draws: bool = False

    def messages(self, received: HttpRequest) -> list[HttpRequest]:
        """The contract's requests: one for all detections, and one for each drawn image."""
        headers = {k: v for k, v in received.headers.items() if k not in OWN_HEADERS}
        common = replace(received, query={}, headers={**headers, "content-type": JSON_TYPE})
        drawn_headers = {**common.headers, "accept": JPEG}
        drawn = [
            replace(common, headers=drawn_headers, parts=(self._part([image]),))
            for image in (self.images if self.draws else ())
        ]
        found = [] if self.only_draws else [replace(common, parts=(self._part(self.images),))]
        return [*found, *drawn]

    def _part(self, images: Sequence[Any]) -> Part:
        document = {"images": images, "parameters": self.options}
        return Part(JSON_TYPE, json.dumps(document).encode("ascii"))


def json_object(message: HttpRequest, settings: Settings) -> dict[str, Any]:
    """Parse the body.

    Raises:
        RequestError: it is not a JSON object, or exceeds a limit.
    """
    document = parse_json(message.parts[0].body, settings)
    if not isinstance(document, dict):
        raise bad_request("the body is not a JSON object", "send `model_id` and `image`")
    return document


def read_document(document: Mapping[str, Any], model: ModelMetadata) -> Inference:
    """Translate a JSON request; fields without an equivalent, such as `source`, are ignored.

    Raises:
        RequestError: 400 an image is missing or is not base64.
    """
    given = document.get("image")
    images = given if isinstance(given, list) else [given]
    return Inference(
        [_base64_of(image) for image in images],
        _options(document, model),
        is_list=isinstance(given, list),
        draws=document.get("visualize_predictions") is True,
    )


def read_query(message: HttpRequest, model: ModelMetadata) -> Inference:
    """Translate a request with a query string; a confidence above 1 is a percentage."""
    query: dict[str, Any] = dict(message.query)
    if (confidence := _number(query.get("confidence"))) is not None:
        query["confidence"] = confidence / PERCENT if confidence > 1 else confidence
    draws = query.get("format") == IMAGE_FORMAT
    image = message.parts[0].body.decode("latin-1")
    return Inference([image], _options(query, model), draws=draws, only_draws=draws)


def _options(given: Mapping[str, Any], model: ModelMetadata) -> dict[str, Any]:
    """The contract's options; what the network cannot do is limited to what it can."""
    options = {
        "format": "roboflow",
        "masks": given.get("response_mask_format") or "polygon",
        "classes": given.get("class_filter") or None,
        "score_threshold": given.get("confidence"),
        "max_detections": given.get("max_detections"),
    }
    if options["score_threshold"] in DEFAULT_CONFIDENCES:
        options["score_threshold"] = None
    if (threshold := _number(options["score_threshold"])) is not None:
        options["score_threshold"] = max(threshold, model.score_threshold)
    if (count := _number(options["max_detections"])) is not None:
        options["max_detections"] = min(count, model.max_detections)
    return {name: value for name, value in options.items() if value is not None}


def _number(value: Any) -> float | None:
    """A number, also as text; None for anything else, which the core refuses, like NaN."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _base64_of(image: Any) -> str:
    if isinstance(image, dict) and image.get("type", "base64") == "base64":
        image = image.get("value")
    if not isinstance(image, str):
        raise bad_request(
            "`image` is not base64",
            'send {"type": "base64", "value": "..."} or a list of those; URLs are not read',
        )
    return image
