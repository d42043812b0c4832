"""Base class of all meta-architectures: input normalisation, backbone and output scaling."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import build_backbone
from d2serve.model.image_list import pad_to_batch
from d2serve.model.structures import Found, SizeHW


class Network(nn.Module, ABC):
    """From resized pictures to what is in them.

    A family adds its heads, under the names that Detectron2 gives them, and says in `find` what
    they make of the backbone's features.

    Attributes:
        dtype: what the layers compute in.
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
        self.backbone = build_backbone(config.backbone)

    @torch.inference_mode()
    def forward(self, images: Sequence[Tensor], original_sizes_hw: Sequence[SizeHW]) -> list[Found]:
        """What is in several pictures, in their original pixels.

        Args:
            images: per picture UInt8 or Float[3, H, W] in 0..255, resized, channels in the order
                of INPUT.FORMAT, on the network's device; sizes may differ.
            original_sizes_hw: heights and widths that the answers are scaled back to.
        """
        sizes_hw = [(image.shape[-2], image.shape[-1]) for image in images]
        features = self.backbone(self._batch(images))
        return self.find(features, sizes_hw, original_sizes_hw)

    def _batch(self, images: Sequence[Tensor]) -> Tensor:
        """Float[N, 3, H', W'], normalised and padded, in the type and layout of the layers."""
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        backbone = self.backbone
        batch = pad_to_batch(normalised, backbone.size_divisibility, backbone.square_size)
        return batch.to(self.dtype, memory_format=torch.channels_last)

    @abstractmethod
    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """What the heads find.

        Args:
            features: by name Float[N, C, H/s, W/s].
            sizes_hw: the N images' heights and widths in the network's input, padding apart.
            original_sizes_hw: those of the original pictures.
        """
