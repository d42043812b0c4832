"""The detector that runs d2serve's own network."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import PreprocessedImage, Size
from d2serve.detector.batching import BatchedDetector
from d2serve.detector.channels import fit_channels
from d2serve.detector.cuda_graphs import enable_cuda_graphs
from d2serve.detector.model_outputs import detections_of
from d2serve.errors import SettingsError
from d2serve.model import int8_conv
from d2serve.model.augmentation import AugmentedInference
from d2serve.model.calibration import Calibration
from d2serve.model.calibration_file import read_calibration
from d2serve.model.fused_conv import fuse
from d2serve.model.int8 import quantize
from d2serve.model.meta_arch import GeneralizedRCNN, build_optimized
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import pack
from d2serve.model.preprocessing import (
    padded_size,
    planar,
    resize_image,
    resize_on_device,
    resize_planar,
    shortest_edge_size,
    to_device,
)
from d2serve.model.serialization import decode_config, read_model_file
from d2serve.model.structures import ModelOutput
from d2serve.model.weights import WEIGHTS_FILE, read_weights
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
RUNTIME = "native"
CPU_INFO = Path("/proc/cpuinfo")
# Linux's names for bfloat16 arithmetic on x86 and on Arm.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# NVIDIA's compute capabilities with fast float16 (Volta) and bfloat16 (Ampere).
FP16_CAPABILITY, BF16_CAPABILITY = (7, 0), (8, 0)


class NativeDetector(BatchedDetector):
    """Images in, detections out, many at a time.

    Args:
        model: the network with its weights, on the device; modified in place for speed.
        device: the network's device.
        settings: the operator's settings.
        calibration: of the network, for 8-bit integers.

    Raises:
        SettingsError: the device does not support the precision, or the calibration is missing.
        ConfigError: the calibration does not match the network.
    """

    def __init__(
        self,
        model: Network,
        device: torch.device,
        settings: Settings,
        calibration: Calibration | None = None,
    ) -> None:
        dtype = choose_dtype(settings.precision, device)
        if settings.precision == "int8":
            _quantize(model, calibration, dtype)
        self.model = optimize(model, dtype)
        if device.type == "cpu":
            pack(self.model)
        if device.type == "cuda":
            fuse(self.model)
        augmentation = model.config.augmentation
        if settings.cuda_graphs and augmentation is not None:
            logger.warning("the setting cuda_graphs has no effect: the archive augments images")
        elif settings.cuda_graphs:
            enable_cuda_graphs(self.model, device)
        self.device = device
        # Pillow weights the other channels by a fourth one.
        self.resizes_on_device = settings.resize == "device" and self.channels < 4
        self.augmented: AugmentedInference | None = None
        if augmentation is not None:
            assert isinstance(model, GeneralizedRCNN), "checked by the reader"
            self.augmented = AugmentedInference(
                model, augmentation, self._resize, settings.pixels_per_forward
            )
        super().__init__(self._padded_sizes, settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "NativeDetector":
        """Load the network of an archive's model folder.

        Raises:
            ConfigError: `model.json` cannot be read or is for another runtime.
            CheckpointError: the weights cannot be read or do not match the network.
            SettingsError: the device does not support the precision, or int8 is not calibrated.
        """
        config = decode_config(read_model_file(folder, RUNTIME))
        # Converting and packing copies weights, and then no copy of the file is left in memory.
        weights = read_weights(folder / WEIGHTS_FILE, mapped=device.type == "cpu")
        calibration = read_calibration(folder) if settings.precision == "int8" else None
        return cls(build_optimized(config, weights, device), device, settings, calibration)

    @property
    def num_classes(self) -> int:
        """Number of the model's instance classes."""
        return self.model.config.output.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """Number of the model's pixel classes; 0 without semantic segmentation."""
        return self.model.config.output.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """The network's own minimum score, 0..1."""
        return self.model.config.output.score_threshold

    @property
    def max_detections(self) -> int:
        """The network's maximum number of detections per image."""
        return self.model.config.output.max_detections

    @property
    def channels(self) -> int:
        """Number of channels of the network's input: 1, 3 or 4."""
        return self.model.config.input.channels

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        """Convert UInt8[H, W, 3] RGB to the network's channel order and, on the CPU, its size.

        Images that the network runs in several sizes are resized there.

        Raises:
            RequestError: 422 the fourth channel is missing.
        """
        config = self.model.config.input
        convert = planar if self.resizes_on_device or self.augmented else resize_image
        fitted = fit_channels(image, config.channels, config.channel_order)
        converted = convert(fitted, config)
        return PreprocessedImage(converted, (image.shape[0], image.shape[1]))

    def _min_size(self) -> int:
        return self.model.config.input.min_size

    def _padded_sizes(self, size_hw: Size) -> list[Size]:
        backbone = self.model.backbone
        return [
            padded_size(each, backbone.size_divisibility, backbone.square_size)
            for each in self._input_sizes(size_hw)
        ]

    def _input_sizes(self, size_hw: Size) -> list[Size]:
        """Heights and widths in the network of a preprocessed image."""
        config, augmentation = self.model.config.input, self.model.config.augmentation
        if augmentation is not None:
            return augmentation.resized(size_hw) * augmentation.per_size
        if self.resizes_on_device:
            return [shortest_edge_size(size_hw, config.min_size, config.max_size)]
        return [size_hw]

    def _run_network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        return detections_of(self._infer(images, sizes_hw), sizes_hw, self.model.config)

    def _infer(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[ModelOutput]:
        if self.resizes_on_device or not self.augmented:
            images = [to_device(image, self.device) for image in images]
        if self.augmented:
            return self.augmented(images, sizes_hw)
        if self.resizes_on_device:
            images = [
                resize_on_device(image, *self._input_sizes(size_hw))
                for image, size_hw in zip(images, sizes_hw, strict=True)
            ]
        outputs: list[ModelOutput] = self.model(images, sizes_hw)
        return outputs

    def _resize(self, image: Tensor, size_hw: Size) -> Tensor:
        """Resize an image to one of several sizes, on the network's device at the end."""
        if self.resizes_on_device:
            return resize_on_device(image, size_hw)
        return to_device(resize_planar(image, size_hw), self.device)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number type for the setting `precision` on a device.

    `auto` is the fastest type that the device computes natively: bfloat16, else float16 on a GPU,
    else float32. It is also the type of the layers that `int8` does not quantize.

    Raises:
        SettingsError: float16 on the CPU, where torch computes it more slowly than float32; int8 on
            a GPU.
    """
    if precision == "int8" and device.type != "cpu":
        raise SettingsError(
            "handler setting precision is 'int8', which is for CPUs; on a GPU use bf16, fp16 or "
            "auto"
        )
    if precision in ("auto", "int8"):
        return _native_dtype(device)
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError(
            "handler setting precision is 'fp16', which is for GPUs; on the CPU use fp32, bf16 "
            "or auto"
        )
    if precision == "bf16" and _native_dtype(device) is not torch.bfloat16:
        logger.warning("precision is bf16, but the %s has no bfloat16; fp32 is faster", device)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _quantize(model: Network, calibration: Calibration | None, dtype: torch.dtype) -> None:
    """Replace layers of the network by 8-bit ones, where this machine computes them."""
    if calibration is None:
        raise SettingsError(
            "handler setting precision is 'int8', but the archive is not calibrated; build it with "
            "`d2serve archive --precision int8 --calibration FOLDER`, or use bf16, fp32 or auto"
        )
    optimize(model)  # folds norms, whose weights are quantized with those of the convolutions
    problem = int8_conv.find_problem()
    if problem:
        logger.warning("precision is int8, but the layers run in %s: %s", dtype, problem)
        return
    quantize(model, calibration, dtype)


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    capability = torch.cuda.get_device_capability(device)
    if capability >= BF16_CAPABILITY:
        return torch.bfloat16
    return torch.float16 if capability >= FP16_CAPABILITY else torch.float32


def _cpu_has_bf16() -> bool:
    """Return whether Linux reports bfloat16 arithmetic; False on other systems."""
    if not CPU_INFO.is_file():
        return False
    return not BF16_FLAGS.isdisjoint(CPU_INFO.read_text(encoding="ascii").split())
