"""Operator settings as one validated dataclass."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from d2serve.errors import SettingsError

PADDINGS = ("image", "batch")
RUNTIMES = ("native", "detectron2")
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "auto")
RESIZES = ("pil", "device")
DECODES = ("cpu", "device")
# Pillow's own limit, which guards against decompression bombs.
PILLOW_MAX_PIXELS = 178_956_970
AT_LEAST_ONE = (
    "max_request_bytes",
    "max_response_bytes",
    "max_image_pixels",
    "max_request_pixels",
    "max_images_per_request",
    "max_json_values",
    "images_per_forward",
    "pixels_per_forward",
    "max_queued_requests",
    "max_queued_bytes",
    "max_connections",
)
AT_LEAST_ZERO = (
    "threads",
    "decode_threads",
    "drain_seconds",
    "longest_wait_seconds",
    "batch_wait_ms",
)
SWITCHES = ("request_log", "cuda_graphs")
CHOICES = {
    "padding": PADDINGS,
    "runtime": RUNTIMES,
    "precision": PRECISIONS,
    "resize": RESIZES,
    "decode": DECODES,
}
# Settings of earlier versions that are constants now: archives may still contain them.
RETIRED_SETTINGS = (
    "max_npy_header_bytes",
    "max_json_nesting",
    "request_head_seconds",
    "request_body_seconds",
    "keep_alive_seconds",
)
SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """The operator's settings, each with its default.

    Attributes:
        max_request_bytes: maximum size of a request body in bytes.
        max_response_bytes: maximum size of a response body in bytes; TorchServe's
            max_response_size must be at least as large.
        max_image_pixels: maximum width x height x frames of one image, checked before decoding.
        max_request_pixels: maximum number of pixels of all images of a request together.
        max_images_per_request: maximum number of images in a request.
        max_json_values: maximum number of values (numbers, strings, lists and objects) in a JSON
            body.
        images_per_forward: maximum number of images per forward pass; limits the memory use.
        pixels_per_forward: maximum number of pixels per forward pass, resized and padded; a larger
            image runs alone.
        batch_wait_ms: maximum time in milliseconds to wait for a batch to fill while the network
            is idle. TorchServe forms batches itself, with `maxBatchDelay`, and ignores it.
        max_queued_requests: maximum number of requests that wait or are being processed; further
            ones get a 503. TorchServe has a queue of its own, with `jobQueueSize`.
        max_queued_bytes: maximum size of their request bodies together in bytes.
        padding: `image` batches only images of equal padded size, so that results never depend on
            the other images of the batch; `batch` pads all images to the largest one like
            Detectron2's ImageList, which needs fewer forward passes and moves boxes near the
            borders.
        threads: CPU threads of the network per worker; 0 divides the cores among the workers.
        decode_threads: threads per worker that decode and encode requests while the network runs;
            0 divides the cores among the workers, 1 runs all stages in one thread.
        precision: number type in which the native network computes. `fp32` gives Detectron2's
            results; `bf16` and `fp16` are faster on hardware that supports them and change
            results slightly; `int8` computes convolutions in 8-bit integers on a CPU, with an
            archive that is calibrated for it; `auto` chooses bf16, fp16 or fp32 by device. Boxes,
            scores and masks are float32 in any case.
        warm_up_sizes: image sizes, as in `640x480 480x640` (width x height), that a worker runs
            before it accepts requests; empty for none.
        resize: `pil` resizes images with Pillow on the CPU, like Detectron2; `device` resizes on
            the network's device, where pixel values differ by at most 1 of 255.
        decode: `cpu` decodes JPEGs on the CPU; `device` decodes them on the network's GPU, which
            rounds differently.
        cuda_graphs: whether a GPU runs the backbone as CUDA graphs, recorded for each padded size
            and number of images; no effect on a CPU.
        drain_seconds: maximum time in seconds that a stopping server waits for running requests; 0
            does not wait.
        longest_wait_seconds: maximum age in seconds of a request when its batch starts. Older
            requests are rejected, because their clients have given up; 0 accepts any age.
        max_connections: maximum number of connections with a request in progress.
        request_log: whether the log has a line of JSON for each request.
        runtime: `native` runs the model on d2serve's own network, `detectron2` on the upstream
            package, which must be installed. `d2serve archive` sets it.
        options: defaults of the request options, by name; validated when the model is loaded.

    Raises:
        SettingsError: a value is out of range; the message contains the accepted ones.

    Examples:
        >>> Settings(images_per_forward=4).padding
        'image'
        >>> Settings(images_per_forward=0)
        Traceback (most recent call last):
            ...
        d2serve.errors.SettingsError: handler setting images_per_forward is 0, expected an \
integer of at least 1
    """

    max_request_bytes: int = 100_000_000
    max_response_bytes: int = 100_000_000
    max_image_pixels: int = 50_000_000
    max_request_pixels: int = 200_000_000
    max_images_per_request: int = 64
    max_json_values: int = 10_000_000
    images_per_forward: int = 8
    pixels_per_forward: int = 16_000_000
    batch_wait_ms: int = 0
    max_queued_requests: int = 64
    max_queued_bytes: int = 1_000_000_000
    padding: str = "image"
    threads: int = 0
    decode_threads: int = 0
    precision: str = "fp32"
    warm_up_sizes: str = "640x480 480x640"
    resize: str = "pil"
    decode: str = "cpu"
    cuda_graphs: bool = False
    drain_seconds: int = 20
    longest_wait_seconds: int = 60
    max_connections: int = 1024
    request_log: bool = True
    runtime: str = "native"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in AT_LEAST_ONE:
            self._require_integer(name, minimum=1)
        for name in AT_LEAST_ZERO:
            self._require_integer(name, minimum=0)
        for name in SWITCHES:
            self._require_boolean(name)
        for name, choices in CHOICES.items():
            self._require_one_of(name, choices)
        if self.max_image_pixels > PILLOW_MAX_PIXELS:
            accepted = f"at most {PILLOW_MAX_PIXELS}, the limit of Pillow"
            raise _unexpected("max_image_pixels", self.max_image_pixels, accepted)
        image_sizes(self.warm_up_sizes)
        if self.runtime == "detectron2":
            self._check_upstream()

    def _require_integer(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise _unexpected(name, value, f"an integer of at least {minimum}")

    def _require_boolean(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise _unexpected(name, value, "true or false")

    def _require_one_of(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise _unexpected(name, value, f"one of {', '.join(choices)}")

    def _check_upstream(self) -> None:
        """Reject settings that the detectron2 package does not support."""
        if self.precision in ("bf16", "fp16", "int8"):
            raise _unexpected(
                "precision",
                self.precision,
                "fp32 or auto: the detectron2 package computes in fp32",
            )
        if self.resize != "pil":
            raise _unexpected(
                "resize", self.resize, "pil: the detectron2 package resizes with Pillow"
            )
        if self.cuda_graphs:
            raise _unexpected(
                "cuda_graphs", True, "false: the detectron2 package does not support CUDA graphs"
            )


SETTING_NAMES = tuple(entry.name for entry in fields(Settings) if entry.name != "options")


def image_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Parse widths and heights such as `640x480 480x640`; an empty text contains none.

    Raises:
        SettingsError: the text has another format.

    Examples:
        >>> image_sizes("640x480 480x640")
        ((640, 480), (480, 640))
    """
    sizes = [SIZE.fullmatch(size) for size in text.split()] if isinstance(text, str) else [None]
    parsed = tuple((int(size[1]), int(size[2])) for size in sizes if size)
    if len(parsed) < len(sizes):
        raise _unexpected(
            "warm_up_sizes", text, "widths and heights such as '640x480 480x640', or '' for none"
        )
    return parsed


def _unexpected(name: str, value: Any, expected: str) -> SettingsError:
    return SettingsError(f"handler setting {name} is {value!r}, expected {expected}")
