"""Operator settings as one validated dataclass."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PADDINGS = ("image", "batch")
RUNTIMES = ("native", "detectron2")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
RESIZES = ("pil", "device")
DECODES = ("cpu", "device")
# Where Pillow itself stops, as a guard against decompression bombs.
PILLOW_LIMIT = 178_956_970
# Deeper, Python's own JSON parser would stop with an error of its own.
DEEPEST_NESTING = 500
POSITIVE = (
    "max_request_bytes",
    "max_response_bytes",
    "max_image_pixels",
    "max_request_pixels",
    "max_images_per_request",
    "max_json_values",
    "max_json_nesting",
    "max_npy_header_bytes",
    "images_per_forward",
    "max_connections",
    "request_head_seconds",
    "request_body_seconds",
    "keep_alive_seconds",
)
SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)
NOT_NEGATIVE = ("threads", "decode_threads", "drain_seconds", "longest_wait_seconds")


class SettingsError(ValueError):
    """A setting that does not exist or has a value out of its range."""


@dataclass(frozen=True)
class Settings:
    """Each with its default.

    Attributes:
        max_request_bytes: bytes of one request's body.
        max_response_bytes: bytes of one response's body; TorchServe's max_response_size has to be
            as large.
        max_image_pixels: width x height x frames of one picture, checked before it is decoded.
        max_request_pixels: pixels of all pictures of one request together.
        max_images_per_request: pictures of one request.
        max_json_values: numbers, texts, lists and objects in one JSON body.
        max_json_nesting: how deep lists and objects may lie in each other.
        max_npy_header_bytes: the header of an NPY array.
        images_per_forward: how many pictures go through the network together at most; bounds
            memory.
        padding: `image` runs pictures together whose padded sizes are equal, so that an answer
            never depends on the neighbours in its batch; `batch` pads all to the largest, as
            Detectron2's ImageList does, which saves forwards and moves boxes near the borders.
        threads: CPU threads of the network in one worker; 0 shares the cores among the workers.
        decode_threads: threads of one worker that decode and encode requests beside the network;
            0 is its share of the cores, 1 does all in one thread.
        precision: what our own network's layers compute in. `fp32` gives Detectron2's numbers;
            `bf16` and `fp16` are quicker where the hardware has them, and move answers a little;
            `auto` picks by device. Boxes, scores and masks come as float32 in any case.
        request_log: whether the log has a line of JSON for each request.
        warm_up_sizes: `WIDTHxHEIGHT` of pictures, with spaces between, that go through a worker
            before it is ready; see `picture_sizes`.
        resize: who scales pictures to the network's size. `pil` is Pillow on the CPU, as
            Detectron2; `device` is the network's device, whose pixels differ by 1 of 255 at most.
        decode: who decodes JPEGs: `cpu`, or `device`, the network's GPU, which rounds otherwise.
        cuda_graphs: whether a GPU launches the backbone as a whole, recorded for each padded size
            and number of pictures; no effect on a CPU.
        drain_seconds: how long TorchServe, told to stop, waits for the requests that run; 0 does
            not wait.
        longest_wait_seconds: a request that has been here for longer when its batch begins is
            refused, because its client has given up; 0 refuses none.
        max_connections: connections of a front door with a request under way at the same time.
        request_head_seconds: how long a client may take for a request's head.
        request_body_seconds: how long a body, or the taking of an answer, may stand still.
        keep_alive_seconds: how long a connection may wait for its next request.
        runtime: `native` runs the model on our own network, `detectron2` on the upstream package,
            which has to be installed. The archive's builder chose it.
        options: defaults of requests' options, by their names; checked against the model where
            it is known.

    Raises:
        SettingsError: naming the setting and a valid value.
    """

    max_request_bytes: int = 100_000_000
    max_response_bytes: int = 100_000_000
    max_image_pixels: int = 50_000_000
    max_request_pixels: int = 200_000_000
    max_images_per_request: int = 64
    max_json_values: int = 10_000_000
    max_json_nesting: int = 16
    max_npy_header_bytes: int = 10_000
    images_per_forward: int = 8
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
    request_head_seconds: int = 30
    request_body_seconds: int = 30
    keep_alive_seconds: int = 75
    request_log: bool = True
    runtime: str = "native"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in POSITIVE:
            _require_integer(name, getattr(self, name), least=1)
        for name in NOT_NEGATIVE:
            _require_integer(name, getattr(self, name), least=0)
        _require_at_most("max_image_pixels", self.max_image_pixels, PILLOW_LIMIT, "Pillow")
        _require_at_most("max_json_nesting", self.max_json_nesting, DEEPEST_NESTING, "Python")
        _require_boolean("request_log", self.request_log)
        _require_boolean("cuda_graphs", self.cuda_graphs)
        picture_sizes(self.warm_up_sizes)
        _require_one_of("padding", self.padding, PADDINGS)
        _require_one_of("runtime", self.runtime, RUNTIMES)
        _require_one_of("precision", self.precision, PRECISIONS)
        _require_one_of("resize", self.resize, RESIZES)
        _require_one_of("decode", self.decode, DECODES)
        if self.runtime == "detectron2" and self.precision in ("bf16", "fp16"):
            raise SettingsError(
                f"handler setting precision is {self.precision!r}; the detectron2 package computes "
                "in fp32, so use fp32 or auto"
            )
        if self.runtime == "detectron2" and self.resize != "pil":
            raise SettingsError(
                f"handler setting resize is {self.resize!r}; the detectron2 package resizes with "
                "Pillow, so use pil"
            )
        if self.runtime == "detectron2" and self.cuda_graphs:
            raise SettingsError(
                "handler setting cuda_graphs is for the native runtime; with the detectron2 "
                "package use false"
            )


SETTING_NAMES = tuple(entry.name for entry in fields(Settings) if entry.name != "options")


def picture_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Widths and heights of `WIDTHxHEIGHT WIDTHxHEIGHT ...`; none of an empty text.

    Raises:
        SettingsError: the text is another.
    """
    sizes = [SIZE.fullmatch(size) for size in text.split()] if isinstance(text, str) else [None]
    found = tuple((int(size[1]), int(size[2])) for size in sizes if size)
    if len(found) < len(sizes):
        raise SettingsError(
            f"handler setting warm_up_sizes is {text!r}; use widths and heights such as "
            "'640x480 480x640', or '' for none"
        )
    return found


def _require_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SettingsError(
            f"handler setting {name} is {value!r}; use a whole number of at least {least}"
        )


def _require_boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise SettingsError(f"handler setting {name} is {value!r}; use true or false")


def _require_at_most(name: str, value: int, most: int, who: str) -> None:
    if value > most:
        raise SettingsError(f"handler setting {name} is {value}; {who} refuses more than {most}")


def _require_one_of(name: str, value: Any, values: tuple[str, ...]) -> None:
    if value not in values:
        raise SettingsError(f"handler setting {name} is {value!r}; use one of {', '.join(values)}")
