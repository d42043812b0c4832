"""Base class of all meta-architectures: input normalization, backbone and inference."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import build_backbone
from d2serve.model.preprocessing import pad_to_batch
from d2serve.model.structures import ModelOutput, SizeHW
from d2serve.model.tf32 import full_float32


class Network(nn.Module, ABC):
    """A network from resized images to instances and pixel classes.

    A subclass adds its heads, under Detectron2's names, and runs them in `inference`.

    Attributes:
        dtype: type of the layers' inputs. With float32, CUDA devices compute without TF32.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    dtype = torch.float32

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        mean, std = torch.tensor(config.input.pixel_mean), torch.tensor(config.input.pixel_std)
        self.register_buffer("pixel_mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(-1, 1, 1), persistent=False)
        self.backbone = build_backbone(config.backbone, config.input.channels)

    @torch.inference_mode()
    def forward(
        self, images: Sequence[Tensor], original_sizes_hw: Sequence[SizeHW]
    ) -> list[ModelOutput]:
        """Run a batch of images; the output is in pixels of the original images.

        Args:
            images: for each image UInt8 or Float[C, H, W] in 0..255, resized, channels in the order
                of INPUT.FORMAT, on the network's device; sizes may differ. A grey image stands for
                C equal channels.
            original_sizes_hw: heights and widths of the images before resizing.
        """
        sizes_hw = [(image.shape[-2], image.shape[-1]) for image in images]
        with self.arithmetic():
            return self.inference(self.extract(images), sizes_hw, original_sizes_hw)

    def arithmetic(self) -> AbstractContextManager[None]:
        """A context that computes float32 layers without TF32."""
        return full_float32() if self.dtype is torch.float32 else nullcontext()

    def extract(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute the backbone's features of resized images, by name Float[N, C, H/s, W/s]."""
        features: dict[str, Tensor] = self.backbone(self._to_batch(images))
        return features

    def _to_batch(self, images: Sequence[Tensor]) -> Tensor:
        """Float[N, C, H', W'], normalized and padded, in the dtype and layout of the layers."""
        normalized = [(image - self.pixel_mean) / self.pixel_std for image in images]
        backbone = self.backbone
        batch = pad_to_batch(normalized, backbone.size_divisibility, backbone.square_size)
        return batch.to(self.dtype, memory_format=torch.channels_last)

    @abstractmethod
    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """Run the heads on the features.

        Args:
            features: by name Float[N, C, H/s, W/s].
            sizes_hw: heights and widths of the N resized images, without padding.
            original_sizes_hw: heights and widths of the original images.
        """
