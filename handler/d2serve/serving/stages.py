"""The stages of a request, as functions of one request at a time."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from d2serve.detections import Detections
from d2serve.detector.base import Detector, PreprocessedImage
from d2serve.errors import RequestError, bad_request, internal
from d2serve.inputs.body import decode_item, read_body
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.jpeg_decoders import JpegDecoder
from d2serve.inputs.options import OptionReader, read_custom_attributes
from d2serve.messages import HttpRequest
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import choose_response
from d2serve.outputs.response import ResponseContent, needs_pixels, render
from d2serve.serving.request_state import ImageState, ParsedRequest, RequestState
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
# A client's own deadline.
TIMEOUT_HEADER = "x-d2serve-timeout-ms"
Result = TypeVar("Result")


class Stages:
    """Parsing, decoding, preprocessing and encoding for one model.

    Args:
        detector: preprocesses the images.
        model: the model's metadata.
        settings: the operator's settings.
        decode_jpeg: see `decode_image`.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(
        self, detector: Detector, model: ModelMetadata, settings: Settings, decode_jpeg: JpegDecoder
    ) -> None:
        self.detector = detector
        self.model = model
        self.settings = settings
        self.decode_jpeg = decode_jpeg
        self.option_reader = OptionReader(model, settings.options)

    def parse(self, request: HttpRequest) -> ParsedRequest:
        """Read the body and the options; no image is decoded.

        Raises:
            RequestError: the request cannot be used.
        """
        body = read_body(request, self.settings)
        attributes = read_custom_attributes(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options = self.option_reader.read(request.query, attributes, body.parameters)
        choice = choose_response(request.headers.get("accept"), options, len(body.items))
        budget = RequestBudget(self.settings)
        budget.take_images(len(body.items))
        keeps_pixels = needs_pixels(choice)
        return ParsedRequest(body.items, options, choice, body.envelope, budget, keeps_pixels)

    def decode(self, state: RequestState, item: int) -> list[ImageState]:
        """Decode one item of a parsed request; returns its images with their pixels.

        Raises:
            RequestError: the item cannot be decoded.
        """
        parsed, encoded = state.parsed, state.take_item(item)
        assert parsed is not None
        decoded = decode_item(
            encoded,
            parsed.options,
            self.settings,
            parsed.budget,
            self.decode_jpeg,
            self.model.channels,
        )
        if decoded.value_range is not None:
            state.value_ranges[item] = decoded.value_range
        if decoded.is_batch:
            state.mark_as_batch()
        return [ImageState((pixels.shape[0], pixels.shape[1]), pixels) for pixels in decoded.images]

    def choose_again(self, state: RequestState) -> None:
        """Choose the response for several images, which arrays turn out to be when decoded.

        Raises:
            RequestError: 406, the types in Accept hold a single image.
        """
        parsed, count = state.parsed, len(state.images)
        assert parsed is not None
        choice = choose_response(state.request.headers.get("accept"), parsed.options, count)
        state.parsed = replace(parsed, choice=choice, keeps_pixels=needs_pixels(choice))

    def preprocess(self, state: RequestState, image: ImageState) -> PreprocessedImage:
        """Convert an image to the network's input.

        Its pixels are freed unless the response needs them.
        """
        parsed, pixels = state.parsed, image.pixels
        assert parsed is not None
        assert pixels is not None
        if not parsed.keeps_pixels:
            image.pixels = None
        return self.detector.preprocess(pixels)

    def encode(self, state: RequestState) -> HttpResponse:
        """Encode the results of all images.

        Raises:
            RequestError: the response is an error.
        """
        parsed, images = state.parsed, state.images
        assert parsed is not None
        content = ResponseContent(
            images=tuple(image.pixels for image in images),
            detections=tuple(_result(image) for image in images),
            options=parsed.choice.options,
            media_type=parsed.choice.media_type,
            envelope=parsed.envelope,
        )
        rendered = render(content, self.model, self.settings.max_response_bytes)
        ranges = [value for _, value in sorted(state.value_ranges.items())]
        headers = dict(rendered.headers)
        if ranges:
            headers["X-Input-Range"] = ", ".join(ranges)
        return HttpResponse(200, rendered.media_type, rendered.body, headers)


def _result(image: ImageState) -> Detections | RequestError:
    assert image.result is not None
    return image.result


def client_timeout_s(headers: Mapping[str, str]) -> float:
    """Read the client's own timeout in seconds; infinity without one.

    Raises:
        RequestError: 400, the header is not a positive number.
    """
    if TIMEOUT_HEADER not in headers:
        return math.inf
    try:
        milliseconds = float(headers[TIMEOUT_HEADER])
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < math.inf:
        raise bad_request(
            f"{TIMEOUT_HEADER} is not a positive number",
            f"send milliseconds, as in {TIMEOUT_HEADER}: 2000",
        )
    return milliseconds / 1000


def guarded(stage: Callable[[], Result]) -> Result | RequestError:
    """The result of a stage, or the error that it raises, which affects no other request."""
    try:
        return stage()
    except RequestError as error:
        return error
    except Exception:  # an internal error must not fail other requests
        logger.exception("a stage of the pipeline failed")
        return internal()
