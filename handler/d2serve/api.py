"""Run a model of an archive in this process: `load` and `Model`."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import Failure, InferenceResult, ModelDetector, PreprocessedImage
from d2serve.errors import ImageError, RequestError, SettingsError, too_large
from d2serve.inputs.arrays import read_array
from d2serve.inputs.body import decode_item
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.images import decode_opened
from d2serve.inputs.jpeg_decoders import JpegDecoder, jpeg_decoder
from d2serve.inputs.options import OptionReader
from d2serve.messages import GENERIC_TYPES, Options, Part
from d2serve.metadata import ModelMetadata
from d2serve.outputs.result import filter_detections
from d2serve.serving.archive_files import unpacked_archive
from d2serve.serving.loading import load_detector, read_metadata
from d2serve.serving.model_config import MODEL_CONFIG_FILE, read_settings
from d2serve.settings import Settings

PathLike: TypeAlias = str | os.PathLike[str]
# An array, a PIL image, the path of a file, or the content of a file.
ImageLike: TypeAlias = npt.NDArray[Any] | Image.Image | PathLike | bytes
SINGLE_IMAGE_TYPES = (np.ndarray, Image.Image, str, os.PathLike, bytes, bytearray, memoryview)


def load(
    path: PathLike,
    *,
    device: str | torch.device = "cpu",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> "Model":
    """Load the model of an archive.

    The code in the archive is not run: the installed d2serve runs the model. Environment variables
    of the server (`D2SERVE_...`) have no effect, and the process's threads and torch's flags stay
    as they are; use `torch.set_num_threads` to change the number of CPU threads.

    Args:
        path: a `.mar` archive, a SageMaker package (`.tar.gz`), or the folder of an unpacked one.
        device: torch device of the network, such as `cpu` or `cuda:0`.
        precision: `fp32`, `bf16`, `fp16`, `int8` or `auto`; by default the archive's setting.
        settings: settings and default options that differ from the archive's, by name; see
            `d2serve.settings.Settings` and the options of `Model.predict`.

    Raises:
        ArchiveError: the archive is missing, damaged or malicious, or its files do not match its
            SHA256SUMS.
        SettingsError: a setting or the device does not exist, is out of range, or they do not suit
            each other.
        ConfigError, CheckpointError, ClassNamesError: a file of the model is not valid.
        RuntimeUnavailableError: the model needs the detectron2 package, which cannot be imported.

    Examples:
        >>> import d2serve
        >>> settings = {"images_per_forward": 4}
        >>> with d2serve.load("model-store/shapes.mar", settings=settings) as model:
        ...     model.class_names
        ('circle', 'triangle', 'square', 'star', 'cross', 'ring')
    """
    source = Path(path)
    overrides = {**(settings or {}), **({} if precision is None else {"precision": precision})}
    # Mapped weights remain usable after a temporary folder is removed.
    with unpacked_archive(source) as folder:
        chosen = read_settings(folder / MODEL_CONFIG_FILE, {}, overrides)
        torch_device = _usable_device(device)
        decode_jpeg = jpeg_decoder(chosen.decode, torch_device)
        detector = load_detector(folder, torch_device, chosen)
        metadata = read_metadata(folder, detector, source.name.partition(".")[0])
    return Model(detector, metadata, chosen, decode_jpeg)


def _usable_device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise SettingsError(f"device is {device!r}, expected cpu, cuda or cuda:N") from None
    gpus = torch.cuda.device_count()
    if chosen.type not in ("cpu", "cuda") or (chosen.index or 0) >= max(gpus, 1):
        raise SettingsError(f"device is {device!r}, expected cpu, or cuda:N with N below {gpus}")
    if chosen.type == "cuda" and not gpus:
        raise SettingsError(f"device is {device!r}, but PyTorch finds no CUDA GPU here; use cpu")
    return chosen


class Model:
    """A model that runs in this process; `load` creates it.

    Calls from several threads run one after the other. `close`, or the end of a `with` block,
    frees the model's memory.

    Args:
        detector: runs the network.
        metadata: the class names and limits of the model.
        settings: the archive's settings.
        decode_jpeg: see `decode_image`.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(
        self,
        detector: ModelDetector,
        metadata: ModelMetadata,
        settings: Settings,
        decode_jpeg: JpegDecoder,
    ) -> None:
        self.metadata = metadata
        # The limits on requests protect servers; the limit per image also protects programs.
        self._settings = replace(
            settings, max_images_per_request=sys.maxsize, max_request_pixels=sys.maxsize
        )
        self._decode_jpeg = decode_jpeg
        self._option_reader = OptionReader(metadata, settings.options)
        self._detector: ModelDetector | None = detector
        self._lock = threading.RLock()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the instance classes, in the order of the class indices."""
        return self.metadata.class_names

    @property
    def stuff_names(self) -> tuple[str, ...]:
        """Names of the classes of `Detections.semantic`; empty without semantic segmentation."""
        return self.metadata.stuff_names

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        score_threshold: float | np.floating[Any] | None = None,
        max_detections: int | None = None,
        classes: Iterable[str | int | np.integer[Any]] | None = None,
        input_layout: str | None = None,
        input_color: str | None = None,
        input_range: str | None = None,
    ) -> list[Detections]:
        """Detect instances in one or many images.

        Images are decoded as the network needs them, so that an iterable may be larger than the
        memory. Images of equal size run in batches of at most the setting `images_per_forward`.

        Args:
            images: one image or an iterable of images, each of them

                - an array: HxW, HxWx1, HxWx3, HxWx4, CxHxW, or a batch of these with a leading N,
                  which counts as N images; UInt8[H, W, 3] is read as RGB;
                - a `PIL.Image.Image`;
                - the path, or the content as `bytes`, of a JPEG, PNG, WebP, BMP, GIF, TIFF or NPY
                  file.

            score_threshold: minimum score, from the network's own threshold to 1.
            max_detections: maximum number of detections per image.
            classes: names or indices of the classes to keep.
            input_layout: `auto`, `hwc` or `chw`, the axis order of arrays.
            input_color: `rgb` or `bgr`, the channel order of arrays.
            input_range: `auto`, `0-255`, `0-1` or `-1-1`, the value range of arrays.

        Returns:
            The detections of each image, in order. Options that are None have the archive's
            defaults.

        Raises:
            ImageError: an image cannot be decoded; `position` is its index.
            RequestError: an option is not valid.
            OSError: a file cannot be read.
            TypeError: an image has another type.
            ValueError: the model is closed.
            Exception: an error of the forward pass of a single image, such as
                `torch.OutOfMemoryError`; several images that fail together are first run again in
                smaller batches.

        Examples:
            >>> import d2serve
            >>> model = d2serve.load("model-store/shapes.mar")
            >>> image = "models/shapes/samples/shapes_02.png"
            >>> [detections] = model.predict(image, score_threshold=0.9)
            >>> detections.class_names
            ('cross', 'star', 'circle', 'square', 'triangle')
            >>> sorted(detections.to_coco(image_id=1)[0])
            ['bbox', 'category_id', 'image_id', 'score', 'segmentation']
            >>> model.close()
        """
        options = self._options(
            score_threshold=_python_number(score_threshold),
            max_detections=_python_number(max_detections),
            classes=None if classes is None else list(map(_python_number, classes)),
            input_layout=input_layout,
            input_color=input_color,
            input_range=input_range,
        )
        items: Iterable[Any] = [images] if isinstance(images, SINGLE_IMAGE_TYPES) else images
        with self._lock:
            detector = self._detector
            if detector is None:
                raise ValueError("the model is closed; load it again")
            stream = detector.stream(self._preprocess(detector, items, options))
            results = {position: self._detections(result, options) for position, result in stream}
        return [results[position] for position in range(len(results))]

    def close(self) -> None:
        """Free the model's memory; a second call has no effect."""
        with self._lock:
            self._detector = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _options(self, **given: Any) -> Options:
        chosen = {name: value for name, value in given.items() if value is not None}
        # Masks and surfaces are always returned; the options are the layout of responses.
        try:
            return self._option_reader.read({**chosen, "masks": "rle", "densepose": "png"})
        except RequestError as error:
            message = f"{error.message}; {error.hint}"
            raise RequestError(error.status, error.code, message, error.hint) from None

    def _preprocess(
        self, detector: ModelDetector, images: Iterable[Any], options: Options
    ) -> Iterator[PreprocessedImage]:
        for position, image in enumerate(images):
            with _naming_image(position):
                yield from map(detector.preprocess, self._decode(image, options))

    def _decode(self, image: Any, options: Options) -> Sequence[RGBImage]:
        match image:
            case np.ndarray():
                settings, channels = self._settings, self.metadata.channels
                return read_array(image, options, settings, channels=channels).images
            case Image.Image():
                limit, keep_alpha = self._settings.max_image_pixels, self.metadata.channels == 4
                return [_from_pillow(image, limit, keep_alpha)]
            case str() | os.PathLike():
                content = Path(image).read_bytes()
            case bytes() | bytearray() | memoryview():
                content = bytes(image)
            case _:
                raise TypeError(
                    f"an image is a {type(image).__name__}, expected a numpy array, a PIL image, "
                    "a path or bytes"
                )
        part, budget = Part(GENERIC_TYPES[0], content), RequestBudget(self._settings)
        return decode_item(
            part, options, self._settings, budget, self._decode_jpeg, self.metadata.channels
        ).images

    def _detections(self, result: InferenceResult, options: Options) -> Detections:
        if isinstance(result.output, Failure):
            raise result.error or RuntimeError("the forward pass failed")
        detections = filter_detections(result.output, options)
        names = tuple(self.metadata.class_names[index] for index in detections.classes)
        return replace(detections, class_names=names)


@contextmanager
def _naming_image(position: int) -> Iterator[None]:
    """Raise an error of the block as that of the image at this position."""
    try:
        yield
    except RequestError as error:
        # Decoders wrap all errors of damaged files, also this one.
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise ImageError(error, position) from error


def _python_number(value: Any) -> Any:
    """Convert numpy's scalars, which are not Python's numbers, and nothing else."""
    return value.item() if isinstance(value, np.generic) else value


def _from_pillow(image: Image.Image, max_pixels: int, keep_alpha: bool) -> RGBImage:
    """Decode an opened image to RGB, upright (EXIF orientation applied)."""
    if image.width * image.height > max_pixels:
        raise too_large(
            f"the image is {image.width}x{image.height}, the limit is {max_pixels} pixels",
            "use a smaller image, or raise the setting max_image_pixels",
        )
    return decode_opened(image, keep_alpha=keep_alpha)
